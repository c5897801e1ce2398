# Write the files of a timer and start it. What was there before is kept, and put back where systemd
# does not take the new. Standard input: the service, a line "=", the timer; or cron's table.
# Behind schedule/table.sh. Arguments: the timer's name, where cron's table lies (empty: systemd), whose
# it is, where to keep.
name=$1 cron=$2 user=$3 kept=$4
stamp=$(date -u +%Y%m%dT%H%M%SZ)
private "$kept" && scratch=$(mktemp -d "$kept/.scratch.XXXXXXXXXX") || exit 73
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' TERM
keep() { [ ! -e "$1" ] || cp -p -- "$1" "$kept/${1##*/}.$stamp"; }
case $cron in
'') ;;
crontab)
  read_table "$user" >"$scratch/before" || exit 73
  cp "$scratch/before" "$kept/crontab-$user.$stamp" || exit 73
  {
    without_section "$name" <"$scratch/before"
    echo "# begin $name"
    cat
    echo "# end $name"
  } >"$scratch/after" && crontab -u "$user" "$scratch/after" || exit 73
  exit 0
  ;;
*)
  cat >"$scratch/table" && (aim "$cron") && keep "$cron" && put "$cron" <"$scratch/table" || exit 73
  (aim "$cron" && chmod 0644 "./$name") || exit 73
  exit 0
  ;;
esac
service=/etc/systemd/system/$name.service timer=/etc/systemd/system/$name.timer
awk -v service="$scratch/$name.service" -v timer="$scratch/$name.timer" '
  /^=$/ && !behind { behind = 1; next }
  { print >(behind ? timer : service) }' || exit 73
[ -s "$scratch/$name.service" ] && [ -s "$scratch/$name.timer" ] || exit 73
if command -v systemd-analyze >/dev/null 2>&1; then
  # It also speaks of units that are not ours, and ends with 0 for what it only warns of.
  message=$(timeout 30 systemd-analyze verify "$scratch/$name.service" "$scratch/$name.timer" 2>&1)
  status=$?
  message=$(printf '%s\n' "$message" | grep -F -e "$name." -e "$scratch")
  if [ $status -ne 0 ] && [ $status -ne 124 ] && [ -n "$message" ]; then
    printf '%s\n' "$message" | tail -n 3 >&2
    exit 65
  fi
fi
enabled=$(systemctl is-enabled "$name.timer" 2>/dev/null) active=$(systemctl is-active "$name.timer" 2>/dev/null)
back() {
  # Of what was enabled by now: its link leads nowhere without its file.
  [ "$enabled" = enabled ] || systemctl disable "$name.timer" >/dev/null 2>&1
  for file in "$service" "$timer"; do
    if [ -e "$kept/${file##*/}.$stamp" ]; then put "$file" "$kept/${file##*/}.$stamp"; else remove "$file"; fi
  done
  systemctl daemon-reload
  # What runs keeps its times until it is started again.
  if [ "$active" = active ]; then systemctl restart "$name.timer"; else systemctl stop "$name.timer"; fi
}
(aim "$service") && (aim "$timer") && keep "$service" && keep "$timer" || exit 73
if ! put "$service" <"$scratch/$name.service" || ! put "$timer" <"$scratch/$name.timer"; then
  back
  exit 73
fi
if message=$(systemctl daemon-reload 2>&1 && systemctl enable "$name.timer" 2>&1 && systemctl restart "$name.timer" 2>&1); then
  # How it has ended by the files before says nothing of these.
  systemctl reset-failed "$name.service" 2>/dev/null
  exit 0
fi
printf '%s\n' "$message" | tail -n 3 >&2
back
exit 70
