# Let a user become root without a password. Arguments: the user.
# shellcheck disable=SC2154 # common.sh sets them
user=$1
file=/etc/sudoers.d/stackmend-$user
has visudo || fail 69 "the host has no visudo to check the rule with"
new=$room/sudoers.new
printf '%s\n' "$user ALL=(ALL:ALL) NOPASSWD: ALL" >"$new" || exit
chmod 0440 "$new"
# Other files may be at fault already; only a fault that our rule brings is ours.
if visudo -c >/dev/null 2>&1; then valid=yes; else valid=no; fi
output=$(visudo -cf "$new" 2>&1) || fail 65 "visudo rejects the rule: $output"
if [ ! -d "${file%/*}" ]; then mkdir -m 0750 -- "${file%/*}" || exit; fi
# On its way it has a name that sudo does not read.
(aim "$file") && keep "$file" "sudoers.$user" || exit
put "$file" "$new" || fail 73 "cannot write $file"
rm -f "$new"
if [ $valid = yes ] && ! output=$(visudo -c 2>&1); then
  rm -f "$file"
  fail 65 "with the rule sudo's configuration is invalid; stackmend removed it again: $output"
fi
if ! grep -Eq '^[@#]includedir[[:space:]]+/etc/sudoers\.d' /etc/sudoers; then
  rm -f "$file"
  fail 78 "/etc/sudoers does not read /etc/sudoers.d; add the line: @includedir /etc/sudoers.d"
fi
