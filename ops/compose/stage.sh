# Take the project's files, as a tar archive on standard input, into a staging directory that
# nothing reads yet. Arguments: the state directory, "packed" where the archive went through gzip.
state=$1
if [ "$2" = packed ]; then how=-xzf; else how=-xf; fi
umask 077
private "$state" || exit 1
set -e
rm -rf "$state/staged" "$state/staged.new"
mkdir "$state/staged.new"
tar $how - -C "$state/staged.new"
sync "$state/staged.new" 2>/dev/null || sync
mv "$state/staged.new" "$state/staged"
