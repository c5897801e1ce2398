# What a project's running containers say of the models that they serve, and where a move stands.
# Changes nothing. Writes sections (connection/frame.sh). Arguments: the project, its state directory.
# shellcheck disable=SC2154 # connection/own.sh and frame.sh set them
project=$1 state=$2

# The processes of containers: "FIRST PID", where FIRST is the container's own first process. Those
# that share the host's numbers are known by nothing but that one.
members() {
  {
    printf '%s\n' "$inspected" | sed -n 's/^ *"Pid": \([1-9][0-9]*\),*$/first \1/p'
    stat -L -c '%i %n' /proc/self/ns/pid /proc/[0-9]*/ns/pid 2>/dev/null
  } | awk '
    $1 == "first" { first[$2] = 1; next }
    { split($2, part, "/"); space[part[3]] = $1 }
    END {
      for (pid in first) if (pid in space) {
        if (space[pid] == space["self"]) print pid, pid
        else owner[space[pid]] = pid
      }
      for (pid in space) if (pid != "self" && space[pid] in owner) print owner[space[pid]], pid
    }'
}
# What a path leads to below another root: an absolute link there is one of that root.
resolve() {
  at=$2
  for _ in 1 2 3 4 5 6 7 8; do
    to=$(readlink -- "$1$at") || break
    case $to in /*) at=$to ;; *) at=${at%/*}/$to ;; esac
  done
  printf '%s' "$1$at"
}
# Of each: libraries that it has mapped ("FIRST<tab>library<tab>PATH"), and the model files that its
# command, its environment and its memory name ("FIRST<tab>file<tab>BYTES<tab>INODE<tab>PATH").
processes() {
  members | head -n 2000 | while read -r first pid; do
    maps=$(cut -c 1-4096 "/proc/$pid/maps" 2>/dev/null | sed -n 's|^[^/]*\(/.*\)$|\1|p' | sort -u)
    printf '%s\n' "$maps" | grep -E '/(lib(llama|ggml)[^/]*\.so|xllamacpp[^/]*\.so)|/llama_cpp/.*\.so' |
      head -n 5 | while IFS= read -r path; do printf '%s\tlibrary\t%s\n' "$first" "$path"; done
    cwd=$(readlink "/proc/$pid/cwd" 2>/dev/null)
    {
      tr '\000' '\n' <"/proc/$pid/cmdline"
      tr '\000' '\n' <"/proc/$pid/environ"
      printf '%s\n' "$maps"
    } 2>/dev/null | sed -n 's/^-*[A-Za-z_][A-Za-z_-]*=//; /\.[gG][gG][uU][fF]$/p' | sort -u | head -n 20 |
      while IFS= read -r path; do
        case $path in /*) ;; *) path=${cwd%/}/$path ;; esac
        sized=$(stat -c '%s %d:%i' -- "$(resolve "/proc/$pid/root" "$path")" 2>/dev/null)
        sized=${sized:-0 -}
        printf '%s\tfile\t%s\t%s\t%s\n' "$first" "${sized% *}" "${sized#* }" "$path"
      done
  done
}

# The project's running containers, and what the engine says of them.
listed() {
  ids='' inspected=''
  all=$(docker ps -q --no-trunc --filter "label=com.docker.compose.project=$project" 2>/dev/null </dev/null) ||
    return
  # Word splitting is wanted: ids are hexadecimal.
  # shellcheck disable=SC2086
  ids=$(made_by_compose docker $all)
  [ -n "$ids" ] || return 0
  # shellcheck disable=SC2086
  inspected=$(docker container inspect $ids 2>/dev/null </dev/null)
}
[ -f "$state/move.json" ] && section record head -c 262145 "$state/move.json"
[ -f "$state/layer.yaml" ] && section layer head -c 65537 "$state/layer.yaml"
if command -v docker >/dev/null 2>&1; then
  # A container may be gone between the two questions.
  listed || listed
  status=$?
  begin engine
  end $status
  section volumes docker volume ls -q --filter "name=${project}_stackmend-ollama"
  if [ -n "$ids" ]; then
    begin containers
    printf '%s\n' "$inspected" | quoted
    end $status
    # shellcheck disable=SC2046
    section images docker image inspect --format '[{{json .ID}},{{json .Config.Labels}}]' \
      $(printf '%s\n' "$inspected" | sed -n 's/^ *"Image": "\(sha256:[0-9a-f]\{64\}\)",*$/\1/p' | sort -u)
    section processes processes
    section memory grep -w MemAvailable /proc/meminfo
    if [ -e /dev/nvidia0 ]; then
      section gpu docker info --format '{{json .Runtimes}}'
      section vram timeout 10 nvidia-smi --query-gpu=memory.free --format=csv,noheader,nounits
    fi
    root=$(docker info --format '{{.DockerRootDir}}' 2>/dev/null </dev/null)
    section free df -kP "${root:-/var/lib/docker}"
  fi
fi
section read true
