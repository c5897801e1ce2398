# Frames what a script writes into named sections. Takes the mark off the script's arguments;
# `announce TEXT` gives mark and text as the first line, for a reader that does not know the mark.
mark=$1
shift
announce() { printf '%s %s\n' "$mark" "$1"; }
begin() { printf '\n%s begin %s\n' "$mark" "$1"; }
end() { printf '\n%s end %s\n' "$mark" "$1"; }
section() {
  begin "$1"
  shift
  "$@" 2>&1
  end $?
}
