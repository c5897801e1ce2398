# Bring back what a record says was stopped, to the state that it had.
# Arguments: the root of the records, the record ("latest": the last one), "observe" or "act", and the
# script that becomes a recorded process.
# Exit statuses: 0 it is as it was, 3 (observe) it is to be brought back, 66 there is no such record,
# 69 it cannot be brought back. It prints the record, and, to observe what would be started, its ports.
umask 077
root=$1 record=$2 mode=$3 launch=$4
if [ "$record" = latest ]; then
  record=$(
    for path in "$root"/[0-9]*Z-[0-9]*/; do
      path=${path%/}
      [ ! -d "$path" ] || printf '%s\n' "${path##*/}"
    done | sort -t - -k 1,1 -k 2,2n | tail -n 1
  )
  [ -n "$record" ] || fail 66 "nothing was ever stopped here"
fi
dir=$root/$record
[ -f "$dir/kind" ] || fail 66 "there is no record $record"
# What is in it is started as root.
private "$dir" || exit 69
get() { cat "$dir/$1" 2>/dev/null; }
kind=$(get kind)
printf '%s\n' "$record"
due() { [ "$mode" = act ] || exit 3; }
# Of what starts the ports have to be free, and nothing else is set before it runs.
starts() {
  [ "$mode" = act ] || printf '%s\n' "$(get ports)"
  due
}
start_time() {
  stat=$(cat "/proc/$1/stat" 2>/dev/null)
  # shellcheck disable=SC2086
  set -- ${stat##*)}
  case $1 in Z | X | x) ;; *) printf '%s' "${20}" ;; esac
}
alive() { [ -n "$1" ] && [ -n "$2" ] && [ "$(start_time "$1")" = "$2" ]; }
# Whether another process of its program, which had the same ports beside it, is back already.
shared() {
  for other in "$root"/*/; do
    if cmp -s "$other/ports" "$dir/ports" && cmp -s "$other/exe" "$dir/exe"; then
      # shellcheck disable=SC2046
      if [ -s "$other/restored" ] && alive $(cat "$other/restored"); then return 0; fi
    fi
  done
  return 1
}
restore_unit() {
  # shellcheck disable=SC2034 # which systemd is asked
  manager=$(get manager) running=
  set --
  while IFS='|' read -r active enabled unit; do
    case $(property LoadState "$unit") in
    loaded) ;;
    masked) fail 69 "$unit is masked: systemctl unmask $unit" ;;
    *) fail 69 "$unit is not there any more" ;;
    esac
    case $active:$(property ActiveState "$unit") in
    *:active | *:reloading) running=1 ;;
    active:* | reloading:* | activating:*) set -- "$@" "$unit" ;;
    esac
  done <"$dir/units"
  if [ $# -gt 0 ]; then
    # What runs of it has its ports already.
    if [ -n "$running" ]; then due; else starts; fi
    units start -- "$@" </dev/null >&2 || fail 69 "systemctl start $* failed"
  fi
  while IFS='|' read -r active enabled unit; do
    case $enabled:$(property UnitFileState "$unit") in
    enabled:disabled)
      due
      units enable -- "$unit" </dev/null >&2 || fail 69 "$unit cannot be enabled"
      ;;
    disabled:enabled)
      due
      units disable -- "$unit" </dev/null >&2 || fail 69 "$unit cannot be disabled"
      ;;
    esac
  done <"$dir/units"
}
restore_container() {
  engine=$(get engine) id=$(get id) name=$(get name) restart=$(get restart)
  state=$(engine inspect --type container -f '{{.State.Running}} {{.State.Paused}} {{.HostConfig.RestartPolicy.Name}}:{{.HostConfig.RestartPolicy.MaximumRetryCount}}' -- "$id" 2>&1) || {
    [ "$(get passing)" != true ] || fail 69 "container $name was removed when it stopped (--rm)"
    fail 69 "container $name cannot be brought back: $state"
  }
  IFS=' ' read -r running paused policy <<END
$state
END
  if [ "$running" != true ]; then
    starts
    engine start -- "$id" >/dev/null || fail 69 "container $name does not start"
  fi
  policy=${policy%:0}
  if [ "${policy:-no}" != "${restart:-no}" ]; then
    due
    engine update --restart="${restart:-no}" -- "$id" >/dev/null ||
      case $engine in podman*) ;; *) fail 69 "container $name does not take its restart policy" ;; esac
  fi
  if [ "$(get paused)" = true ] && [ "$paused" != true ]; then
    due
    engine pause -- "$id" >/dev/null || fail 69 "container $name cannot be paused again"
  fi
}
# shellcheck disable=SC2120 # its arguments are its own
restore_program() {
  [ ! -e "$dir/restored" ] || return 0
  starts
  [ -s "$dir/start" ] || fail 69 "how $(get supervisor) starts $(get name) is not known"
  eval "set -- $(words "$dir/start")"
  output=$("$@" 2>&1)
  status=$?
  # Its supervisor knows whether it runs: to start what runs changes nothing.
  case $status:$output in
  0:* | *"already started"*) : >"$dir/restored" ;;
  *) fail 69 "$(get supervisor) does not start $(get name): $output" ;;
  esac
}
restore_reserve() {
  now=/proc/sys/net/ipv4/ip_local_reserved_ports
  file=/etc/sysctl.d/zz-stackmend-reserved-ports.conf
  [ "$(cat "$now")" != "$(get before)" ] || return 0
  due
  if [ "$(cat "$now")" != "$(get after)" ] || ! cmp -s "$dir/new" "$file"; then
    fail 69 "the reserved ports were changed since; nothing was taken back"
  fi
  printf '%s\n' "$(get before)" >"$now" || fail 69 "$now cannot be written"
  if [ -e "$dir/file" ]; then put "$file" "$dir/file"; else remove "$file"; fi ||
    fail 69 "$file cannot be written"
}
restore_command() {
  if alive "$(get pid)" "$(get started)"; then return 0; fi
  # Whoever was cut off while ending it and ended it later has left two records of one process.
  for other in "$root"/*/; do
    if cmp -s "$other/pid" "$dir/pid" && cmp -s "$other/started" "$dir/started"; then
      # shellcheck disable=SC2046
      if [ -s "$other/restored" ] && alive $(cat "$other/restored"); then return 0; fi
    fi
  done
  if shared; then due; else starts; fi
  exe=$(get exe && echo .)
  exe=${exe%.}
  exe=${exe% (deleted)}
  cwd=$(get cwd && echo .)
  cwd=${cwd%.}
  [ -d "$cwd" ] || fail 69 "its directory $cwd is not there any more"
  [ -x "$exe" ] || fail 69 "its program $exe is not there any more"
  printf '%s' "$launch" >"$dir/launch"
  rm -f "$dir/launched"
  # In a scope of its own, so that it does not end with the login that brought it back.
  set -- sh "$dir/launch" "$root" "$record" "$exe" "$cwd"
  if command -v setsid >/dev/null; then set -- setsid "$@"; fi
  if [ "$(id -u)" = 0 ] && [ -d /run/systemd/system ] && command -v systemd-run >/dev/null; then
    set -- systemd-run --quiet --scope "$@"
  fi
  "$@" </dev/null >/dev/null 2>&1 &
  tries=0
  while [ ! -s "$dir/launched" ] && [ $tries -lt 50 ]; do
    sleep 0.1 2>/dev/null || sleep 1
    tries=$((tries + 1))
  done
  sleep 1
  launched=$(get launched)
  started=$(start_time "${launched:-0}")
  output=$(get said)
  [ -n "$started" ] || fail 69 "it was started and ended at once${output:+: $output}"
  keep restored "$launched $started"
}
# shellcheck disable=SC2119 # a function's own arguments are none of the script's
case $kind in
unit) restore_unit ;;
container) restore_container ;;
program) restore_program ;;
reserve) restore_reserve ;;
command) restore_command ;;
windows) fail 69 "$(get image) ran on Windows: start it there again" ;;
*) fail 69 "a record of $kind is not known" ;;
esac
