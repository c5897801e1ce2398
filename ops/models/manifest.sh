# Write standard input to a model's manifest, whole or not at all.
# Arguments: the directory of the manifests, the path below it, the owner (UID:GID or empty).
umask 022
file=$1/$2
mkdir -p -- "${file%/*}" || exit
cat >"$1/../.stackmend-manifest.$$" || exit
[ -z "$3" ] || chown -- "$3" "$1/../.stackmend-manifest.$$" || exit
mv -f -- "$1/../.stackmend-manifest.$$" "$file" || exit
# The directories on the way are the server's too.
[ -z "$3" ] || chown -R -- "$3" "$1/${2%%/*}"
