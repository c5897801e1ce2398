# Take the project's files, as a tar archive on standard input, into a staging directory that
# nothing reads yet. Arguments: the state directory.
state=$1
umask 077
private "$state" || exit 1
set -e
rm -rf "$state/staged" "$state/staged.new"
mkdir "$state/staged.new"
tar -xf - -C "$state/staged.new"
sync "$state/staged.new" 2>/dev/null || sync
mv "$state/staged.new" "$state/staged"
