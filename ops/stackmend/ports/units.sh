# Units and supervisors' programs that hold ports, for probe.sh.
# shellcheck shell=sh
# shellcheck disable=SC2034,SC2154 # probe.sh begins with it, and shares its variables
find_login() { { getent passwd "$1" 2>/dev/null || cat /etc/passwd; } | awk -F : -v uid="$1" '$3 == uid { print $1; exit }'; }

# As the user $1 (a number) with the name $2, run the rest, with that user's own managers.
as() {
  uid=$1 login=$2
  shift 2
  if [ "$me" = "$uid" ]; then
    XDG_RUNTIME_DIR=/run/user/$uid "$@"
  elif has runuser; then
    runuser -u "$login" -- env XDG_RUNTIME_DIR="/run/user/$uid" "$@"
  else
    setpriv --reuid "$uid" --init-groups --reset-env env XDG_RUNTIME_DIR="/run/user/$uid" "$@"
  fi
}
show_units() {
  [ -d /run/systemd/system ] && has systemctl || return 0
  what=Id,ActiveState,UnitFileState,Restart,MainPID,TriggeredBy,Triggers,Listen,FragmentPath
  case "$family" in *'listener system'*) names="$names *.socket" ;; esac
  # The words are split: the name of a unit holds no space.
  # shellcheck disable=SC2086
  [ -z "$names" ] || section 'units system' $limit systemctl show --property=$what -- $names </dev/null
  for uid in $managers; do
    login=$(find_login "$uid")
    names=$(printf '%s\n' "$family" | sed -n "s/^manager $uid //p")
    case "$family" in *"listener $uid"*) names="$names *.socket" ;; esac
    # shellcheck disable=SC2086
    section "units $uid" \
      as "$uid" "$login" $limit systemctl --user show --property=$what -- $names </dev/null
  done
}

# The programs of each supervisord that a holder descends from, as its own client lists them. Anybody may
# call a process so and give it a client and settings of his own: only ours is asked, and what it
# says is started by root.
ask_supervisors() {
  here=$(readlink /proc/self/ns/mnt)
  for pid in $keepers; do
    # shellcheck disable=SC2012
    owner=$(ls -dln "/proc/$pid" 2>/dev/null | awk '{ print $3; exit }')
    if [ "$owner" != "$me" ] || [ "$(readlink "/proc/$pid/ns/mnt")" != "$here" ]; then
      section "supervisor $pid" true
      continue
    fi
    config='' program='' previous=''
    arguments=$(tr '\000' '\n' <"/proc/$pid/cmdline" 2>/dev/null)
    cwd=$(readlink "/proc/$pid/cwd") || cwd=/
    while IFS= read -r word; do
      case "$word" in
        */supervisord) program=${word%/*}/supervisorctl ;;
        --configuration=*) config=${word#*=} ;;
      esac
      case "$previous" in -c | --configuration) config=$word ;; esac
      previous=$word
    done <<EOT
$arguments
EOT
    if [ -z "$config" ]; then
      for config in "$cwd/supervisord.conf" "$cwd/etc/supervisord.conf" \
        /etc/supervisord.conf /etc/supervisor/supervisord.conf; do
        [ ! -r "$config" ] || break
      done
    fi
    case "$config" in /*) ;; *) config=$cwd/$config ;; esac
    section "supervisor $pid" ask_client
  done
}

# What the client of one supervisord says of its programs.
ask_client() {
  [ -x "$program" ] || program=$(command -v supervisorctl) || return
  printf '%s\n%s\n' "$program" "$config"
  # What has only just been started is listed without its number.
  (cd "$cwd" 2>/dev/null || cd / || exit; $limit "$program" -c "$config" status </dev/null 2>&1) |
    while read -r name state rest; do
      [ "$state" != STARTING ] || rest="pid $($limit "$program" -c "$config" pid "$name" </dev/null), "
      printf '%s %s %s\n' "$name" "$state" "$rest"
    done
}
