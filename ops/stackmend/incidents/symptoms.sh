# What a host's logs, journals and events say of late, and what listens there. Changes nothing. Writes sections
# (connection/frame.sh). Arguments: the Compose project whose containers are read (empty for all),
# minutes, lines of each log.
project=$1 minutes=$2 most=$3
LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin
export LC_ALL PATH

has() { command -v "$1" >/dev/null 2>&1; }
# What comes of a log: its end, and of each line what shows what it is about.
bounded() { tail -n "$most" | tail -c 131072 | tr -d '\000' | cut -c 1-1000 | quoted; }

now=$(date +%s)
section clock echo "$now"

if has docker && has timeout; then
  set -- -a --no-trunc --format '{{.ID}}'
  [ -z "$project" ] || set -- "$@" --filter "label=com.docker.compose.project=$project"
  listed=$(docker ps "$@" 2>&1)
  status=$?
  begin containers
  if [ $status = 0 ]; then
    ids=''
    count=0
    for id in $listed; do
      case $id in *[!0-9a-f]*) continue ;; esac
      [ "$count" -lt 40 ] || break
      count=$((count + 1))
      ids="$ids $id"
    done
    # shellcheck disable=SC2086 # ids are words of hexadecimal digits
    [ -z "$ids" ] || docker inspect --format '[{{json .Id}},{{json .Name}},{{json (index .Config.Labels "com.docker.compose.service")}},{{json .State.Running}},{{json .State.StartedAt}}]' $ids 2>&1 | quoted
  else
    printf '%s\n' "$listed" | head -c 2000 | quoted
  fi
  end $status
  [ $status = 0 ] || ids=''
  for id in $ids; do
    begin "log $id"
    docker logs -t --since "${minutes}m" --tail "$most" "$id" 2>&1 | bounded
    end 0
  done
  if [ $status = 0 ]; then
    begin events
    docker events --since "$((now - minutes * 60))" --until "$now" --filter type=container \
      --filter event=oom --filter event=die --filter event=health_status \
      --format '{{.Time}} {{.Action}} {{index .Actor.Attributes "name"}}' 2>&1 | bounded
    end 0
  fi
fi

if has ss; then
  begin listening
  ss -H -l -t -n -p 2>/dev/null | head -n 2000 | tr -d '\000' | cut -c 1-300 | quoted
  end 0
fi

if has journalctl && has timeout; then
  for unit in docker containerd ollama systemd-resolved; do
    begin "unit $unit.service"
    timeout -k 2 5 journalctl -q --no-pager -o short-unix -u "$unit.service" \
      --since "-${minutes}min" -n "$most" 2>/dev/null | bounded
    end 0
  done
  begin "unit kernel"
  timeout -k 2 5 journalctl -q --no-pager -o short-unix -k --since "-${minutes}min" -n "$most" \
    2>/dev/null | bounded
  end 0
fi
