# Frames what a script writes into named sections. Takes the mark off the script's arguments.
mark=$1
shift
begin() { printf '\n%s begin %s\n' "$mark" "$1"; }
end() { printf '\n%s end %s\n' "$mark" "$1"; }
section() {
  begin "$1"
  shift
  "$@" 2>&1
  end $?
}
