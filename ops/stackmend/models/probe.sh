# What this host knows of a model server, in one reading. Changes nothing.
# Writes sections (connection/frame.sh). Arguments: the Compose project, the service or nothing,
# scheme, address and port of an endpoint, whether contents are hashed (yes|no), the record of what
# was pulled, the texts of checks/attempt.sh and of frame.sh with store.sh, the latter's own mark.
project=$1 service=$2 scheme=$3 host=$4 port=$5 hashes=$6 record=$7 attempt=$8 store=$9
shift 9
inner=$1
LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin
export LC_ALL PATH

has() { command -v "$1" >/dev/null 2>&1; }

section clock date +%s
[ ! -e "$record" ] || section record cat "$record"

newline='
'
tab=$(printf '\t')
# The most that is read of an answer, and of what a directory holds.
most=33554432

# The server's answer to GET /api/$1, asked in the container $2 or, where that is empty, on the host.
ask() {
  case $3 in
    *:*) authority="[$3]:$4" ;;
    *) authority="$3:$4" ;;
  esac
  begin "api $1"
  # The end of standard error, and as the last line the exit status.
  { output=$({ { attempt "$@" 2>&4; printf '\n%s' $? >&4; } | head -c $most | quoted >&3; } 4>&1 | tail -c 65536); } 3>&1
  asked=${output##*"$newline"} output=${output%"$newline"*}
  end "$asked"
  section "said $1" printf '%s\n' "$output"
  return "$asked"
}

attempt() {
  if [ -n "$2" ]; then
    printf '%s\n' "$attempt" | docker exec -i "$2" sh -s -- http 10 GET \
      "$scheme://$authority/api/$1" "$3" "$4" "/api/$1" no
  else
    sh -c "$attempt" attempt http 10 GET \
      "$scheme://$authority/api/$1" "$3" "$4" "/api/$1" no </dev/null
  fi
}

# All that is asked of a server; $1 is the container or nothing, then address and port.
converse() {
  ask version "$@" || return
  section reached printf '%s %s %s\n' "$2" "$3" "$1"
  ask ps "$@"
  ask tags "$@"
  return 0
}

# The models' directory as the host sees it, if it can be read there; else inside the container $2.
# What a container prints has frames of its own, and is quoted here as one text.
read_store() {
  if [ -n "$1" ] && [ -d "$1" ] && [ -x "$1" ] && [ -r "$1" ] &&
    { [ ! -e "$1/blobs" ] || [ -x "$1/blobs" ]; }; then
    section "directory" printf '%s\n' "$1"
    begin stored
    # shellcheck disable=SC2034 # the store's frames are marked with it
    (mark=$inner && set -- "$1" "$hashes" && eval "$store") | quoted
    end 0
  elif [ -n "$2" ]; then
    section "directory in $2" printf '%s\n' "$3"
    begin stored
    printf 'mark=%s\n%s\n' "$inner" "$store" | docker exec -i "$2" sh -s -- "$3" "$hashes" 2>/dev/null |
      head -c $most | quoted
    end 0
  fi
}

# One "KEY VALUE..." a line, the values as JSON: what an image sets may hold any character. A value
# that JSON has to escape (a quote, a backslash, a control character) is as good as none.
# shellcheck disable=SC2016 # the template's own
shape='{{println "name" (json .Name)}}{{println "state" (json .State.Status)}}{{println "started" (json .State.StartedAt)}}{{println "memory" (json .HostConfig.Memory)}}{{with .State.Health}}{{println "health" (json .Status)}}{{end}}{{println "user" (json .Config.User)}}{{println "network" (json .HostConfig.NetworkMode)}}{{range .NetworkSettings.Networks}}{{println "address" (json .IPAddress)}}{{println "address" (json .GlobalIPv6Address)}}{{end}}{{range $inner, $outer := .NetworkSettings.Ports}}{{range $outer}}{{println "published" (json $inner) (json .HostIP) (json .HostPort)}}{{end}}{{end}}{{range .Mounts}}{{println "mount" (json .Destination) (json .Source)}}{{end}}{{range .Config.Env}}{{println "env" (json .)}}{{end}}'

of() { printf '%s\n' "$inspected" | sed -n "s/^$1 \"\([^\"\\\\]*\)\"\$/\1/p"; }

# The ends outside of a published port: address and port.
ends() {
  printf '%s\n' "$inspected" | sed -n "s,^published \"$1\" \"\([0-9a-fA-F:.]*\)\" \"\([0-9]*\)\"\$,\1 \2,p"
}

no_engine() {
  begin engine
  printf '%s\n' "$1" | quoted
  end 1
}

in_container() {
  id=$1
  inspected=$(docker inspect --format "$shape" "$id" 2>&1) || {
    no_engine "$inspected"
    return
  }
  # Nothing of the environment is printed: it may be secret.
  begin "container $id"
  printf '%s\n' "$inspected" | grep -E '^(name|state|health|started|memory) ' | quoted
  end 0
  proxy=$(of env | sed -n 's/^[Hh][Tt][Tt][Pp][Ss]_[Pp][Rr][Oo][Xx][Yy]=//p' | head -n 1)
  # A proxy's address may hold a password.
  [ -z "$proxy" ] || section proxy printf '%s\n' "${proxy##*@}"
  state=$(of state)
  listens=$(of env | sed -n 's/^OLLAMA_HOST=//p' | tail -n 1)
  listen=${listens##*:}
  case $listen in
    '' | *[!0-9]*) listen=11434 ;;
  esac
  home=$(of env | sed -n 's/^HOME=//p' | tail -n 1)
  if [ -z "$home" ]; then
    home=/root
    case $(of user) in
      '' | root | 0 | root:* | 0:*) ;;
      *)
        # shellcheck disable=SC2016 # the container's own
        [ "$state" != running ] || home=$(docker exec "$id" sh -c 'printf %s "$HOME"' 2>/dev/null)
        ;;
    esac
  fi
  inside=$(of env | sed -n 's/^OLLAMA_MODELS=//p' | tail -n 1)
  inside=${inside:-$home/.ollama/models}
  if [ "$state" = running ]; then
    scheme=http
    network=$(of network)
    addresses=$(of address)
    case $network in
      host) addresses=127.0.0.1 ;;
      container:*) addresses=$(docker inspect --format \
        '{{range .NetworkSettings.Networks}}{{println .IPAddress}}{{end}}' \
        "${network#container:}" 2>/dev/null) ;;
    esac
    met=no
    for address in $addresses; do
      case $address in
        *[!0-9a-fA-F:.]*) continue ;;
      esac
      converse '' "$address" "$listen" && met=yes && break
    done
    if [ $met = no ]; then
      published=$(ends "$listen/tcp" | sed 's/^0\.0\.0\.0 /127.0.0.1 /;s/^:: /::1 /')
      while read -r address outer; do
        [ -n "$outer" ] || continue
        converse '' "$address" "$outer" && met=yes && break
      done <<ENDS
$published
ENDS
    fi
    [ $met = yes ] || converse "$id" 127.0.0.1 "$listen"
  fi
  # The closest mount above the directory says which directory of the host it is.
  outside=''
  case $inside in
    */../* | */.. | */./* | */. | *//*) ;;
    /*) outside=$(printf '%s\n' "$inspected" |
      sed -n 's/^mount "\([^"\\]*\)" "\([^"\\]*\)"$/\1\t\2/p' | awk -F '\t' -v inside="$inside" '
        { if (index(inside "/", $1 "/") == 1 && length($1) >= best) {
            best = length($1); found = $2 "\t" $2 substr(inside, length($1) + 1) } }
        END { print found }') ;;
  esac
  # A link that the container has made leads out of it on the host.
  source=$(readlink -f -- "${outside%%"$tab"*}") outside=$(readlink -f -- "${outside##*"$tab"}")
  case $outside in
    "$source" | "$source"/*) ;;
    *) outside='' ;;
  esac
  if [ "$state" = running ]; then
    read_store "$outside" "$id" "$inside"
  else
    read_store "$outside" '' ''
  fi
}

# Whether a process is a container's: its control group says so, below the host's own tree, because
# the host may be a container of another machine. A unit may have a mount namespace of its own, too.
contained() {
  above=$(group 1)
  above=${above%/init.scope}
  below=$(group "$1")
  case $below/ in
    "${above:-/}"/*) below=${below#"$above"} ;;
  esac
  container=$(printf '%s\n' "$below" | grep -oE '[0-9a-f]{64}' | tail -n 1)
  [ -n "$container" ] || printf '%s\n' "$below" | grep -qE '/(lxc(\.payload)?|machine\.slice)[./]'
}

# In systemd's hierarchy, or in the only one there is.
group() {
  awk -F : '$2 == "name=systemd" { named = $3 } $1 == 0 { unified = $3 } { other = $3 }
    END { print (length(named) > 1 ? named : length(unified) > 1 ? unified : other) }' \
    "/proc/$1/cgroup" 2>/dev/null
}

# The most memory that a process may take, empty where nothing says so.
memory() {
  file=$(awk -F : '$2 ~ /(^|,)memory(,|$)/ { own = $3 } $1 == 0 { unified = $3 }
    END { print length(own) ? "memory" own "/memory.limit_in_bytes" : unified "/memory.max" }' \
    "/proc/$1/cgroup" 2>/dev/null)
  grep -x '[0-9]\{1,15\}' "/sys/fs/cgroup/$file" 2>/dev/null
}

# What is another one for each process, even where its number was used before, and for each limit.
started() {
  cat /proc/sys/kernel/random/boot_id
  printf '%s\n' "${1#/proc/}"
  sed 's/.*) //' "$1/stat" | cut -d ' ' -f 20
  memory "${1#/proc/}"
}

# A server that is a process of the host: what its environment says, else where packages put it.
on_host() {
  own=$(readlink /proc/self/ns/net 2>/dev/null)
  directory='' server='' container=''
  # No such path holds blanks.
  # shellcheck disable=SC2013
  for file in $(grep -l ollama /proc/[0-9]*/cmdline 2>/dev/null); do
    process=${file%/*}
    case $({ tr '\000' ' ' <"$file"; } 2>/dev/null) in
      *ollama' serve '*) ;;
      *) continue ;;
    esac
    net=$(readlink "$process/ns/net" 2>/dev/null)
    [ "${net:-$own}" = "$own" ] || continue
    variables=$({ tr '\000' '\n' <"$process/environ"; } 2>/dev/null)
    heard=$(printf '%s\n' "$variables" | sed -n 's/^OLLAMA_HOST=//p')
    heard=${heard##*:}
    case $heard in
      '' | *[!0-9]*) heard=11434 ;;
    esac
    # Of another user's process nothing else is known.
    [ "$heard" = "$port" ] || [ -z "$variables" ] || continue
    if contained "${process#/proc/}"; then
      # One that has no network of its own publishes no port.
      if [ -n "$container" ] && docker inspect "$container" >/dev/null 2>&1; then
        converse() { :; }
        in_container "$container"
        return
      fi
      continue
    fi
    server=$process
    section process started "$process"
    directory=$(printf '%s\n' "$variables" | sed -n 's/^OLLAMA_MODELS=//p' | head -n 1)
    home=$(printf '%s\n' "$variables" | sed -n 's/^HOME=//p' | head -n 1)
    [ -n "$directory" ] || directory=${home:+$home/.ollama/models}
    # Anybody may call a process so: what it names has to be its own.
    uid=$(stat -c %u "$process")
    [ "$uid" = 0 ] || [ "$(stat -L -c %u "$process/root$directory" 2>/dev/null)" = "$uid" ] ||
      directory=''
    proxy=$(printf '%s\n' "$variables" | sed -n 's/^[Hh][Tt][Tt][Pp][Ss]_[Pp][Rr][Oo][Xx][Yy]=//p' |
      head -n 1)
    [ -z "$proxy" ] || section proxy printf '%s\n' "${proxy##*@}"
    break
  done
  if [ -n "$server" ]; then
    [ -n "$directory" ] || return
    # What it sees under this path may be another directory than ours.
    outside=$(stat -L -c %d:%i "$server/root$directory" 2>/dev/null)
    if [ -n "$outside" ] && [ "$outside" != "$(stat -L -c %d:%i "$directory" 2>/dev/null)" ]; then
      section within printf '%s\n%s\n' "${server#/proc/}" "$directory"
      directory=$server/root$directory
    fi
    read_store "$directory" '' ''
    return
  fi
  for place in "${OLLAMA_MODELS-}" /usr/share/ollama/.ollama/models /var/lib/ollama/.ollama/models \
    /var/lib/ollama/models "${HOME-/root}/.ollama/models"; do
    [ -z "$directory" ] && [ -n "$place" ] || continue
    [ ! -d "$place/manifests" ] && [ ! -d "$place/blobs" ] || directory=$place
  done
  [ -z "$directory" ] || read_store "$directory" '' ''
}

is_here() {
  case $1 in
    127.* | localhost | ::1) return 0 ;;
  esac
  { ip -o addr show 2>/dev/null || hostname -I 2>/dev/null; } | tr '/' ' ' | grep -qF -- " $1 "
}

# The containers of a kind, those that run first; the filters are Docker's.
containers() {
  docker ps -a --no-trunc "$@" --format '{{.State}} {{.ID}}' 2>&1
}

first() {
  printf '%s\n' "$rows" | sed -n 's/^running \([0-9a-f]\{12,64\}\)$/\1/p' | head -n 1
  printf '%s\n' "$rows" | sed -n 's/^[a-z]* \([0-9a-f]\{12,64\}\)$/\1/p' | head -n 1
}

compose=label=com.docker.compose
if [ -n "$host" ]; then
  found=''
  if is_here "$host" && has docker; then
    rows=$(containers --filter "publish=$port") && found=$(first | head -n 1)
  fi
  converse '' "$host" "$port"
  if [ -n "$found" ]; then
    inspected=$(docker inspect --format "$shape" "$found" 2>/dev/null)
    # Only the port on the host is the endpoint's; the filter takes the container's for it, too.
    ends '[^"]*' | grep -q " $port\$" || found=''
  fi
  if [ -n "$found" ]; then
    # It has answered already: only the directory of its models is missing.
    converse() { :; }
    in_container "$found"
  elif is_here "$host"; then
    on_host
  fi
elif ! has docker; then
  begin engine
  end 127
else
  set -- --filter "$compose.service=$service" --filter "$compose.oneoff=False"
  [ -z "$project" ] || set -- "$@" --filter "$compose.project=$project"
  if rows=$(containers "$@"); then
    # Somebody else's container may bear the labels of a service.
    # shellcheck disable=SC2046
    own=$(made_by_compose docker $(printf '%s\n' "$rows" | sed -n 's/^[a-z]* \([0-9a-f]*\)$/\1/p'))
    rows=$(printf '%s\n' "$rows" | grep -F -- "${own:-nothing}")
    found=$(first | head -n 1)
    if [ -z "$found$project" ]; then
      rows=$(containers --filter "name=^/$service\$") && found=$(first | head -n 1)
    fi
    section engine true
    [ -z "$found" ] || in_container "$found"
  else
    no_engine "$rows"
  fi
fi

# The models that the environment of the project's containers names. Of variables that any program
# may have, only those of a service that speaks to a model server count.
if [ -n "$project" ] && has docker; then
  begin named
  # Word splitting is wanted: ids are hexadecimal.
  # shellcheck disable=SC2046
  set -- $(made_by_compose docker \
    $(docker ps -aq --no-trunc --filter "$compose.project=$project" 2>/dev/null))
  [ $# -eq 0 ] || docker inspect --format \
    '{{$id := .Id}}{{$of := index .Config.Labels "com.docker.compose.service"}}{{range .Config.Env}}{{println $id "[" (json .) "," (json $of) "]"}}{{end}}' \
    "$@" 2>/dev/null | awk -v server="//$service:" '
      { rest = substr($0, length($1) + 5); at = index(rest, "="); if (!at) next
        name = substr(rest, 1, at - 1); value = substr(rest, at + 1); row = substr($0, length($1) + 2)
        if (index(value, server) || index(value, ":11434")) speaks[$1] = 1
        if (name ~ /^OLLAMA_([A-Z0-9_]*_)?MODEL(_NAME)?$/) print row
        else if (name ~ /^([A-Z0-9_]*_)?MODEL(_NAME|S)?$/ && name !~ /^OLLAMA_/) {
          later[++n] = row; whose[n] = $1 } }
      END { for (i = 1; i <= n; i++) if (whose[i] in speaks) print later[i] }' | quoted
  end 0
fi
section complete true
