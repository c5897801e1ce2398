# Make what was proven the state to compare with and to go back to. The new record comes as a tar
# archive on standard input; it counts from the moment its applied.json is in place.
# Arguments: the state directory, the digest of the project's files.
state=$1 digest=$2
umask 077
private "$state" || exit 1
case $digest in
'' | *[!0-9a-f]*)
  echo "$digest is no digest" >&2
  exit 1
  ;;
esac
set -e
rm -rf "$state/record.new"
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
sync "$state" 2>/dev/null || sync
rm -rf "$state/record.new" "$state/stale"
for old in "$state"/good-*; do
  [ "$old" = "$state/good-$digest" ] || rm -rf "$old"
done
