# What the scripts begin with that change servers.
# shellcheck disable=SC2034,SC2154 # the scripts behind it use them; connection/put.sh sets $name
umask 077
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
LC_ALL=C
export PATH LC_ALL
room=/var/lib/stackmend/resolver
file=/etc/resolv.conf
private "$room" || exit 73
has() { command -v "$1" >/dev/null 2>&1; }
fail() { # STATUS TEXT
  printf '%s\n' "$2" >&2
  exit "$1"
}
# A change and a revert are never under way at once: a revert would restore what is not written yet.
# Below /run: whoever held it is over when the host has started anew.
busy=/run/stackmend-resolver
# What is another one for each process, even where its number was used before.
life() { cut -d ' ' -f 1,22 "/proc/$1/stat" 2>/dev/null; }
timeout=900
enter() {
  turns=0
  until mkdir -- "$busy" 2>/dev/null; do
    turns=$((turns + 1))
    [ $turns -lt "$timeout" ] || fail 75 "another change of the servers does not come to its end"
    if [ $((turns % 10)) = 0 ]; then
      holder=$(cat "$busy/pid" 2>/dev/null)
      [ -n "$holder" ] && [ "$(life "${holder%% *}")" = "$holder" ] || leave
    fi
    sleep 0.2
  done
  life $$ >"$busy/pid"
}
leave() { rm -rf -- "$busy"; }
unit=/etc/systemd/system/stackmend-resolver.service
boot=/etc/systemd/system/multi-user.target.wants/stackmend-resolver.service
# The host reverts an unconfirmed change when it starts, too: no timer outlives that.
disarm() {
  rm -f -- "$boot"
  remove "$unit"
  # Timers of earlier changes too: an ended run left them.
  if [ -d /run/systemd/system ]; then systemctl stop 'stackmend-resolver-*.timer' 2>/dev/null; fi
}
mounted() { awk '$5 == "/etc/resolv.conf" { found = 1 } END { exit !found }' /proc/self/mountinfo; }
# write PATH HOW: have a file hold standard input. Subshells: no variable is anybody else's.
write() (
  case $2 in
  'in place') cat >"$1" ;;
  replace)
    if [ -L "$1" ]; then
      aim "${1%/*}/stackmend.${1##*/}" && cat >"./$name" && chmod 0644 "./$name" && mv -f -T -- "./$name" "./${1##*/}"
    else
      put "$1"
    fi
    ;;
  *) put "$1" ;;
  esac
)
# reload [revert]: have the services take up what is on the disk: each line of "$room/reload" is one.
reload() {
  worst=0 list=services
  [ "${1:-}" != revert ] || list=reload
  while read -r service first rest; do
    case $service in
    resolved)
      # However often it was started lately.
      systemctl reset-failed systemd-resolved.service 2>/dev/null
      timeout 60 systemctl reload-or-restart systemd-resolved.service
      ;;
    link)
      if [ "${1:-}" != revert ]; then
        # shellcheck disable=SC2086 # servers are several words
        timeout 20 resolvectl dns "$first" $rest
      elif [ -e "/sys/class/net/$first" ]; then
        # It may have read its files meanwhile; those that are as they were change nothing.
        timeout 30 networkctl reload && timeout 20 resolvectl revert "$first"
      fi
      ;;
    domain)
      # shellcheck disable=SC2086 # domains are several words
      if [ "${1:-}" != revert ]; then timeout 20 resolvectl domain "$first" $rest; fi
      ;;
    openresolv) timeout 30 resolvconf -u ;;
    dhcpcd) timeout 30 dhcpcd -n ;;
    # Where its file is gone or is another now, it reads it again first.
    connection)
      timeout 30 nmcli connection load "${rest#* }" &&
        timeout 60 nmcli device reapply "${rest%% *}" >/dev/null
      ;;
    esac </dev/null || worst=$?
  done <"$room/$list"
  return $worst
}
