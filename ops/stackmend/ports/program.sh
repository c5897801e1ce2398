# Let a supervisor stop what it keeps. Arguments: the root of the records, the record, the ports, the
# supervisor, its name of the program, how many words the stop command has, these, and those of the
# command that starts it again.
dir=$1/$2
claim program "$3"
keep supervisor "$4"
keep name "$5"
count=$6
name=$5
shift 6
: >"$dir/stop"
while [ "$count" -gt 0 ]; do
  printf '%s\0' "$1" >>"$dir/stop"
  count=$((count - 1))
  shift
done
for word; do printf '%s\0' "$word"; done >"$dir/start"
eval "set -- $(words "$dir/stop")"
"$@" >&2 || fail 74 "$name cannot be stopped"
finished
