# Set whether sshd accepts passwords; the revert is armed before anything changes.
# Arguments: yes or no, the user and where it comes from (as sshd -T -C takes it), the mark of this
# change, seconds until the host reverts it, the script that does so.
# shellcheck disable=SC2154,SC2016 # common.sh sets them; the inner shell expands
value=$1 spec=$2 mark=$3 seconds=$4 revert=$5
output=$(sshd -t 2>&1) || fail 65 "its configuration is broken already: $output"
(aim "$part" && aim "$main") || fail 73 "stackmend changed nothing"
rm -rf "$room/trial" && mkdir "$room/trial" || exit
{
  echo '# Written by stackmend: access.operator(password_login=…).'
  echo "PasswordAuthentication $value"
  # With PAM this is a password by another name.
  if [ "$value" = no ]; then echo 'KbdInteractiveAuthentication no'; fi
} >"$room/trial/part"

# An ended run may have left an unconfirmed change on the disk: what was before it counts.
if [ ! -s "$room/armed" ]; then
  rm -rf "$room/before" && mkdir "$room/before" || exit
  if [ -f "$part" ]; then cp -p -- "$part" "$room/before/part" || exit; fi
  cp -p -- "$main" "$room/before/main" || exit
  keep "$part" 00-stackmend.conf && keep "$main" sshd_config || exit
fi
printf '%s\n' "$revert" >"$room/revert.sh" && printf '%s\n' "$mark" >"$room/armed" || exit
if [ -d /run/systemd/system ] && has systemd-run; then
  systemd-run --quiet --on-active="$seconds" --timer-property=AccuracySec=1s \
    --unit="stackmend-access-$mark" /bin/sh "$room/revert.sh" "$mark"
elif has setsid; then
  setsid sh -c 'sleep "$1"; exec sh "$2" "$3"' revert "$seconds" "$room/revert.sh" "$mark" \
    </dev/null >/dev/null 2>&1 &
else
  rm -f "$room/armed"
  fail 69 "the host has neither systemd-run nor setsid: nothing could revert the change"
fi || {
  rm -f "$room/armed"
  fail 71 "cannot arm the revert of the change"
}

back() {
  sh "$room/revert.sh" "$mark"
  fail "$1" "$2"
}
effective() { sshd -T -C "$spec" 2>/dev/null | grep -qx "passwordauthentication $value"; }

put "$part" <"$room/trial/part" || back 74 "cannot write $part"
output=$(sshd -t 2>&1) || back 65 "sshd rejects the change: $output"
if ! effective; then
  # Older configurations read no directory; a first line that does wins over what follows.
  { printf 'Include /etc/ssh/sshd_config.d/*.conf\n' && cat "$main"; } >"$room/trial/main"
  output=$(sshd -t -f "$room/trial/main" 2>&1) ||
    back 78 "sshd does not read ${part%/*}, and stackmend cannot add an Include to $main: $output"
  put "$main" <"$room/trial/main" || back 74 "cannot write $main"
  effective || back 78 "another line of sshd's configuration says otherwise: $(
    grep -Ein '^[[:space:]]*(PasswordAuthentication|Match)' "$main" "${part%/*}"/*.conf | tr '\n' ';'
  )"
fi
rm -rf "$room/trial"
reload || back 71 "cannot reload sshd"
