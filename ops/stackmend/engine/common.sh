# What the scripts that change an engine begin with. Takes the directory of our state off the
# arguments. A script runs to its end although the connection is lost: it writes nothing until then.
root=$1
shift
private "$root/kept" || exit 73
trap '' HUP PIPE INT
have() { command -v "$1" >/dev/null 2>&1; }
limited() { if have timeout; then timeout -k 2 20 "$@"; else "$@"; fi; }

# One at a time: an earlier run's script may still be at it.
alone() {
  exec 9>>"$root/working" || exit 73
  flock -w 900 9 || {
    echo "another stackmend script has worked on the engine for 15 minutes ($root/working)" >&2
    exit 73
  }
}

answers() { ! engine_failed && limited docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

# Within $1 seconds, unless its service is seen to have failed.
comes_up() {
  up_until=$(($(date +%s) + $1))
  until answers; do
    [ "$(date +%s)" -lt "$up_until" ] || return 1
    if [ -d /run/systemd/system ] && systemctl is-failed --quiet docker.service; then return 1; fi
    sleep 1
  done
}

# Keep the daemon.json with which the engine was seen to come up, to be put back once it is broken.
proven() {
  [ -f "$1" ] && ! cmp -s "$1" "$root/kept/proven.json" || return 0
  cp -- "$1" "$root/kept/proven.new" && mv -f "$root/kept/proven.new" "$root/kept/proven.json"
}

# Remove a file that a new engine was to start with and never was up with, and print why.
without() {
  [ -n "$1" ] && [ -e "$root/pending" ] && [ ! -s "$root/pending" ] || return 1
  why 3
  rm -f -- "$1"
  service restart >/dev/null 2>&1
  comes_up 90 || return 1
  rm -f "$root/pending"
}

# Where apt keeps its cache of package lists: images of clouds and containers switch it off, and every
# call would make it anew, seconds each.
kept_lists() {
  kept=''
  eval "$(apt-config shell kept Dir::Cache::pkgcache)"
  [ -n "$kept" ] || printf '%s' "-o Dir::Cache::pkgcache=$root/lists.bin"
}

service() {
  if [ -d /run/systemd/system ]; then
    [ "$1" = reload ] || systemctl reset-failed docker.service docker.socket 2>/dev/null
    systemctl "$1" docker.service
  elif have rc-service; then
    # What it starts is not to hold the lock.
    rc-service docker "$1" 9>&-
  else
    command service docker "$1" 9>&-
  fi
}

enabled() {
  if [ -d /run/systemd/system ]; then
    # Enabling has systemd read all units anew: seconds, on a small machine.
    systemctl is-enabled --quiet docker.service 2>/dev/null || systemctl enable --quiet docker.service
  elif have rc-update; then
    rc-update -q add docker default
  fi
}

why() {
  if [ -d /run/systemd/system ]; then
    journalctl -u docker.service -n 40 --no-pager -o cat 2>/dev/null |
      grep -e level=error -e level=fatal -e failed -e unable | tail -n "${1:-5}"
  else
    tail -n "${1:-5}" /var/log/docker.log 2>/dev/null
  fi
}

# What runs now, the first that was made first, so that it can be brought back. What an earlier
# script could not bring back stays on the list. Argument: the seconds that the engine has to answer.
remember() {
  touch "$root/left"
  asked=1
  engine_failed || { running=$(timeout -k 2 "${1:-10}" docker ps -q --no-trunc 2>/dev/null) && asked=0 || asked=$?; }
  if [ $asked -ne 0 ]; then
    # One that hangs is waited for once.
    if [ $asked -ne 124 ] && [ $asked -ne 137 ] && answers; then
      echo 'the engine does not tell which containers run: nothing is changed' >&2
      exit 73
    fi
    # What runs without an engine, or under one that hangs, containerd knows of.
    running=$(ls /run/containerd/io.containerd.runtime.v2.task/moby 2>/dev/null)
  fi
  printf '%s\n' "$running" | sed '1!G;h;$!d' |
    cat "$root/left" - | awk 'NF && !seen[$0]++' >"$root/left.now"
  mv -f "$root/left.now" "$root/left"
}

bring_back() {
  [ -e "$root/left" ] || return 0
  for _ in 1 2 3 4 5; do
    : >"$root/left.next"
    : >"$root/left.why"
    while read -r id; do
      runs=$(docker container inspect -f '{{.State.Running}}' "$id" 2>"$root/left.error") || {
        # An engine that does not answer says nothing about a container.
        grep -qi 'no such \(container\|object\)' "$root/left.error" || {
          cat "$root/left.error" >>"$root/left.why"
          echo "$id" >>"$root/left.next"
        }
        continue
      }
      [ "$runs" = true ] && continue
      docker start "$id" >/dev/null 2>>"$root/left.why" </dev/null || echo "$id" >>"$root/left.next"
    done <"$root/left"
    mv -f "$root/left.next" "$root/left"
    [ -s "$root/left" ] || { rm -f "$root/left" "$root/left.why" "$root/left.error"; return 0; }
    sleep 2
  done
  echo 'containers that ran before do not start:' >&2
  cat "$root/left.why" >&2
  return 1
}
