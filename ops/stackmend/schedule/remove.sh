# Stop a timer and remove all of it; a run under way is ended first. Arguments: its name, whose table
# of cron's it may be in, and where the host keeps what belongs to it.
name=$1 user=$2 home=$3
if [ -d /run/systemd/system ] && command -v systemctl >/dev/null 2>&1; then
  systemctl disable --now "$name.timer" >/dev/null 2>&1
  timeout 90 systemctl stop "$name.service" >/dev/null 2>&1
fi
for file in "/etc/systemd/system/$name.service" "/etc/systemd/system/$name.timer" \
  "/etc/systemd/system/timers.target.wants/$name.timer" "/etc/cron.d/$name" "/var/log/$name.log" \
  "/var/lib/systemd/timers/stamp-$name.timer"; do
  if [ -L "$file" ]; then rm -f -- "$file"; elif [ -e "$file" ]; then remove "$file" || exit 73; fi
done
if command -v crontab >/dev/null 2>&1 && before=$(crontab -l -u "$user" 2>/dev/null); then
  case $before in *"# begin $name"*)
    printf '%s\n' "$before" | sed "/^# begin $name\$/,/^# end $name\$/d" | crontab -u "$user" - || exit 73
    ;;
  esac
fi
if [ -d /run/systemd/system ] && command -v systemctl >/dev/null 2>&1; then
  systemctl daemon-reload
  systemctl reset-failed "$name.service" "$name.timer" 2>/dev/null
fi
# Root's alone (mode 0700).
if guarded "${home%/*}"; then
  rm -rf -- "$home" || exit 73
  rmdir -- "${home%/*}" 2>/dev/null
fi
exit 0
