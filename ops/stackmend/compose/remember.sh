# Make what was proven the state to compare with and to go back to. The new record comes as a tar
# archive on standard input; it counts from the moment its applied.json is in place.
# What was put in place for it must still be there: what somebody took away since is not proven.
# Arguments: the state directory, the digest of the project's files, the project's directory, the bytes
# that a file of it can have.
# shellcheck disable=SC2154 # connection/walk.sh sets them
state=$1 digest=$2 directory=$3 largest=$4
umask 077
private "$state" || exit 1
case $digest in
'' | *[!0-9a-f]*)
  echo "$digest is no digest" >&2
  exit 1
  ;;
esac
# Those of a run that was rolled back, or ended early, are not these.
[ "$(cat "$state/staged/digest" 2>/dev/null)" = "$digest" ] || rm -rf "$state/staged"
if [ -f "$state/staged/files" ]; then
  if reach "$directory"; then
    lost=$(sed 's/^[^ ]*  //' "$state/staged/files" | survey "$real" "$largest" | sed -n '/^f  /!{s/^[^ ]*  //p;q;}')
  else
    lost=${obstacle#*  }
  fi
  if [ -n "$lost" ]; then
    echo "$lost was put in place and is no longer there as a file: something on the host took it away" >&2
    exit 1
  fi
fi
set -e
rm -rf "$state/record.new" "$state/staged.new"
mkdir -p "$state/record.new"
tar -xf - -C "$state/record.new"
if [ -d "$state/staged" ]; then
  rm -rf "$state/good-$digest" "$state/staged/tree"
  mv "$state/staged" "$state/good-$digest"
fi
# They count only beside the record that they belong to.
rm -f "$state/digests"
for name in files outside images applied.json digests; do
  mv -f "$state/record.new/$name" "$state/$name"
done
if [ -f "$state/record.new/checkout" ]; then
  mv -f "$state/record.new/checkout" "$state/checkout"
else
  rm -f "$state/checkout"
fi
sync "$state" 2>/dev/null || sync
rm -rf "$state/record.new" "$state/stale"
for old in "$state"/good-*; do
  [ "$old" = "$state/good-$digest" ] || rm -rf "$old"
done
