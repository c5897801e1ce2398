# Become the process that a record describes: its directory, user, environment and command line.
# Arguments: the root of the records, the record, the program, the directory to start in.
dir=$1/$2 exe=$3 cwd=$4
exec </dev/null >/dev/null 2>"$dir/said"
printf '%s' $$ >"$dir/launched"
cd -- "$cwd" || exit
field() { awk -v name="$1:" '$1 == name { $1 = ""; sub(/^ /, ""); print }' "$dir/status"; }
uid=$(field Uid) gid=$(field Gid) groups=$(field Groups) mask=$(field Umask)
uid=${uid%% *} gid=${gid%% *}
umask "${mask:-022}"
if command -v python3 >/dev/null; then
  # shellcheck disable=SC2086,SC2154 # numbers, one word each; the text of launch.py
  exec python3 -I -S -c "$launch_py" "$dir" "$exe" "$uid" "$gid" $groups
fi
eval "set -- $(words "$dir/argv")"
program=$exe
if [ $# -gt 0 ]; then
  # The name that it was called by, where that still means this program: it may go by its name.
  case $1 in
  /*) called=$1 ;;
  */*) called=$cwd/$1 ;;
  *) called=$(path=$(tr '\0' '\n' <"$dir/environ" | sed -n 's/^PATH=//p' | head -n 1); PATH=$path command -v -- "$1") ;;
  esac
  [ "$(readlink -f -- "$called")" != "$(readlink -f -- "$exe")" ] || program=$called
  shift
fi
set -- "$program" "$@"
count=$#
eval "set -- \"\$@\" $(words "$dir/environ")"
# The environment first, as env wants it; what is no variable was written by the program itself.
index=0 total=$#
while [ $index -lt "$total" ]; do
  argument=$1
  shift
  if [ $index -lt $count ]; then
    set -- "$@" "$argument"
  else
    case $argument in [A-Za-z_]*=*) set -- "$@" "$argument" ;; esac
  fi
  index=$((index + 1))
done
index=0
while [ $index -lt $count ]; do
  argument=$1
  shift
  set -- "$@" "$argument"
  index=$((index + 1))
done
case $program in
*=*)
  echo "a program with '=' in its name cannot be started here without python3"
  exit 1
  ;;
esac
if [ "$(id -u)" = "$uid" ]; then
  exec env -i -- "$@" 2>/dev/null
elif command -v setpriv >/dev/null; then
  if [ -n "$groups" ]; then
    set -- --groups "$(echo "$groups" | tr -s ' ' , | sed 's/,$//')" -- env -i -- "$@"
  else
    set -- --clear-groups -- env -i -- "$@"
  fi
  exec setpriv --reuid "$uid" --regid "$gid" "$@" 2>/dev/null
elif command -v runuser >/dev/null; then
  exec runuser -u "$(id -un -- "$uid")" -- env -i -- "$@" 2>/dev/null
else
  echo 'none of python3, setpriv and runuser is there to start it as its user' >&2
fi
