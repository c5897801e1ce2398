# Add lines to a user's authorized_keys, or take lines out of it; the file before is kept.
# The user owns the directory, and may change it at any moment: what lies there is read and made
# with the user's own rights, and the new file is put there as connection/walk.sh says.
# Arguments: the user, the file ("%h" in it is the user's home), "trust" or "drop", the lines.
# shellcheck disable=SC2154 # common.sh and walk.sh set them
user=$1 file=$2 verb=$3
shift 3
entry=$(grep "^$user:" /etc/passwd || getent passwd "$user") || fail 67 "there is no user $user"
home=$(printf '%s\n' "$entry" | cut -d : -f 6)
uid=$(printf '%s\n' "$entry" | cut -d : -f 3)
group=$(printf '%s\n' "$entry" | cut -d : -f 4)
file=$(printf '%s\n' "$file" | sed "s|%h|$home|")
directory=${file%/*} name=${file##*/}
[ -d "$home" ] || fail 71 "$user has no home: $home does not exist"
plain "${file#/}" || fail 73 "$file is not the path of a file"
reach "$directory" || fail 73 "${obstacle#*  } is a link or not a directory; stackmend does not follow it"
directory=$real
if ! hold "$directory"; then
  as_user "$uid" "$user" mkdir -m 0700 -- "$directory" 2>/dev/null ||
    { hold "${directory%/*}" && guarded "${directory%/*}" && mkdir -m 0700 "./${directory##*/}" &&
      chown "$uid:$group" "./${directory##*/}"; } || fail 73 "cannot make $directory"
  hold "$directory" || fail 73 "$directory changed meanwhile"
fi
if [ -L "./$name" ]; then fail 73 "$directory/$name is a link; stackmend does not follow it"; fi
if [ -e "./$name" ] && [ ! -f "./$name" ]; then fail 73 "$directory/$name is not a file"; fi

trial=$room/keys
rm -rf "$trial" && mkdir -p "$trial" || exit
: >"$trial/before" || exit
if [ -e "./$name" ]; then
  # What the user cannot read, sshd does not read either, unless nobody else could have put it there.
  as_user "$uid" "$user" cat -- "$directory/$name" >"$trial/before" 2>/dev/null ||
    { guarded "$directory" && cat -- "./$name" >"$trial/before"; } ||
    fail 74 "$user cannot read $directory/$name; remove it, or give it to $user"
  keep "$trial/before" "authorized_keys.$user" || exit
fi
lines=$(printf '%s\n' "$@")
export lines
{
  if [ "$verb" = drop ]; then
    awk 'BEGIN { n = split(ENVIRON["lines"], d, "\n"); for (i = 1; i <= n; i++) gone[d[i]] = 1 }
      !($0 in gone)' "$trial/before"
  else
    # A last line without its end would swallow the next one.
    awk 1 "$trial/before" && printf '%s\n' "$lines"
  fi
} >"$trial/$name" || fail 74 "cannot write $trial/$name"
chmod 0600 "$trial/$name" && chown "$uid:$group" "$trial/$name" || exit
lay "$trial" "$name" || fail 74 "cannot write $directory/$name"
if has restorecon; then restorecon . "./$name"; fi
rm -rf "$trial"
