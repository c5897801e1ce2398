# Write standard input into a file behind its first bytes; what stood behind them is cut off.
# Arguments: the store, the file's name, how many bytes stay.
# shellcheck disable=SC2154 # walk.sh sets them
umask 077
plain "$2" && reach "$1" && dig "$real/.stackmend" || exit
if [ ! -e "./$2" ]; then
  own=$(mktemp -d) && : >"$own/$2" && lay "$own" "$2"
  status=$?
  rm -rf -- "$own"
  [ $status = 0 ] || exit $status
fi
take_up "$2" || {
  echo "$1/.stackmend/$2 is no file of ours; remove it" >&2
  exit 1
}
dd if=/dev/null of=/proc/self/fd/3 bs=1 seek="$3" 2>/dev/null || exit
cat >>/proc/self/fd/3
