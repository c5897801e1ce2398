# Engines and their containers, for probe.sh.
# shellcheck shell=sh
# shellcheck disable=SC2034,SC2154 # probe.sh begins with it, and shares its variables
# What an engine runs that concerns the desired ports. $1: its name here; the rest: its client.
# A container without a network of its own may hold any port of the host. Labels may come from its
# image: those of the images are printed as well.
# shellcheck disable=SC2016
shape='[{{json .Image}},{{json .ID}},{{json .Name}},{{json .State.Status}},{{.State.Pid}},{{json .HostConfig.RestartPolicy.Name}},{{json .HostConfig.NetworkMode}},{{json .NetworkSettings.Ports}}'
label='{{json (index .Config.Labels "com.docker.compose'
for name in project service project.working_dir oneoff project.config_files container-number config-hash image; do
  shape="$shape,$label.$name\")}}"
done
shape="$shape,{{json .HostConfig.PortBindings}}]"
ask_engine() {
  engine=$1
  shift
  rows=$("$@" ps --no-trunc --format '{{.ID}}|{{.State}}|{{.Ports}}|{{.Networks}}' 2>&1 </dev/null)
  status=$?
  begin "engine $engine"
  if [ $status -eq 0 ]; then echo up; else printf '%s\n' "$rows"; fi | quoted
  end $status
  [ $status -eq 0 ] || return 0
  ids=$(printf '%s\n' "$rows" | awk -F '|' -v ranges="$ranges" '
    BEGIN { count = split(ranges, range, " ") }
    function overlaps(first, last,  i, ends) {
      for (i = 1; i <= count; i++) {
        split(range[i], ends, "-")
        if (first <= ends[2] + 0 && last >= ends[1] + 0) return 1
      }
      return 0
    }
    NF > 3 && $1 ~ /^[0-9a-f]+$/ {
      networks = substr($0, length($1) + length($2) + length($3) + 4)
      # One that is restarted has its ports again before it is listed with them.
      take = networks == "" || networks == "host" || $2 == "restarting"
      n = split($3, published, ", ")
      for (i = 1; i <= n && !take; i++) {
        if (!(at = index(published[i], "->"))) continue
        port = substr(published[i], 1, at - 1)
        sub(/^.*:/, "", port)
        two = split(port, ends, "-")
        take = overlaps(ends[1] + 0, ends[two] + 0)
      }
      if (take) print $1
    }')
  [ -n "$ids" ] || return 0
  # shellcheck disable=SC2086
  rows=$("$@" container inspect --format "$shape" $ids 2>&1 </dev/null)
  status=$?
  begin "containers $engine"
  printf '%s\n' "$rows" | quoted
  end $status
  # An image may be gone, and is then not printed.
  begin "images $engine"
  # shellcheck disable=SC2046
  "$@" image inspect --format "[{{json .Id}},$label.project\")}},$label.config-hash\")}}]" \
    $(printf '%s\n' "$rows" | sed -n 's/^\["\([0-9a-fhs:]*\)",.*/\1/p' | sort -u) \
    </dev/null 2>/dev/null | quoted
  end 0
}

ask_engines() {
  has docker || return 0
  # shellcheck disable=SC2086
  ask_engine docker docker
  # shellcheck disable=SC2086
  [ $system != wsl ] ||
    section desktop docker info --format '{{.OperatingSystem}}' </dev/null
}
# Engines other than the default one: further daemons of Docker, and podman, root's and users' own.
# The words of $limit and of lists are split; /proc shows its owners to ls as well as to find.
# shellcheck disable=SC2086,SC2020,SC2012
ask_further_engines() {
  found=$(set +f; printf '%s\n' /proc/[0-9]*/comm |
    xargs grep -sHx -e dockerd -e conmon /dev/null)
  # The default engine has been asked already.
  default='' here=$(readlink /proc/self/ns/mnt)
  [ ! -r /run/docker.pid ] || read -r default </run/docker.pid
  sockets=' /var/run/docker.sock /run/docker.sock ' people=' ' mute=' '
  for file in $found; do
    pid=${file#/proc/}
    pid=${pid%%/*}
    [ "$pid" != "$default" ] || continue
    owner=$(ls -dln "/proc/$pid" 2>/dev/null | awk '{ print $3 }')
    case "$file" in
      *:dockerd)
        # Anybody may call a process so: where root connects to, root or we decide, and here.
        has docker && { [ "$owner" = 0 ] || [ "$owner" = "$me" ]; } &&
          [ "$(readlink "/proc/$pid/ns/mnt")" = "$here" ] || continue
        words=$(tr '\000' '\n' <"/proc/$pid/cmdline" 2>/dev/null)
        config=$(printf '%s\n' "$words" |
          sed -n '/^--config-file$/{n;p;}; s/^--config-file=//p' | tail -n 1)
        [ ! -f "$config" ] || [ ! -r "$config" ] || words="$words
$(head -c 65536 "$config" | tr '",' '\n\n')"
        paths=$(printf '%s\n' "$words" | sed -n 's/^.*unix:\/\///p')
        [ -n "$paths" ] || [ "$owner" = 0 ] || paths=/run/user/$owner/docker.sock
        for path in $paths; do
          case "$path" in *[!A-Za-z0-9/._@+-]*) continue ;; esac
          case "$sockets" in *" $path "*) continue ;; esac
          sockets="$sockets$path "
          [ ! -S "$path" ] || ask_engine "docker:unix://$path" $limit docker -H "unix://$path"
        done
        ;;
      *:conmon)
        case "$mute" in *" $owner "*) pids="$pids $pid" ;; esac
        case "$people" in *" $owner "*) continue ;; esac
        people="$people$owner " status=1
        if [ "$owner" = 0 ]; then
          ask_engine podman $limit podman
        elif login=$(find_login "$owner") && [ -n "$login" ]; then
          ask_engine "podman:$login" as "$owner" "$login" $limit podman
        fi
        # What started its containers stands for what cannot be asked.
        [ $status -eq 0 ] || mute="$mute$owner " pids="$pids $pid"
        ;;
    esac
  done
}

# Every container of the default engine, as it is now that its proxies have been seen: one that
# crashes is listed without its ports, or not at all, at one moment or the other.
# shellcheck disable=SC2086
inspect_again() {
  has docker || return 0
  for pid in $pids; do
    name=''
    [ ! -r "/proc/$pid/comm" ] || read -r name <"/proc/$pid/comm"
    [ "$name" = docker-proxy ] || continue
    ids=$(docker ps --all --quiet --no-trunc </dev/null 2>/dev/null)
    [ -z "$ids" ] || section 'later docker' \
      docker container inspect --format "$shape" $ids </dev/null
    return
  done
}
