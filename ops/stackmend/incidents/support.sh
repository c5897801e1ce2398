# What helps whoever is asked about a host: versions, tables of the system and the engine, the end of
# the journal of changes and of the logs of containers. Changes nothing. Writes sections
# (connection/frame.sh). Arguments: the Compose project whose containers are read (empty for all),
# lines of each log.
project=$1 most=$2
LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin
export LC_ALL PATH

has() { command -v "$1" >/dev/null 2>&1; }
# What comes of a log: its end, and of each line no more than anybody reads.
bounded() { tail -n "$most" | tail -c 131072 | tr -d '\000' | cut -c 1-2000 | quoted; }
# What a command shows, if there is one and it ends.
table() {
  begin "$1"
  shift
  ! has "$1" || "$@" 2>&1 | bounded
  end 0
}

begin 'version os'
# shellcheck source=/dev/null
[ ! -r /etc/os-release ] || (. /etc/os-release && printf '%s\n' "${PRETTY_NAME:-}") | bounded
end 0
table 'version kernel' uname -srm
table 'name host' uname -n
table 'name addresses' hostname -I
if has docker && has timeout; then
  table 'version docker' docker version --format '{{.Server.Version}} (client {{.Client.Version}})'
  table 'version compose' timeout -k 2 10 docker compose version --short
fi
table 'version systemd' systemctl --version
table 'version shell' bash --version

table 'table uptime' uptime
table 'table memory' free -m
if has timeout; then
  table 'table disks' timeout -k 2 5 df -hP
fi

begin journal
[ ! -r /var/lib/stackmend/journal.jsonl ] || bounded </var/lib/stackmend/journal.jsonl
end 0

if has docker && has timeout; then
  set -- -a --no-trunc
  [ -z "$project" ] || set -- "$@" --filter "label=com.docker.compose.project=$project"
  table 'table containers' docker ps "$@" \
    --format 'table {{.Names}}\t{{.Image}}\t{{.Status}}\t{{.Ports}}'
  ids=$(docker ps "$@" --format '{{.ID}}' 2>/dev/null)
  count=0
  for id in $ids; do
    case $id in *[!0-9a-f]*) continue ;; esac
    [ "$count" -lt 40 ] || break
    count=$((count + 1))
    begin "container $id"
    docker inspect --format '{{json .Name}}' "$id" 2>&1 | bounded
    end 0
    begin "log $id"
    docker logs -t --tail "$most" "$id" 2>&1 | bounded
    end 0
  done
fi
