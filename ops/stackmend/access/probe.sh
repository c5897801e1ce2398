# How a user comes into this host, in one reading. Changes nothing.
# Writes sections (connection/frame.sh). Arguments: the user's name.
user=$1
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
LC_ALL=C
export PATH LC_ALL
cd /
has() { command -v "$1" >/dev/null 2>&1; }
entry() {
  if has getent; then getent "$1" "$2"; else awk -F : -v name="$2" '$1 == name' "/etc/$1"; fi
}
# Where we came from: sudo forgets it, the shell above has it.
connection=${SSH_CONNECTION:-}
pid=$$
while [ -z "$connection" ] && [ "${pid:-0}" -gt 1 ]; do
  connection=$(tr '\0' '\n' <"/proc/$pid/environ" 2>/dev/null | sed -n 's/^SSH_CONNECTION=//p')
  pid=$(sed -n 's/^PPid:[[:space:]]*//p' "/proc/$pid/status" 2>/dev/null)
done
# shellcheck disable=SC2086
set -- $connection
from=${1:-127.0.0.1} to=${3:-127.0.0.1} port=${4:-22}

armed=$(cat /var/lib/stackmend/access/armed 2>/dev/null)
begin host
{
  printf 'root %s\n' "$(id -u)"
  printf 'from %s\n' "$from"
  printf 'spec user=%s,host=%s,addr=%s,laddr=%s,lport=%s\n' "$user" "$from" "$from" "$to" "$port"
  for tool in sudo visudo sshd useradd adduser systemd-run setsid; do
    if has "$tool"; then printf 'tool %s\n' "$tool"; fi
  done
  for tool in apt-get dnf yum apk zypper; do
    if has "$tool"; then printf 'installer %s\n' "$tool" && break; fi
  done
  if [ -n "$armed" ]; then printf 'armed %s\n' "$armed"; fi
} | quoted
end 0

account=$(entry passwd "$user")
section account printf '%s\n' "$account"
section group entry group "$user"
begin groups
if [ -n "$account" ]; then id -Gn "$user" 2>/dev/null | tr ' ' '\n'; fi | quoted
end 0
begin sudo
if has sudo && [ -n "$account" ]; then sudo -n -l -U "$user" 2>/dev/null; fi | quoted
end 0

if has sshd; then
  section check sshd -t
  settings=$(sshd -T -C "user=$user,host=$from,addr=$from,laddr=$to,lport=$port" 2>/dev/null)
  status=$?
  begin settings
  printf '%s\n' "$settings" | grep -E '^(pubkeyauthentication|passwordauthentication|kbdinteractiveauthentication|permitrootlogin|authorizedkeysfile|authenticationmethods|allowusers|denyusers|allowgroups|denygroups) ' |
    quoted
  end $status
fi

# The first of the files that sshd reads the user's keys from.
file=$(printf '%s\n' "${settings:-}" | sed -n 's/^authorizedkeysfile \([^ ]*\).*/\1/p')
home=$(printf '%s\n' "$account" | cut -d : -f 6)
file=$(printf '%s\n' "${file:-.ssh/authorized_keys}" | sed "s|%h|${home:-%h}|g; s|%u|$user|g; s|%%|%|g")
case $file in
/* | none | %h*) ;;
*) file=${home:-%h}/$file ;;
esac
section file printf '%s\n' "$file"
begin keys
# With the user's own rights, as sshd reads it: the user may have it lead anywhere.
uid=$(printf '%s\n' "$account" | cut -d : -f 3)
if [ -n "$account" ] && [ -f "$file" ]; then
  if [ "$(id -u)" = 0 ]; then as_user "$uid" "$user" cat -- "$file"; else timeout 20 cat -- "$file"; fi
fi 2>/dev/null </dev/null | head -c 4194304 | quoted
end 0
section whole true
