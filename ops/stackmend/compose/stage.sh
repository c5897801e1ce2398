# Take the project's files, as a tar archive on standard input, into a staging directory that
# nothing reads yet: an archive for each of the project's directories, and lists of what they hold.
# Arguments: the state directory, "packed" where what comes went through gzip, "unpacked" where the
# files are also needed as a tree, the digest over all of them.
state=$1 unpacked=$3
if [ "$2" = packed ]; then how=-xzf; else how=-xf; fi
umask 077
private "$state" || exit 1
set -e
new=$state/staged.new
rm -rf "$state/staged" "$new"
mkdir "$new"
tar $how - -C "$new"
[ -z "$unpacked" ] || while IFS= read -r line; do
  archive=$new/${line%% *}.tar at=${line#* }
  at=$new/tree${at#* }
  mkdir -p "$at"
  # A tar may take what stands behind -C for more than a name.
  (cd -P -- "$at" && exec tar -xf - <"$archive")
done <"$new/directories"
printf '%s\n' "$4" >"$new/digest"
sync "$new" 2>/dev/null || sync
mv "$new" "$state/staged"
