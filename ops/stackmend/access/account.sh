# Make a user with a home, a login shell and no password. Arguments: its name.
user=$1
if [ -x /bin/bash ]; then shell=/bin/bash; else shell=/bin/sh; fi
if has useradd; then
  set -- --create-home --shell "$shell" --password '*'
  # A group of that name may be the system's (Debian has one named operator).
  if grep -q "^$user:" /etc/group; then set -- "$@" --gid "$user"; else set -- "$@" --user-group; fi
  useradd "$@" -- "$user"
elif has adduser; then
  adduser -D -s "$shell" "$user" || exit
  # busybox locks the account, and sshd lets nobody into a locked one.
  if has chpasswd; then printf '%s:*\n' "$user" | chpasswd -e; fi
else
  fail 69 "the host has neither useradd nor adduser"
fi
