# Put a file into its place if its content is what its name says, and remove it if not. What the
# server has begun to fetch of it goes.
# Arguments: the directory, the file's name (sha256-HEX), its place, its owner (UID:GID or empty).
# Exits with 65 where the content is another one.
sum=$(sha256sum <"$1/$2") || exit
if [ "sha256-${sum%% *}" != "$2" ]; then
  rm -f -- "$1/$2"
  echo "its content has the digest ${sum%% *}" >&2
  exit 65
fi
chmod 0644 -- "$1/$2" || exit
[ -z "$4" ] || chown -- "$4" "$1/$2" || exit
mkdir -p -- "${3%/*}" || exit
mv -f -- "$1/$2" "$3" || exit
rm -f -- "$3-partial" "$3-partial-"*
rmdir -- "$1" 2>/dev/null || :
