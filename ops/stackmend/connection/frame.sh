# shellcheck shell=sh
# Frames what a script writes into named sections; "mark" is known to whoever sends the script.
# What a section holds is quoted, a bar before each line, so that no line of it can be one of the
# frame's, whoever wrote it and whatever it knows. In between begin and end all must go through
# `quoted`; `section NAME COMMAND...` does all three. Names are the script's own words, never what
# the host says.
# shellcheck disable=SC2154
begin() { printf '\n%s begin %s\n' "$mark" "$1"; }
end() { printf '\n.%s\n%s end\n' "$1" "$mark"; }
quoted() { LC_ALL=C sed 's/^/|/'; }
section() {
  begin "$1"
  shift
  { "$@" 2>&1; printf '\n%s\n' $?; } | LC_ALL=C sed 's/^/|/; $s/^|/./'
  printf '%s end\n' "$mark"
}
