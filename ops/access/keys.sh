# Add lines to a user's authorized_keys, or take lines out of it; the file before is kept.
# Arguments: the user, the file ("%h" in it is the user's home), "trust" or "drop", the lines.
# shellcheck disable=SC2154 # common.sh sets them
user=$1 file=$2 verb=$3
shift 3
entry=$(grep "^$user:" /etc/passwd || getent passwd "$user") || fail 67 "there is no user $user"
home=$(printf '%s\n' "$entry" | cut -d : -f 6)
group=$(printf '%s\n' "$entry" | cut -d : -f 4)
file=$(printf '%s\n' "$file" | sed "s|%h|$home|")
directory=${file%/*}
[ -d "$home" ] || fail 71 "$user has no home: $home is not there"
# What a user owns may lead elsewhere, and we write as root.
for path in "$directory" "$file"; do
  if [ -L "$path" ]; then fail 73 "$path is a link, which is not followed"; fi
done
keep "$file" "authorized_keys.$user" || exit
if [ ! -d "$directory" ]; then
  mkdir -p -- "$directory" && chmod 0700 "$directory" && chown "$user:$group" "$directory" || exit
fi
new=$directory/.stackmend-new
rm -f -- "$new"
lines=$(printf '%s\n' "$@")
export lines
{
  if [ -f "$file" ] && [ "$verb" = drop ]; then
    awk 'BEGIN { n = split(ENVIRON["lines"], d, "\n"); for (i = 1; i <= n; i++) gone[d[i]] = 1 }
      !($0 in gone)' "$file"
  elif [ -f "$file" ]; then
    # A last line without its end would swallow the next one.
    awk 1 "$file"
  fi
  if [ "$verb" = trust ]; then printf '%s\n' "$lines"; fi
} >"$new" || fail 74 "$new cannot be written"
chmod 0600 "$new" && chown "$user:$group" "$new" && mv -f -- "$new" "$file" || exit
if has restorecon; then restorecon -R "$directory"; fi
