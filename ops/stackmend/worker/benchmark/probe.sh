# What a host has for a measurement: its hardware, the server's containers with their limits, and
# what was measured before. Changes nothing, and asks no server. Writes sections
# (connection/frame.sh). Behind group.sh and connection/own.sh. Arguments: the Compose project, the
# service or nothing, the service of the workers or nothing, the endpoint's address and port, the
# record, the service whose queue sends tasks to the server or nothing, words of options whose values
# may leave the host, words of those whose never do.
project=$1 service=$2 workers=$3 address=$4 port=$5 record=$6 queues=$7 known=${8-} never=${9-}
PATH=$PATH:/usr/sbin:/sbin:/usr/lib/wsl/lib
LC_ALL=C
export LC_ALL PATH

has() { command -v "$1" >/dev/null 2>&1; }

section clock date +%s
# Reading a FIFO would wait for whoever writes to it.
if [ -f "$record" ]; then
  section record head -c 4194304 "$record"
elif [ -e "$record" ]; then
  section record sh -c 'echo "it is no file; move it elsewhere"; exit 1'
fi
begin cpu
sed -n 's/^\(model name\|Model\|CPU part\|cpu model\)[	 ]*: *//p' /proc/cpuinfo 2>/dev/null | sort -u |
  head -n 4 | quoted
end 0
section cores sh -c 'nproc --all 2>/dev/null || getconf _NPROCESSORS_CONF'
begin memory
grep -E '^(MemTotal|MemAvailable|SwapTotal|SwapFree):' /proc/meminfo 2>/dev/null | quoted
end 0
if has nvidia-smi && has timeout; then
  section gpus timeout -k 2 20 nvidia-smi \
    --query-gpu=name,memory.total,memory.free,driver_version --format=csv,noheader,nounits
fi
begin amd
for file in /sys/class/drm/card*/device/mem_info_vram_total; do
  card=${file%/*}
  read -r total <"$file" || continue
  read -r used <"$card/mem_info_vram_used" || used=''
  read -r device <"$card/device" || device=''
  printf '%s %s %s\n' "$total" "${used:-?}" "$device"
done 2>/dev/null | quoted
end 0

# What of an environment changes a server's speed.
speeds='^"?(OLLAMA_|LLAMA_|GGML_|OMP_|OPENBLAS_|MKL_|VLLM_|CUDA_VISIBLE_DEVICES=|NVIDIA_VISIBLE_DEVICES=|INTERRUPT_REQUESTS=|HIP_VISIBLE_DEVICES=|ROCR_VISIBLE_DEVICES=|HSA_OVERRIDE_|N_THREADS=|N_CTX=|N_BATCH=|N_GPU_LAYERS=|MODEL=|WEB_CONCURRENCY=)'

# What of variables or arguments, one a line, leaves the host: names, and values that are numbers,
# answers to a question, or plain values of known options; of commands those that are paths or words.
# A name is known by its whole words: monkey is no key, and tokens are counted.
# $1 is "setting" or "argument", $2 "json" where each line is a string of JSON.
keep() {
  awk -v kind="$1" -v form="$2" -v known="$known" -v never="$never" '
    function is_number(text, dot) {
      sub(/^-/, "", text)
      dot = index(text, ".")
      if (dot && substr(text, dot + 1) !~ /^[0-9]+$/ || dot && length(text) - dot > 6) return 0
      if (dot) text = substr(text, 1, dot - 1)
      return text ~ /^[0-9]*$/ && length(text) < 10
    }
    # 1 where plain values may leave, 0 where numbers alone may, less where it may be of a secret.
    function trust(name, words, count, number, found, barred) {
      name = tolower(name)
      gsub(/[^a-z0-9]+/, " ", name)
      count = split(name, words, " ")
      for (number = 1; number <= count; number++) {
        if (index(" " known " ", " " words[number] " ")) found = 1
        else if (words[number] ~ /key|token|secret|pass|credential/ && words[number] != "tokens") return -2
        else if (index(" " never " ", " " words[number] " ")) barred = 1
      }
      return barred ? -1 : found + 0
    }
    # Strings, since a slash within brackets of a literal is written differently for each awk.
    function is_plain(text) {
      # A value that is a pair of its own may name a secret.
      if (tolower(text) ~ /(pass|pwd|secret|token|credential|api[-_]?key|private[-_]?key).*:/) return 0
      return text ~ "^[A-Za-z0-9_.,/:+-]+$" && length(text) <= 200
    }
    function value(name, text, trusted) {
      if (tolower(text) ~ /^(true|false|on|off|yes|no|auto|none)$/) return text
      trusted = trust(name)
      return trusted >= 0 && is_number(text) || trusted > 0 && is_plain(text) ? text : "…"
    }
    function command(text) {
      if (text ~ /^[a-z][a-z0-9_.-]*$/ && length(text) < 32) return text
      return text ~ "^/[A-Za-z0-9_./-]+$" && length(text) < 122 ? text : "…"
    }
    form == "json" { if ($0 !~ /^".*"$/) next; $0 = substr($0, 2, length($0) - 2) }
    { at = index($0, "="); name = at ? substr($0, 1, at - 1) : $0; rest = substr($0, at + 1) }
    kind == "setting" {
      # Neither a key nor where it listens changes a speed.
      if (name !~ /^[A-Za-z0-9_]+$/ || tolower(name) ~ /(origins|host)$/ || trust(name) == -2) next
      print kind, name (at ? "=" value(name, rest) : "")
      next
    }
    /^-/ {
      known_name = name ~ /^--?[A-Za-z0-9][A-Za-z0-9_.-]*$/ && length(name) < 64
      print kind, known_name ? name (at ? "=" value(name, rest) : "") : "…"
      option = at ? "" : known_name ? name : "-"
      next
    }
    { print kind, option == "" ? command($0) : option == "-" ? "…" : value(option, $0); option = "" }'
}

# What is watched: a process and the port that it listens on, in the kernel's digits.
watched='' listening=''

# The limits that hold for a process, from all groups above it, and the threads that it computes
# with, which a process below it may say.
describe_process() {
  begin "limits $1"
  group_files "$1" cpu | while IFS= read -r directory; do
    read -r quota period 2>/dev/null <"$directory/cpu.max" || {
      read -r quota <"$directory/cpu.cfs_quota_us" && read -r period <"$directory/cpu.cfs_period_us"
    } 2>/dev/null || continue
    printf 'cpu %s %s\n' "$quota" "$period"
  done | quoted
  group_files "$1" memory | while IFS= read -r directory; do
    read -r limit 2>/dev/null <"$directory/memory.max" ||
      read -r limit 2>/dev/null <"$directory/memory.limit_in_bytes" || continue
    printf 'memory %s\n' "$limit"
  done | quoted
  sed -n 's/^Cpus_allowed_list:[	 ]*/allowed /p' "/proc/$1/status" 2>/dev/null | quoted
  own=$(cat "/proc/$1/cgroup" 2>/dev/null)
  for process in $1 $(below "$1"); do
    [ "$(cat "/proc/$process/cgroup" 2>/dev/null)" = "$own" ] || continue
    { tr '\n\000' ' \n' <"/proc/$process/cmdline"; } 2>/dev/null | awk '
      sub(/^(--threads|-t|--n_threads|--n-threads)=/, "") { wanted = 1 }
      wanted && /^[0-9]+$/ { print "threads " $0 }
      { wanted = /^(--threads|-t|--n_threads|--n-threads)$/ }'
  done | quoted
  end 0
}

# The processes below one, of whatever depth.
below() {
  cat /proc/[0-9]*/stat 2>/dev/null | sed -n 's/^\([0-9]*\) (.*) [A-Za-z] \([0-9]*\) .*/\1 \2/p' |
    awk -v top="$1" '
      { parent[$1] = $2 }
      END { for (process in parent) {
        up = process
        for (steps = 0; steps < 50 && up in parent && up != top; steps++) up = parent[up]
        if (up == top && process != top) print process } }' | head -n 64
}

# shellcheck disable=SC2016 # the template's own
shape='{{println "name" (json .Name)}}{{println "process" (json .State.Pid)}}{{println "image" (json .Image)}}{{println "network" (json .HostConfig.NetworkMode)}}{{range .NetworkSettings.Networks}}{{println "address" (json .IPAddress)}}{{println "address" (json .GlobalIPv6Address)}}{{end}}{{range $inner, $outer := .NetworkSettings.Ports}}{{range $outer}}{{println "published" (json $inner) (json .HostIP) (json .HostPort)}}{{end}}{{end}}'

# $1 is "server", "worker" or "queue", $2 its id, $3 the port within it where that is another one.
describe_container() {
  begin "$1 $2"
  docker inspect --format "$shape" "$2" 2>/dev/null | quoted
  docker inspect --format '{{range .Config.Env}}{{println (json .)}}{{end}}' "$2" 2>/dev/null |
    grep -E "$speeds" | head -n 200 | keep setting json | quoted
  docker inspect --format '{{range .Args}}{{println (json .)}}{{end}}' "$2" 2>/dev/null |
    head -n 200 | keep argument json | quoted
  end 0
  process=$(docker inspect --format '{{.State.Pid}}' "$2" 2>/dev/null)
  case $process in
  '' | 0 | *[!0-9]*) ;;
  *)
    describe_process "$process"
    if [ "$1" = server ]; then
      watched="$watched $process"
      listening="$listening $process:$(printf '%04X' "${3:-$port}")"
    fi
    ;;
  esac
}

is_here() {
  case $1 in
  127.* | localhost | ::1) return 0 ;;
  esac
  { ip -o addr show 2>/dev/null || hostname -I 2>/dev/null; } | tr '/' ' ' | grep -qF -- " $1 "
}

compose=label=com.docker.compose

# The running containers of a service of the project. $1 is what they are, $2 the service.
of_service() {
  set -- "$1" "$2" --filter "$compose.service=$2" --filter "$compose.oneoff=False"
  kind=$1 named=$2
  shift 2
  [ -z "$project" ] || set -- "$@" --filter "$compose.project=$project"
  if ! rows=$(docker ps -q --no-trunc "$@" 2>&1); then
    begin engine
    printf '%s\n' "$rows" | quoted
    end 1
    return
  fi
  # Somebody else's container may bear the labels of a service.
  # shellcheck disable=SC2046
  own=$(made_by_compose docker $(printf '%s\n' "$rows" | grep -x '[0-9a-f]\{64\}'))
  if [ -z "$own$project" ]; then
    own=$(docker ps -q --no-trunc --filter "name=^/$named\$" 2>/dev/null)
  fi
  for id in $(printf '%s\n' "$own" | sort | head -n 64); do
    describe_container "$kind" "$id"
  done
}

# What answers at an endpoint: several programs may listen on one port, each on an address of its own.

# The containers that publish the port: the address, the port within, and the container's id.
list_published() {
  # shellcheck disable=SC2016 # the template's own
  for id in $(docker ps -q --no-trunc --filter "publish=$port" 2>/dev/null |
    grep -x '[0-9a-f]\{64\}' | head -n 64); do
    docker inspect --format '{{range $inner, $outer := .NetworkSettings.Ports}}{{range $outer}}{{println (json .HostIP) .HostPort $inner}}{{end}}{{end}}' "$id" 2>/dev/null |
      sed -n "s|^\("'"[0-9A-Fa-f:.]*"'"\) $port \([0-9]\{1,5\}\)/tcp\$|\1 \2 $id|p"
  done
}

# The processes that listen on it: the address, and the process.
list_listeners() {
  ss -ltnpH "sport = :$port" 2>/dev/null |
    sed -n 's/^[^ ]* *[0-9]* *[0-9]* *\([^ ]*\):[0-9]* .*pid=\([0-9]*\).*/\1 \2/p'
}

# What follows the address in the first line that is of the endpoint's ("own"), or of all ("any").
choose() {
  awk -v address="$address" -v kind="$1" '
    BEGIN { named = address == "localhost"; six = address ~ /:/ }
    {
      gsub(/[]["]|%.*/, "", $1)
      sub(/^::ffff:/, "", $1)
      own = $1 == address || named && ($1 == "127.0.0.1" || $1 == "::1")
      any = $1 == "" || $1 == "*" || !six && $1 == "0.0.0.0" || (six || named) && $1 == "::"
      if (NF > 1 && (kind == "own" ? own : any)) {
        $1 = ""
        print
        exit
      }
    }'
}

# The process of the host that is the endpoint.
describe_listener() {
  process=${process# }
  begin "process $process"
  { tr '\n\000' ' \n' <"/proc/$process/environ"; } 2>/dev/null |
    grep -E "$speeds" | head -n 200 | keep setting text | quoted
  { tr '\n\000' ' \n' <"/proc/$process/cmdline"; } 2>/dev/null |
    head -n 200 | keep argument text | quoted
  end 0
  describe_process "$process"
  watched=$process
  listening=$process:$(printf '%04X' "$port")
}

if [ -n "$service" ]; then
  if has docker; then
    of_service server "$service"
    [ -z "$workers" ] || of_service worker "$workers"
  else
    begin engine
    end 127
  fi
elif is_here "$address"; then
  published='' listeners=''
  has docker && published=$(list_published)
  has ss && listeners=$(list_listeners)
  for kind in own any; do
    # shellcheck disable=SC2046
    set -- $(printf '%s\n' "$published" | choose $kind)
    if [ -n "${2-}" ]; then
      describe_container server "$2" "$1"
      break
    fi
    process=$(printf '%s\n' "$listeners" | choose $kind)
    if [ -n "$process" ]; then
      describe_listener
      break
    fi
  done
fi
[ -z "$queues" ] || ! has docker || of_service queue "$queues"

# Who computes right now shows in the CPU time of the server's processes; those that Docker starts
# beside them, such as healthchecks, are below none of these. USER_HZ is 100 wherever containers run.
read_usage() {
  read -r now _ </proc/uptime
  for process in $watched; do
    parts="$process $(below "$process")"
    waited=$(for part in $parts; do cat /proc/"$part"/task/*/schedstat; done 2>/dev/null |
      awk '{ waited += $2 } END { printf "%.6f", waited / 1e9 }')
    for part in $parts; do
      cat "/proc/$part/stat"
    done 2>/dev/null | sed 's/.*) //' | awk -v name="$process" -v now="$now" -v waited="$waited" '
      { ticks += $12 + $13 }
      END { printf "%s %s %.2f %s\n", name, now, ticks / 100, waited }'
  done | quoted
}

# Who is connected to the servers, as their own networks have it: both ends of each connection, and
# "-" where that could be read.
read_connections() {
  for pair in $listening; do
    process=${pair%:*}
    [ -r "/proc/$process/net/tcp" ] || continue
    cat "/proc/$process/net/tcp" "/proc/$process/net/tcp6" 2>/dev/null |
      awk -v name="$process" -v port=":${pair#*:}" '
        $4 == "01" && substr($2, length($2) - 4) == port { print name, $2, $3 }
        END { print name, "-" }'
  done | sort -u | head -n 4096
}

if [ -n "$watched" ]; then
  connected=$(read_connections)
  begin usage
  read_usage
  sleep 0.5 2>/dev/null || sleep 1
  read_usage
  end 0
  # One that is over, or just begins, such as a healthcheck's, is nobody's answer.
  begin connections
  { printf '%s\n' "$connected"; read_connections; } | sort | uniq -d | quoted
  end 0
fi
section complete true
