# Stop a timer and remove all of it; a run under way is ended first. Arguments: its name, whose table
# of cron's it may be in, and where the host keeps what belongs to it (empty: stop the timer alone, and
# leave all else). Behind schedule/table.sh.
# shellcheck disable=SC2154 # connection/walk.sh sets them
name=$1 user=$2 home=$3
if [ -d /run/systemd/system ] && command -v systemctl >/dev/null 2>&1; then
  systemctl disable --now "$name.timer" >/dev/null 2>&1
  [ -z "$home" ] || timeout 90 systemctl stop "$name.service" >/dev/null 2>&1
fi
clear() {
  for file; do
    if [ -L "$file" ]; then rm -f -- "$file"; elif [ -e "$file" ]; then remove "$file" || exit 73; fi
  done
}
clear "/etc/cron.d/$name"
if command -v crontab >/dev/null 2>&1 && before=$(read_table "$user"); then
  case $before in *"# begin $name"*)
    printf '%s\n' "$before" | without_section "$name" | crontab -u "$user" - || exit 73
    ;;
  esac
fi
[ -n "$home" ] || exit 0
clear "/etc/systemd/system/$name.service" "/etc/systemd/system/$name.timer" \
  "/etc/systemd/system/timers.target.wants/$name.timer" "/var/log/$name.log" \
  "/var/lib/systemd/timers/stamp-$name.timer"
if [ -d /run/systemd/system ] && command -v systemctl >/dev/null 2>&1; then
  systemctl daemon-reload
  systemctl reset-failed "$name.service" "$name.timer" 2>/dev/null
fi
# Where it really lies; root's alone (mode 0700).
reach "$home" || { echo "${obstacle#*  } is in the way of $home" >&2 && exit 73; }
home=$real
cd /
if [ -d "$home" ] && guarded "${home%/*}"; then
  # A run of cron's under way holds this: it has some seconds to end, and begins no more.
  if [ -e "$home/lock" ] && command -v flock >/dev/null 2>&1; then
    flock -w 60 "$home/lock" true || { echo "a run of $name is under way" >&2 && exit 73; }
  fi
  rm -rf -- "$home" || exit 73
  rmdir -- "${home%/*}" 2>/dev/null
fi
exit 0
