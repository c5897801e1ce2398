# Print "unchanged" where this host can show that nothing has happened since the last run that found
# nothing to do, and no run is due: then there is nothing to run for. Whatever it cannot tell is a change.
# What is there now waits beside, for the run to keep where it finds nothing to do. Before it stand, see
# schedule/unchanged.py: room, full_every, slack, project, directory, and PATH.
# shellcheck disable=SC2154 # these are assigned there
LC_ALL=C TZ=UTC0
export PATH LC_ALL TZ
unset CDPATH
umask 077
# The journal gets the reason of a full run, and nothing else.
exec 3>&2 2>/dev/null
kept=$room/unchanged next=$room/unchanged.new socket=/run/docker.sock result='' is_files='' is_engine=''
# Only what is kept from a run that found nothing to do says that there was nothing.
trap '[ "$result" = unchanged ] || rm -f -- "$kept"' EXIT
trap 'exit 1' TERM
if [ -e "$next" ] || [ -L "$next" ]; then rm -f -- "$next" || exit 0; fi
have() { command -v "$1" >/dev/null; }
# run REASON: all of the host is to be run for; how it is now waits for the end of the run.
run() {
  [ ${#is_files} -ne 64 ] || [ ${#is_engine} -ne 64 ] ||
    printf '%s\n' "$boot $now $uptime $is_files $is_engine" >"$next"
  echo "a full run: $1" >&3
  exit 0
}

as='%n %d %i %f %u %g %s %y %z'
files() {
  # A run writes the files that systemd's resolver and the engine make of others, too.
  stat -c "$as" -- "$room/current" /etc/resolv.conf /etc/hosts /etc/nsswitch.conf /etc/docker/daemon.json \
    /etc/systemd/resolved.conf /run/docker.pid /var/lib/stackmend/pauses.json \
    /var/lib/stackmend/limits.json "/etc/systemd/system/${room##*/}.service" \
    /etc/systemd/system/docker.service /etc/systemd/system/docker.socket \
    /usr/lib/systemd/system/docker.service /usr/lib/systemd/system/docker.socket \
    /lib/systemd/system/docker.service /lib/systemd/system/docker.socket \
    /var/lib/docker/image/*/repositories.json
  stat -L -c "$as" -- /etc/resolv.conf /etc/hosts /etc/docker/daemon.json
  find "$room/current/" /etc/docker /etc/systemd/system/docker.service.d \
    /etc/systemd/system/docker.socket.d /etc/systemd/resolved.conf.d \
    \( -name venv -o -name __pycache__ \) -prune -o ! -type d -exec stat -c "$as" -- {} +
  [ -n "$project" ] || return 0
  # Without the list no run has proven the project.
  memory=/var/lib/stackmend/$project
  [ -f "$memory/files" ] && cd -P -- "$directory" || return 1
  stat -c '%n %d %i %f %u %g' -- "$directory"
  # And what Compose reads beside its files where somebody puts it there.
  stat -c "$as" -- "$memory/files" "$memory/applied.json" "$memory/outside" .env compose.yaml \
    compose.yml docker-compose.yaml docker-compose.yml compose.override.yaml compose.override.yml \
    docker-compose.override.yaml docker-compose.override.yml
  tr '\n' '\0' <"$memory/files" | xargs -0 stat -c "$as" --
  cd /
  [ ! -s "$memory/outside" ] || tr '\n' '\0' <"$memory/outside" | xargs -0 stat -c "$as" --
}

# What an engine tells of itself, but for the commands that health checks execute.
events='create start restart die kill stop oom pause unpause destroy rename update health_status
  connect disconnect mount unmount remove reload delete import load pull tag untag prune'
ask() { curl -q -s -g -f --noproxy '*' --max-time 10 --unix-socket "$socket" "$@"; }
# list WORDS...: all that the engine's client prints for them, into $asked.
list() {
  asked=$({ timeout 10 docker "$@" && echo '='; } | head -c 1048576)
  case $asked in *=) asked=${asked%=} ;; *) return 1 ;; esac
}
# answers: "expect" and how many come before the events, then each in a line of its own.
answers() {
  if have curl && [ -S "$socket" ]; then
    asked=$(ask 'http://engine/containers/json?all=1' | head -c 8388608 | awk '
      { count = split($0, part, /[{]"Id":"/)
        if (!/^\[.*\]$/ || (count < 2 && $0 != "[]")) bad = 1
        for (i = 2; i <= count; i++) {
          id = substr(part[i], 1, 64)
          if (length(id) != 64 || id ~ /[^0-9a-f]/) bad = 1
          else print "http://engine/containers/" id "/json" } }
      END { exit bad || NR != 1 }') || return 1
    # shellcheck disable=SC2086
    set -- $asked
    [ $# -le 200 ] || return 1
    echo "expect $(($# + 2))"
    quoted=''
    for each in $events; do quoted=$quoted${quoted:+%2C}%22$each%22; done
    ask "$@" http://engine/networks http://engine/volumes \
      "http://engine/events?since=$since&until=$now&filters=%7B%22event%22%3A%5B$quoted%5D%7D"
  else
    list ps -aq --no-trunc || return 1
    # shellcheck disable=SC2086
    set -- $asked
    [ $# -le 200 ] || return 1
    echo "expect $(($# + 2))"
    [ $# -eq 0 ] || timeout 10 docker container inspect --format '{{json .}}' "$@" || return 1
    for each in network volume; do
      list $each ls -q || return 1
      printf '[%s]\n' "$(printf '%s\n' "$asked" | sort | tr '\n' ' ')"
    done
    set --
    for each in $events; do set -- "$@" --filter "event=$each"; done
    timeout 10 docker events --since "$since" --until "$now" "$@" --format '{{json .}}'
  fi
}

# A pipe whose middle is missing would compare nothing with nothing.
for each in rm tr sort xargs sha256sum; do
  have $each || run 'this host lacks a program that compares'
done
boot='' uptime=''
read -r boot </proc/sys/kernel/random/boot_id
read -r uptime _ </proc/uptime
now=$(date +%s)
case $boot,${uptime%%.*},$now in
*,,* | ,* | *, | *,*[!0-9,]*) run 'the clock cannot be read' ;;
esac
uptime=${uptime%%.*} before='' started='' age='' was_files='' was_engine=''
if [ -f "$kept" ] && [ ! -L "$kept" ]; then
  read -r before started age was_files was_engine <"$kept"
  case $started$age in *[!0-9]*) started='' age='' ;; esac
fi
since=${started:-$now}
# A container's health and the commands in it are no change, and lists come in any order.
found=$({
  files
  echo "=files $?"
  answers
  echo "=engine $?"
} </dev/null | head -c 33554432 | room=$room project=$project awk '
  function cut(from, to,   i, j) {
    i = index($0, from)
    j = i ? index(substr($0, i), to) : 0
    if (j) $0 = substr($0, 1, i - 1) substr($0, i + j - 1)
  }
  BEGIN {
    expected = -1
    room = ENVIRON["room"] "/current"
    files = "sha256sum"
    engine = "tr \"{}\" \"\\n\\n\" | sort | sha256sum"
    ours = "\"com.docker.compose.project\":\"" ENVIRON["project"] "\""
  }
  /^=files / { behind = 1; readable = $2 == 0; next }
  !behind {
    # Without these nothing has been compared.
    if (index($0, room " ") == 1) linked = 1
    if (index($0, room "/inventory.py ") == 1) listed = 1
    print | files
    next
  }
  /^=engine / { complete = $2 == 0; next }
  /^expect / { expected = $2; next }
  expected < 0 || !/^[[{]/ { bad = 1; next }
  ++count > expected { event = 1; next }
  index($0, "{\"message\":") == 1 { bad = 1 }
  {
    cut(",\"FailingStreak\":", "}},\"Image\":\"")
    cut(",\"ExecIDs\":", ",\"HostConfig\":")
    if (ENVIRON["project"] && index($0, ours) &&
      (index($0, "\"Health\":{\"Status\":\"unhealthy\"") || index($0, "\"Restarting\":true"))) ill = 1
    print | engine
  }
  END {
    close(files)
    close(engine)
    if (!readable || !linked || !listed) print "lacking"
    else if (bad || !complete || count < expected) print "silent"
    else if (ill) print "ill"
    else if (event) print "event"
  }')
# Two digests, and what else is known of it.
# shellcheck disable=SC2086
set -- $found
case $* in
*lacking*) run 'what it compares is not all there' ;;
*silent*) run 'the engine does not answer, or not as expected' ;;
esac
is_files=${1-} is_engine=${3-} problem=${5-}
[ ${#is_files} -eq 64 ] && [ ${#is_engine} -eq 64 ] || run 'this host lacks a program that compares'
[ -n "$started" ] || run 'the last run did not find everything well, or none has ended since'
[ "$before" = "$boot" ] && [ "$age" -le "$uptime" ] || run 'the host has started since'
age=$((uptime - age)) drift=$((now - started))
drift=$((drift - age))
[ $drift -le 60 ] && [ $drift -ge -60 ] || run 'somebody set the clock'
[ $((age + slack)) -lt "$full_every" ] || run "the last is $((age / 60)) min old"
[ "$is_files" = "$was_files" ] || run 'a file that a run reads has changed'
case $problem in
ill) run 'a container of the project is not healthy' ;;
event) run 'something happened on the engine' ;;
esac
[ "$is_engine" = "$was_engine" ] || run 'a container, a network or a volume has changed'
root=/var/lib/docker
if [ -f /etc/docker/daemon.json ]; then
  while read -r line || [ -n "$line" ]; do
    case $line in
    *'"data-root"'*)
      root=${line#*'"data-root"'}
      root=/${root#*/}
      root=${root%%'"'*}
      ;;
    esac
  done </etc/docker/daemon.json
fi
full=$(df -P -- / "$root" | awk 'NR > 1 { if ($5 !~ /^[0-9]+%$/ || $5 + 0 > 90) bad = 1; rows++ } END { print (rows < 2 || bad) }')
[ "$full" = 0 ] || run 'a disk is more than 90 % full, or cannot be read'
if [ -f "$room/current/ping" ]; then
  # Whoever waits for this host hears that it is well; where that fails, the run tries it.
  curl -q -s -f -o /dev/null --max-time 10 --proto '=http,https' -K "$room/current/ping" </dev/null >&2 ||
    run 'the ping did not arrive'
fi
result=unchanged
echo unchanged
