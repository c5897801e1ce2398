# What this host has of a timer. Changes nothing. Writes sections (connection/frame.sh). Arguments: the
# timer's name, what OnCalendar is to hold, a file that only this run's machine has, the mode, who is
# to run it, and where this host keeps what belongs to it.
name=$1 calendar=$2 token=$3 mode=$4 user=$5 home=$6
have() { command -v "$1" >/dev/null 2>&1; }
units=/etc/systemd/system
init='' version=0
if [ -d /run/systemd/system ] && have systemctl; then
  init=systemd
  version=$(systemctl --version 2>/dev/null | sed -n '1s/^systemd \([0-9]*\).*/\1/p')
fi
cron='' runs=''
for pid in /proc/[0-9]*/comm; do
  read -r word <"$pid" || continue
  case $word in cron | crond) runs=yes ;; esac
done 2>/dev/null
if [ -d /etc/cron.d ] && { have cron || { have crond && ! readlink -f "$(command -v crond)" | grep -q busybox; }; }; then
  cron=/etc/cron.d/$name
elif have crontab; then
  cron='crontab'
fi
[ -n "$init" ] || [ -z "$cron" ] || init=cron
begin host
{
  printf 'root %s\nsystem %s\nmachine %s\ninit %s\nversion %s\n' \
    "$(id -u)" "$(uname -s)" "$(uname -m)" "$init" "${version:-0}"
  printf 'library %s\n' "$( (getconf GNU_LIBC_VERSION || ldd --version) 2>&1 | tr '\n' ' ' | head -c 200)"
  printf 'login %s\n' "$( (getent passwd "$user" || grep "^$user:" /etc/passwd) 2>/dev/null | head -n 1 | cut -d : -f 6)"
  printf 'token %s\n' "$(head -c 100 -- "$token" 2>/dev/null)"
  printf 'cron %s\nruns %s\n' "$cron" "$runs"
  if [ -L "$home/current" ]; then
    printf 'generation %s\n' "$(readlink "$home/current")"
    if [ "$mode" = host ]; then
      if starts "$home/current/venv"; then echo 'starts yes'; fi
      sum=$(fingerprint "$home/current")
      if [ -n "$sum" ] && [ "$sum" = "$(cat "$home/current/intact" 2>/dev/null)" ]; then echo 'intact yes'; fi
    fi
  fi
} | quoted
end 0
begin state
if [ "$init" = systemd ]; then
  for ending in service timer; do
    echo "unit $ending"
    systemctl show -p LoadState -p ActiveState -p UnitFileState -p DropInPaths -p NeedDaemonReload \
      -p Result -p ExecMainStatus "$name.$ending" 2>/dev/null
  done
fi | quoted
end 0
if [ "$init" = systemd ] && [ -n "$calendar" ] && have systemd-analyze; then
  section calendar timeout 10 systemd-analyze calendar -- "$calendar"
fi
show() { [ -f "$1" ] && head -c 20000 -- "$1"; }
section service show "$units/$name.service"
section timer show "$units/$name.timer"
table() {
  case $cron in
  crontab) crontab -l -u "$user" 2>/dev/null | sed -n "/^# begin $name\$/,/^# end $name\$/p" | sed '1d;$d' ;;
  *) show "/etc/cron.d/$name" ;;
  esac
}
section table table
# Which inventory it runs, where that is there.
begin inventory
{
  kept=$(sed -n 's/^ExecStart=.* "reconcile" "\(.*\)"$/\1/p' "$units/$name.service" 2>/dev/null |
    sed 's/%%/%/g; s/\$\$/$/g; s/\\\(.\)/\1/g')
  [ -n "$kept" ] || kept=$(table | sed -n "s/.* reconcile \('[^']*'\|[^ ']*\) 9>&-.*/\1/p" |
    sed "s/^'//; s/'\$//; s/\\\\%/%/g")
  if [ -f "$kept" ]; then printf '%s\n' "$kept"; fi
} | quoted
end 0
# What is left where nothing of it is to be.
begin leftovers
for path in "$units/$name.service" "$units/$name.timer" "$units/timers.target.wants/$name.timer" \
  "/var/lib/systemd/timers/stamp-$name.timer" "/etc/cron.d/$name" "/var/log/$name.log" "$home"; do
  if [ -e "$path" ] || [ -L "$path" ]; then printf '%s\n' "$path"; fi
done | quoted
end 0
begin tools
{
  for tool in flock timeout logger; do have $tool && echo $tool; done
  if timeout --foreground 5 true 2>/dev/null; then echo foreground; fi
} | quoted
end 0
begin gpus
if [ "$init" = systemd ] && { [ -e /dev/nvidiactl ] || [ -e /dev/kfd ]; } && have docker; then
  docker ps -q --no-trunc 2>/dev/null | while read -r id; do
    asked=$(docker container inspect --format \
      '{{.Name}} {{.HostConfig.Runtime}} {{len .HostConfig.DeviceRequests}}' "$id" 2>/dev/null)
    case $asked in *' nvidia '* | *' '[1-9]*) ;; *) continue ;; esac
    policy=$(systemctl show -p DevicePolicy --value "docker-$id.scope" 2>/dev/null)
    case $policy in strict | closed) ;; *) continue ;; esac
    systemctl show -p DeviceAllow --value "docker-$id.scope" 2>/dev/null |
      grep -q -e nvidia -e 'char-\*' -e '/dev/char/195:' -e '/dev/dri' || printf '%s\n' "${asked%% *}"
  done
fi | quoted
end 0
begin pythons
if [ "$mode" = host ]; then
  for program in python3.14 python3.13 python3.12 python3.11 python3 /usr/local/bin/python3; do
    path=$(command -v "$program") || continue
    # Root will run it.
    real=$(readlink -f "$path") && guarded "${real%/*}" && [ -n "$(find "$real" -user 0 ! -perm /022 2>/dev/null)" ] || continue
    timeout 10 "$path" -IS -c '
import sys
import ctypes, ssl, venv, zlib' >/dev/null 2>&1 && modules=yes || modules=no
    timeout 10 "$path" -IS -c '
import sys
print(sys.argv[1], ".".join(map(str, sys.version_info[:3])), sys.implementation.cache_tag, sys.argv[2])' \
      "$path" "$modules" 2>/dev/null
  done
fi | quoted
end 0
section whole true
