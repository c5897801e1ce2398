# End a process, and then those of its own that still have its sockets: SIGTERM, wait, SIGKILL, each
# only while it is proven to be the one that was looked at. Nothing is signalled on a number alone.
# Arguments: the root of the records, the record, the ports, seconds of grace; then of each process
# its number, start time, program and the inodes of its sockets (with commas).
dir=$1/$2
claim command "$3"
grace=$4
shift 4
newline='
'
# The program behind a link of /proc, even where its name ends in a newline.
link() {
  target=$(readlink "$1" && echo .) || return
  target=${target%"$newline".}
}
# Sets $is: same, released (the sockets are no longer its own), changed, ending or gone.
identity() {
  pid=$1 started=$2 exe=$3 inodes=$4 is=gone
  stat=$(cat "/proc/$pid/stat" 2>/dev/null)
  [ -n "$stat" ] || return 0
  is=changed
  # What stands before the last parenthesis may hold anything.
  # shellcheck disable=SC2086
  set -- ${stat##*)}
  [ "${20}" = "$started" ] || return 0
  case $1 in
  Z | X | x)
    is=gone
    return 0
    ;;
  esac
  if [ -n "$exe" ]; then
    if ! link "/proc/$pid/exe" 2>/dev/null; then
      # What ends gives its memory back first, its program with it, and its sockets a moment later.
      case $(stat_field "$pid" 23) in '' | 0) is=ending ;; esac
      return 0
    fi
    [ "${target% (deleted)}" = "${exe% (deleted)}" ] || return 0
  fi
  is=same
  [ -n "$inodes" ] || return 0
  is=released
  open=$(ls -l "/proc/$pid/fd" 2>/dev/null)
  rest=$inodes,
  while [ -n "$rest" ]; do
    case $open in *"-> socket:[${rest%%,*}]"*) is=same ;; esac
    rest=${rest#*,}
  done
}
# A field of a process's stat by its number in proc(5), from the third on; empty where it is gone.
stat_field() {
  stat=$(cat "/proc/$1/stat" 2>/dev/null)
  field=$(($2 - 2))
  # shellcheck disable=SC2086
  set -- ${stat##*)}
  eval "printf '%s' \"\${$field:-}\""
}
pause() { sleep 0.1 2>/dev/null || sleep 1; }
# Until it is no longer what it was, or the seconds are over.
wait_for() {
  until=$(($(date +%s) + $1))
  shift
  while identity "$@" && [ "$is" != gone ] && [ "$is" != changed ]; do
    [ "$(date +%s)" -lt "$until" ] || return 0
    pause
  done
}
by_number() {
  identity "$@"
  case $is in
  gone | ending) return 76 ;;
  same) ;;
  *) return 75 ;;
  esac
  if ! kill -TERM "$1"; then
    identity "$@"
    case $is in gone | ending) return 76 ;; esac
    return 77
  fi
  wait_for "$((${grace%.*} + 1))" "$@"
  # It has let go of the port, or has ended: no more is needed.
  case $is in
  gone | released) return 0 ;;
  changed)
    # Ended, and its number is another one's; or it became another program, which is left alone.
    if [ "$(stat_field "$1" 22)" = "$2" ]; then return 75; else return 0; fi
    ;;
  esac
  kill -KILL "$1"
  wait_for 5 "$@"
  case $is in same | ending) return 77 ;; esac
}
# The same by a handle of the process, which never means another one. 79: not possible here.
by_handle() {
  command -v python3 >/dev/null || return 79
  # shellcheck disable=SC2154 # the text of end.py
  python3 -I -S -c "$end_py" "$@" "$grace"
}
end_process() {
  by_handle "$@"
  ended=$?
  # Anything but an answer of ours: this Python cannot.
  case $ended in 0 | 75 | 76 | 77) return "$ended" ;; esac
  by_number "$@"
}
identity "$1" "$2" "$3" "$4"
case $is in
gone | ending) drop 76 "process $1 is gone" ;;
changed) drop 75 "process $1 is another one by now; nothing was signalled" ;;
released) drop 75 "process $1 no longer has the port; nothing was signalled" ;;
esac
keep pid "$1"
keep started "$2"
link "/proc/$1/exe" && keep exe "$target"
link "/proc/$1/cwd" && keep cwd "$target"
if ! {
  cat "/proc/$1/cmdline" >"$dir/argv" && cat "/proc/$1/environ" >"$dir/environ" &&
    grep -E '^(Uid|Gid|Groups|Umask):' "/proc/$1/status" >"$dir/status"
}; then
  drop 71 "process $1 cannot be recorded; nothing was signalled"
fi
first=$1
while [ $# -ge 4 ]; do
  end_process "$1" "$2" "$3" "$4"
  ended=$?
  if [ "$1" = "$first" ]; then
    case $ended in
    76) drop 76 "process $1 is gone" ;;
    75) [ "$(stat_field "$1" 22)" = "$2" ] || drop 75 "process $1 is another one by now; nothing was signalled" ;;
    esac
  fi
  case $ended in
  75) [ "$1" != "$first" ] || fail 75 "process $1 became another program, and was not killed" ;;
  77) fail 77 "process $1 would not end" ;;
  esac
  shift 4
done
finished
