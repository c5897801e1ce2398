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
    /^core id/ { cores[package "/" $2] }
    /^model name/ && !named++ { print "model " $2 }
    /^flags/ && !listed++ { count = split($2, all, " "); line = "flags"
      for (i = 1; i <= count; i++) if (all[i] ~ /^(avx|avx2|avx512f|f16c|fma)$/) line = line " " all[i]
      print line }
    END { for (core in cores) physical++; print "processors " processors + 0; print "cores " physical + 0 }
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

if has nvidia-smi; then
  section smi timeout -k 2 10 nvidia-smi \
    --query-gpu=driver_version,memory.total,memory.used,name --format=csv,noheader,nounits
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
converse() {
  answer=$(ask version "$@" version)
  printf '%s\n' "$answer"
  case $answer in *'|HTTP/1.'* | *'|{"version"'*) ;; *) return 1 ;; esac
  [ -n "$1" ] || section reached printf '%s %s\n' "$2" "$3"
  ask tags "$@" tags
  count=1
  while :; do
    swapped $count
    ask ps "$@" "ps $count"
    [ "$count" -lt "$samples" ] || break
    count=$((count + 1))
    sleep 1
  done
}

# What of a log matters here; a line may be as long as somebody's prompt.
interesting='\[GIN\] |msg="?(starting (llama|runner|llama-server)|load |load"|llama runner started|llama-server started|server config|inference compute|no compatible GPUs|dropping|evict|model requires more|llama-server model predicted)|evicting|runner process (no longer|has terminated)|llama-server (terminated|process no longer)|offloaded [0-9]+/[0-9]+ layers|[Cc][Uu][Dd][Aa] driver|(cuda|rocm|amdgpu|nvml|NVML).*(error|fail|unable|not found)'
relevant() { tr -d '\000' | cut -c 1-2000 | grep -E "$interesting" | "$@" | head -c 2097152; }
# When a server started, it said what it found.
read_logs() {
  begin started
  "$@" start 2>&1 | head -n 2000 | relevant head -n 100 | quoted
  end 0
  begin log
  "$@" window 2>&1 | tail -n 50000 | relevant tail -n 5000 | quoted
  end 0
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
  start) timeout -k 2 10 journalctl -q --no-pager -u ollama -o short-unix "_PID=$process" ;;
  *) timeout -k 2 10 journalctl -q --no-pager -u ollama -o short-unix --since "-${minutes}min" ;;
  esac | sed 's/^\([0-9.]*\) [^ ]* [^ ]*: /\1 /'
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
inner='for node in /dev/nvidia[0-9]* /dev/nvidiactl /dev/kfd /dev/dri/renderD* /dev/dxg; do
  [ -e "$node" ] || continue
  if problem=$({ : <"$node"; } 2>&1); then echo "node $node"; else
    echo "node $node $(printf %s "$problem" | tr "\n" " ")"; fi
done
if command -v nvidia-smi >/dev/null 2>&1; then
  output=$(nvidia-smi -L 2>&1); echo "smi $? $(printf %s "$output" | head -c 500 | tr "\n" " ")"
fi
echo ran'

finish() {
  section complete true
  exit 0
}

on_host() {
  converse '' "$host" "$port"
  # No such path holds blanks.
  # shellcheck disable=SC2013
  for file in $(grep -l ollama /proc/[0-9]*/cmdline 2>/dev/null); do
    case $({ tr '\000' ' ' <"$file"; } 2>/dev/null) in *ollama' serve '*) ;; *) continue ;; esac
    process=${file%/cmdline} process=${process#/proc/}
    begin process
    { tr '\000' '\n' <"/proc/$process/environ"; } 2>/dev/null | grep -E "^($settings)=" | quoted
    end 0
    measure "$process"
    if has journalctl; then read_logs logs_of_unit; fi
    break
  done
}

# The variables that matter here; nothing else of an environment leaves the host.
settings='OLLAMA_(CONTEXT_LENGTH|NUM_PARALLEL|MAX_LOADED_MODELS|KEEP_ALIVE|KV_CACHE_TYPE|FLASH_ATTENTION|LLM_LIBRARY|NUM_CTX|NUM_THREAD|HOST)|LLAMA_ARG_(THREADS|CTX_SIZE|N_PARALLEL|N_GPU_LAYERS)|N_THREADS|N_CTX|N_GPU_LAYERS|([A-Z0-9_]*_)?(NUM_CTX|CONTEXT_LENGTH|CONTEXT_SIZE|KEEP_ALIVE)|NVIDIA_VISIBLE_DEVICES|CUDA_VISIBLE_DEVICES|HIP_VISIBLE_DEVICES|ROCR_VISIBLE_DEVICES'

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
row='{{json .ServerVersion}},[{{range $name, $runtime := .Runtimes}}{{json $name}},{{end}}""],{{json .DefaultRuntime}}'
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

begin inside
printf '%s\n' "$inner" | timeout -k 2 20 docker exec -i "$id" sh -s 2>&1 | head -c 65536 | quoted
end 0
listens=$(printf '%s\n' "$inspected" | sed -n 's/^"OLLAMA_HOST=\(.*\)"$/\1/p' | tail -n 1)
listens=${listens##*:}
case $listens in '' | *[!0-9]*) listens=11434 ;; esac
scheme=http met=no
for address; do
  case $address in '' | *[!0-9a-fA-F:.]*) continue ;; esac
  converse '' "$address" "$listens" && met=yes && break
done
[ $met = yes ] || converse "$id" 127.0.0.1 "$listens"
case $process in '' | 0 | *[!0-9]*) ;; *) measure "$process" ;; esac
read_logs logs_of_container "$id"
finish
