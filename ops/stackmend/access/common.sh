# What the scripts of this room begin with.
# shellcheck disable=SC2034 # the scripts behind it use them
umask 077
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
LC_ALL=C
export PATH LC_ALL
room=/var/lib/stackmend/access
part=/etc/ssh/sshd_config.d/00-stackmend.conf
main=/etc/ssh/sshd_config
private "$room" || exit 73
has() { command -v "$1" >/dev/null 2>&1; }
fail() { # STATUS TEXT
  printf '%s\n' "$2" >&2
  exit "$1"
}
# Keep a file as it is now. $1: the file; $2: its name among those kept.
keep() {
  [ -f "$1" ] || return 0
  private "$room/kept" || return
  cp -p -- "$1" "$room/kept/$2.$(date -u +%Y%m%dT%H%M%SZ)"
}
reload() {
  if [ -d /run/systemd/system ]; then
    for unit in ssh sshd; do
      if systemctl is-active --quiet "$unit.service"; then
        systemctl reload "$unit.service"
        return
      fi
    done
    for unit in ssh sshd; do
      # Its own socket starts it for the next login, with the configuration of then.
      if systemctl is-active --quiet "$unit.socket"; then return 0; fi
      if systemctl is-enabled --quiet "$unit.service" 2>/dev/null; then
        systemctl start "$unit.service"
        return
      fi
    done
  fi
  if has rc-service; then
    rc-service sshd reload
    return
  fi
  kill -HUP "$(cat /run/sshd.pid 2>/dev/null || cat /var/run/sshd.pid)"
}
