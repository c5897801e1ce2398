# What this host has of a clock, of kept ports and of security updates. Changes nothing.
# Writes sections (connection/frame.sh). Arguments: "updates" where those are asked for.
# First of all: the controller counts the seconds around it.
now=$(date +%s)
manager=''
for tool in apt-get:apt dnf:dnf apk:apk; do
  if command -v "${tool%:*}" >/dev/null 2>&1; then
    manager=${tool#*:}
    break
  fi
done
init=''
if [ -d /run/systemd/system ]; then
  init=systemd
elif command -v rc-service >/dev/null 2>&1; then
  init=openrc
fi
outside=
[ "$init" = systemd ] && outside=$(systemd-detect-virt --container 2>/dev/null)
case $outside in
'') for file in /.dockerenv /run/.containerenv; do [ -e "$file" ] && outside=container; done ;;
none) outside= ;;
esac
begin host
{
  printf 'now %s\nroot %s\n' "$now" "$(id -u)"
  [ -z "$manager" ] || printf 'manager %s\n' "$manager"
  printf 'init %s\n' "$init"
  sed -n 's/^PRETTY_NAME="\{0,1\}\([^"]*\)"\{0,1\}$/system \1/p' /etc/os-release 2>/dev/null
  [ -z "$outside" ] || printf 'outside %s\n' "$outside"
  if [ "$init" = systemd ]; then
    printf 'synchronized %s\n' "$(timedatectl show -p NTPSynchronized --value 2>/dev/null)"
  fi
} | quoted
end 0
section ports cat /proc/sys/net/ipv4/ip_local_port_range /proc/sys/net/ipv4/ip_local_reserved_ports

units() {
  case $init in
  systemd) systemctl show -p Id,LoadState,ActiveState,UnitFileState "$@" 2>/dev/null ;;
  openrc)
    for name; do
      name=${name%.*}
      rc-service -e "$name" || continue
      printf 'Id=%s\nLoadState=loaded\n' "$name"
      rc-service "$name" status >/dev/null 2>&1 && echo ActiveState=active
      rc-update show default 2>/dev/null | grep -q "^ *$name *|" && echo UnitFileState=enabled
      echo
    done
    ;;
  esac
}
section services units chrony.service chronyd.service systemd-timesyncd.service ntpsec.service ntp.service \
  ntpd.service openntpd.service

if [ "$1" = updates ]; then
  begin packages
  # shellcheck disable=SC2016
  case $manager in
  apt) dpkg-query -W -f '${db:Status-Status} ${Package}\n' unattended-upgrades 2>/dev/null |
    sed -n 's/^installed //p' ;;
  dnf) rpm -q --qf '%{NAME}\n' dnf-automatic dnf5-plugin-automatic 2>/dev/null | grep -v ' ' ;;
  esac | quoted
  end 0
  begin settings
  case $manager in
  apt) apt-config dump APT::Periodic 2>/dev/null | sed -n 's/^\([A-Za-z:-]*\) "\(.*\)";$/\1 \2/p' ;;
  dnf)
    for file in /usr/share/dnf5/dnf5-plugins/automatic.conf /etc/dnf/automatic.conf; do
      [ -f "$file" ] &&
        sed -n 's/^[[:space:]]*\(upgrade_type\|apply_updates\)[[:space:]]*=[[:space:]]*/\1 /p' "$file"
    done
    command -v dnf5 >/dev/null 2>&1 && echo 'dnf 5'
    ;;
  esac | quoted
  end 0
  begin timers
  case $manager in
  apt) units apt-daily.timer apt-daily-upgrade.timer ;;
  dnf) units dnf-automatic.timer dnf5-automatic.timer ;;
  esac | quoted
  end 0
fi
section whole true
