# Remove the engine's pid file. Arguments: what common.sh takes, the file, the process that it names.
file=$1 pid=$2
alone
[ "$(cat "$file" 2>/dev/null)" = "$pid" ] || exit 0
[ "$(cat "/proc/$pid/comm" 2>/dev/null)" != dockerd ] || { echo "process $pid is a dockerd" >&2; exit 75; }
rm -f -- "$file"
