# Put a file into its place if its content matches its name, and remove it if not. Also removes the
# partial download of the server. See connection/walk.sh: the server may change all of this.
# Arguments: the store, the file's name (sha256-HEX), its owner (UID:GID or empty).
# Exits with 65 where the content does not match.
# shellcheck disable=SC2154 # walk.sh sets them
plain "$2" && reach "$1" && dig "$real/blobs" || exit
exec 4<.
hold "$real/.stackmend" && take_up "$2" || exit
sum=$(sha256sum </proc/self/fd/3) || exit
if [ "sha256-${sum%% *}" != "$2" ]; then
  rm -f -- "./$2"
  echo "its content has the digest ${sum%% *}" >&2
  exit 65
fi
chmod 0644 /proc/self/fd/3 || exit
[ -z "$3" ] || chown -- "$3" /proc/self/fd/3 || exit
place "./$2" || exit
hold "$real" && rmdir -- ./.stackmend 2>/dev/null
hold "$real/blobs" && rm -f -- "./$2-partial" "./$2-partial-"*
