# What a model server computes with, from the host's driver to its loaded models. Changes nothing.
# Writes sections (connection/frame.sh). Arguments: the Compose project, the service, scheme, address
# and port of an endpoint, minutes of the log, samples, the text of checks/attempt.sh.
project=$1 service=$2 scheme=$3 host=$4 port=$5 minutes=$6 samples=$7 attempt=$8
LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin
export LC_ALL PATH

newline='
'
has() { command -v "$1" >/dev/null 2>&1; }
# One line that holds no value of somebody's, or an empty one.
read_line() { { IFS= read -r line <"$1"; } 2>/dev/null && printf '%s' "$line"; }

section clock date +%s

begin cpu
{
  printf 'architecture %s\n' "$(uname -m)"
  awk -F ': *' '
    /^processor/ { processors++ }
    /^physical id/ { package = $2 }
    /^core id/ { cores[package "/" $2]++ }
    /^model name/ && !named++ { print "model " $2 }
    /^flags/ && !listed++ { count = split($2, all, " "); line = "flags"
      for (i = 1; i <= count; i++) if (all[i] ~ /^(avx|avx2|avx512f|f16c|fma)$/) line = line " " all[i]
      print line }
    # As Ollama counts: of cores with one thread beside others with two the slow ones.
    END { for (core in cores) { physical++; if (cores[core] > 1) fast++ }
      print "processors " processors + 0; print "cores " physical + 0
      print "performance " (fast ? fast : physical + 0) }
  ' /proc/cpuinfo
  for directory in /sys/devices/system/cpu/cpu[0-9]*/cpufreq; do
    governor=$(read_line "$directory/scaling_governor") || continue
    printf 'governor %s %s %s\n' "$governor" "$(read_line "$directory/scaling_driver")" \
      "$(read_line "$directory/energy_performance_preference")"
  done | sort -u
} 2>/dev/null | quoted
end 0
section memory grep -E '^(MemTotal|MemAvailable|SwapTotal|SwapFree):' /proc/meminfo
swapped() { section "swapped $1" sed -n 's/^pswpin //p' /proc/vmstat; }

is_here() {
  case $1 in
  localhost | 127.* | ::1 | ::ffff:127.*) return 0 ;;
  *[!0-9a-fA-F:.]*) addresses=$(getent ahosts "$1" 2>/dev/null | sed 's/ .*//' | sort -u) ;;
  *) addresses=$1 ;;
  esac
  own_addresses=$(ip -o addr show 2>/dev/null | sed -n 's|^.* inet6* \([0-9a-fA-F:.]*\)/.*|\1|p')
  for address in $addresses; do
    case $address in 127.* | ::1) return 0 ;; esac
    printf '%s\n' "$own_addresses" | grep -qixF -- "$address" && return 0
  done
  return 1
}
# Of a server on another host only the models are read.
here=yes
[ -z "$host" ] || is_here "$host" || here=no
section local echo $here
if [ $here = yes ]; then
  begin vram
  for file in /sys/bus/pci/devices/*/mem_info_vram_total; do
    size=$(read_line "$file") && printf '%s %s\n' "$(basename "${file%/*}")" "$size"
  done | quoted
  end 0
  [ ! -e /dev/dxg ] || section dxg echo /dev/dxg
fi
hung=no
if [ $here = yes ] && has nvidia-smi; then
  begin smi
  listed=$(timeout -k 2 10 nvidia-smi \
    --query-gpu=driver_version,memory.total,memory.used,name --format=csv,noheader,nounits 2>&1)
  status=$?
  # Each process that asks a GPU that hangs stays until the host is restarted.
  case $status in 124 | 137) hung=yes ;; esac
  printf '%s\n' "$listed" | head -c 65536 | quoted
  end $status
fi

# The answer to GET /api/$1, asked in the container $2 or, where that is empty, on the host.
ask() {
  path=$1
  case $3 in
  *:*) authority="[$3]:$4" ;;
  *) authority="$3:$4" ;;
  esac
  begin "api $5"
  if [ -n "$2" ]; then
    { printf '%s\n' "$attempt" | timeout -k 2 15 docker exec -i "$2" sh -s -- http 5 GET \
      "$scheme://$authority/api/$path" "$3" "$4" "/api/$path" no; printf '\n%s' $?; }
  else
    { sh -c "$attempt" attempt http 5 GET \
      "$scheme://$authority/api/$path" "$3" "$4" "/api/$path" no </dev/null; printf '\n%s' $?; }
  fi 2>/dev/null | tail -c 1048576 | quoted
  end 0
}
# Whether it answers there at all; then all that is asked of it.
silent=no
converse() {
  answer=$(ask version "$@" version)
  printf '%s\n' "$answer"
  # One that takes the request and says nothing is not asked again.
  case $answer in *"$newline|28$newline"* | *"$newline|124$newline"*) silent=yes ;; esac
  case $answer in *'|HTTP/1.'* | *'|{"version"'*) ;; *) return 1 ;; esac
  [ -n "$1" ] || section reached printf '%s %s\n' "$2" "$3"
  answer=$(ask tags "$@" tags)
  printf '%s\n' "$answer"
  case $answer in *"$newline|28$newline"* | *"$newline|124$newline"*) return 0 ;; esac
  count=1
  while :; do
    swapped $count
    answer=$(ask ps "$@" "ps $count")
    printf '%s\n' "$answer"
    case $answer in *"$newline|28$newline"* | *"$newline|124$newline"*) return 0 ;; esac
    [ "$count" -lt "$samples" ] || break
    count=$((count + 1))
    sleep 1
  done
}

# What of a log matters here; a line may be as long as somebody's prompt.
interesting='\[GIN\] .* POST |msg="?(starting (llama|runner|llama-server)|load |load"|llama runner started|llama-server started|server config|inference compute|no compatible|dropping|evict|model requires more|llama-server model predicted|llama-server load failed|llama runner terminated|llama-server terminated)|evicting|runner process (no longer|has terminated)|llama-server process (no longer|has terminated)|offloaded [0-9]+/[0-9]+ layers|[Cc][Uu][Dd][Aa] driver|driver (is )?too old|amdgpu (is not supported|too old)|unsupported Radeon|permission problems|no compatible (amdgpu|rocm)|(cuda|rocm|amdgpu|nvml|NVML).*(error|fail|unable|not found)'
escape=$(printf '\033')
# A terminal's colours, and what journald writes between the time and the text.
relevant() {
  tr -d '\000' | cut -c 1-2000 | sed -e "s/$escape\[[0-9;]*[A-Za-z]//g" \
    -e 's/^\([0-9.]*\) [^ ]* [^ ]*: /\1 /' | grep -E "$interesting" | "$@" | head -c 2097152
}
# shellcheck disable=SC2329 # relevant calls it
# The last requests and the last of the other lines: so many requests push out no load of a model.
last_of_each() {
  awk '{ kind = index($0, "[GIN] ") > 0; place = kind " " seen[kind]++ % 4000; text[place] = $0; at[place] = NR }
    END { for (place in text) printf "%d\t%s\n", at[place], text[place] }' | sort -n | cut -f 2-
}
# When a server started, it said what it found.
read_logs() {
  begin started
  "$@" start 2>&1 | head -n 2000 | relevant head -n 100 | quoted
  end 0
  begin log
  # The status of what reads the log, beside what it says.
  { status=$({ { "$@" window 2>&1; echo $? >&3; } | relevant last_of_each | quoted >&4; } 3>&1); } 4>&1
  end "$status"
}
# shellcheck disable=SC2329 # read_logs calls both
logs_of_container() {
  case $2 in
  start) timeout -k 2 10 docker logs -t --since "$started" "$1" ;;
  *) timeout -k 2 10 docker logs -t --since "${minutes}m" "$1" ;;
  esac
}
# shellcheck disable=SC2329
logs_of_unit() {
  case $1 in
  start) timeout -k 2 10 journalctl -q --no-pager -u "$unit" -o short-unix "_PID=$process" ;;
  *) timeout -k 2 10 journalctl -q --no-pager -u "$unit" -o short-unix --since "-${minutes}min" ;;
  esac
}

# What the process $1 and those in its control group use, and the limits of that and those above.
measure() {
  first=$1
  unified=$(sed -n 's/^0:://p' "/proc/$first/cgroup" 2>/dev/null | head -n 1)
  legacy=$(sed -n 's/^[0-9]*:\(cpu\|cpu,cpuacct\|cpuacct,cpu\)://p' "/proc/$first/cgroup" 2>/dev/null | head -n 1)
  # What is in no group of its own shares one with everything else.
  case $unified in /) unified='' ;; esac
  case $legacy in /) legacy='' ;; esac
  begin usage
  for number in $({ cat "/sys/fs/cgroup${unified:-/none}/cgroup.procs" ||
    cat "/sys/fs/cgroup/cpu${legacy:-/none}/cgroup.procs" || echo "$first"; } 2>/dev/null | head -n 500); do
    sed -n -e 's/^VmRSS:[[:space:]]*\([0-9]*\) kB$/resident \1/p' \
      -e 's/^VmSwap:[[:space:]]*\([0-9]*\) kB$/swapped \1/p' "/proc/$number/status" 2>/dev/null
  done | quoted
  for stat in "/sys/fs/cgroup${unified:-/none}/cpu.stat" "/sys/fs/cgroup/cpu${legacy:-/none}/cpu.stat"; do
    sed -n -e 's/^nr_periods /periods /p' -e 's/^nr_throttled /throttled /p' "$stat" 2>/dev/null
  done | quoted
  while [ -n "$unified" ]; do
    printf 'quota %s\n' "$(read_line "/sys/fs/cgroup$unified/cpu.max")"
    printf 'memory %s\n' "$(read_line "/sys/fs/cgroup$unified/memory.max")"
    unified=${unified%/*}
  done | quoted
  end 0
}

# Inside the container, as its own user: whether the device files can be opened.
# shellcheck disable=SC2016 # the container's own
inner='for node in /dev/nvidia[0-9]* /dev/nvidiactl /dev/nvhost-*gpu /dev/nvmap /dev/kfd /dev/dri/renderD* /dev/dxg; do
  [ -e "$node" ] || continue
  if problem=$({ : <"$node"; } 2>&1); then echo "node $node"; else
    echo "node $node $(printf %s "$problem" | tr "\n" " ")"; fi
done
if command -v nvidia-smi >/dev/null 2>&1; then
  limit=; ! command -v timeout >/dev/null 2>&1 || limit="timeout 8"
  output=$($limit nvidia-smi -L 2>&1); echo "smi $? $(printf %s "$output" | head -c 500 | tr "\n" " ")"
fi
echo ran'

finish() {
  section complete true
  exit 0
}

# The process that listens on $port, or else the first server of Ollama's.
find_process() {
  process=$({ ss -Hltnp "sport = :$port" || ss -ltnp "sport = :$port"; } 2>/dev/null |
    sed -n 's/^.*[(,]pid=\([0-9]*\),.*$/\1/p' | head -n 1)
  # A published port is the engine's, and the server is in its container.
  case $process$(read_line "/proc/${process:-none}/comm") in
  '' | *docker-proxy | *rootlesskit | *rootlessport) ;;
  *) return 0 ;;
  esac
  # No such path holds blanks.
  # shellcheck disable=SC2013
  for file in $(grep -l ollama /proc/[0-9]*/cmdline 2>/dev/null); do
    case $({ tr '\000' ' ' <"$file"; } 2>/dev/null) in *ollama' serve '*) ;; *) continue ;; esac
    process=${file%/cmdline} process=${process#/proc/}
    return 0
  done
  return 1
}
on_host() {
  converse '' "$host" "$port"
  [ $here = yes ] && find_process || return 0
  begin process
  { tr '\000' '\n' <"/proc/$process/environ"; } 2>/dev/null | grep -E "^($settings)=" | quoted
  end 0
  measure "$process"
  unit=$(sed -n 's|^.*/\([A-Za-z0-9@_.:\\-]*\.service\)$|\1|p' "/proc/$process/cgroup" 2>/dev/null | head -n 1)
  [ -n "$unit" ] || return 0
  section unit printf '%s\n' "$unit"
  if has journalctl; then read_logs logs_of_unit; fi
}

# The variables that matter here; nothing else of an environment leaves the host.
settings='OLLAMA_(CONTEXT_LENGTH|NUM_PARALLEL|MAX_LOADED_MODELS|KEEP_ALIVE|KV_CACHE_TYPE|FLASH_ATTENTION|LLM_LIBRARY|NUM_CTX|NUM_THREAD|HOST)|LLAMA_ARG_(THREADS|CTX_SIZE|N_PARALLEL|N_GPU_LAYERS)|N_THREADS|N_CTX|N_GPU_LAYERS|([A-Z0-9_]*_)?(NUM_CTX|CONTEXT_LENGTH|CONTEXT_SIZE|KEEP_ALIVE)|NVIDIA_VISIBLE_DEVICES|CUDA_VISIBLE_DEVICES|HIP_VISIBLE_DEVICES|ROCR_VISIBLE_DEVICES|GGML_VK_VISIBLE_DEVICES|GPU_DEVICE_ORDINAL|NVIDIA_DRIVER_CAPABILITIES'

if [ -n "$host" ]; then
  on_host
  finish
fi
if ! has docker; then
  begin engine
  end 127
  finish
fi
# Clients before 25 know nothing of CDI, and print half of a row.
# shellcheck disable=SC2016 # the template's own
row='{{json .ServerVersion}},[{{range $name, $runtime := .Runtimes}}{{json $name}},{{end}}""],{{json .DefaultRuntime}},{{json .CgroupDriver}}'
answer=$(docker info --format "[$row,{{json .CDISpecDirs}}]" 2>/dev/null) ||
  answer=$(docker info --format "[$row,null]" 2>&1)
section engine printf '%s\n' "$answer"

compose=label=com.docker.compose
set -- --filter "$compose.service=$service" --filter "$compose.oneoff=False"
[ -z "$project" ] || set -- "$@" --filter "$compose.project=$project"
rows=$(docker ps -a --no-trunc "$@" --format '{{.State}} {{.ID}}' 2>/dev/null)
# Somebody else's container may bear the labels of a service.
# shellcheck disable=SC2046
own=$(made_by_compose docker $(printf '%s\n' "$rows" | sed -n 's/^[a-z]* \([0-9a-f]*\)$/\1/p'))
rows=$(printf '%s\n' "$rows" | grep -F -- "${own:-nothing}")
id=$(printf '%s\n' "$rows" | sed -n 's/^running \([0-9a-f]\{12,64\}\)$/\1/p' | head -n 1)
[ -n "$id" ] || id=$(printf '%s\n' "$rows" | sed -n 's/^[a-z]* \([0-9a-f]\{12,64\}\)$/\1/p' | head -n 1)
if [ -z "$id" ] && [ -z "$project" ]; then
  id=$(docker ps -a --no-trunc --filter "name=^/$service\$" --format '{{.ID}}' 2>/dev/null | head -n 1)
fi
[ -n "$id" ] || finish

# The server's own row, what is asked of it next, and its environment, which stays here.
inspected=$(docker inspect --format \
  '[{{json .Id}},{{json .Name}},{{json .State.Status}},{{json .Config.Image}},{{json .HostConfig.Runtime}},{{json .HostConfig.DeviceRequests}},{{json .HostConfig.Devices}},{{json .HostConfig.Privileged}},{{json .HostConfig.Memory}},{{json .HostConfig.NanoCpus}},{{json .HostConfig.CpuQuota}},{{json .HostConfig.CpuPeriod}},{{json .HostConfig.CpusetCpus}},{{json .Config.Entrypoint}},{{json .Config.Cmd}}]
{{json .State.Status}} {{json .State.StartedAt}} {{json .State.Pid}} {{json .HostConfig.NetworkMode}}{{range .NetworkSettings.Networks}} {{json .IPAddress}}{{end}}{{range .Config.Env}}
{{json .}}{{end}}' "$id" 2>/dev/null)
section container printf '%s\n' "${inspected%%"$newline"*}"
# shellcheck disable=SC2046 # ids are hexadecimal
others=$(docker inspect --format \
  '[{{json .Id}},{{json .Name}},{{json (index .Config.Labels "com.docker.compose.service")}},[{{range .NetworkSettings.Networks}}{{json .IPAddress}},{{json .GlobalIPv6Address}},{{end}}""],[{{range .NetworkSettings.Networks}}{{json .Gateway}},{{end}}""]]{{$id := .Id}}{{range .Config.Env}}
{{$id}} {{json .}}{{end}}' \
  "$id" $(docker ps -q --no-trunc 2>/dev/null | grep -x '[0-9a-f]*' | grep -vx "$id" | head -n 200) 2>/dev/null)
begin clients
printf '%s\n' "$others" | grep '^\[' | quoted
end 0
begin environment
printf '%s\n' "$others" | grep -E "^[0-9a-f]+ \"($settings)=[A-Za-z0-9_.,:/-]*\"\$" | quoted
end 0

words=$(printf '%s\n' "$inspected" | sed -n '2{s/"//g;p;}')
# shellcheck disable=SC2086
set -f && set -- $words && set +f
[ "$1" = running ] || finish
started=$2 process=$3 network=$4
shift 4
# A container on the host's network has no address of its own.
case $network in host) set -- 127.0.0.1 ;; esac

# What systemd knows of its control group it sets again whenever it reads its units.
if has systemctl; then
  begin scope
  timeout -k 2 10 systemctl show -p LoadState -p DevicePolicy -p DeviceAllow "docker-$id.scope" 2>/dev/null |
    head -n 1000 | quoted
  for node in /dev/nvidia[0-9]*; do
    numbers=$(stat -L -c '%t %T' "$node" 2>/dev/null) && printf 'Number=%s %s\n' "$node" "$numbers"
  done | quoted
  end 0
fi
if [ $hung = no ]; then
  begin inside
  printf '%s\n' "$inner" | timeout -k 2 20 docker exec -i "$id" sh -s 2>&1 | head -c 65536 | quoted
  end 0
fi
listens=$(printf '%s\n' "$inspected" | sed -n 's/^"OLLAMA_HOST=\(.*\)"$/\1/p' | tail -n 1)
listens=${listens##*:}
case $listens in '' | *[!0-9]*) listens=11434 ;; esac
scheme=http met=no
for address; do
  case $address in '' | *[!0-9a-fA-F:.]*) continue ;; esac
  converse '' "$address" "$listens" && met=yes && break
  [ $silent = no ] || break
done
[ $met$silent = nono ] && converse "$id" 127.0.0.1 "$listens"
case $process in '' | 0 | *[!0-9]*) ;; *) measure "$process" ;; esac
read_logs logs_of_container "$id"
finish
