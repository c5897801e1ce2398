# Print the far ends of connections to a port of a service's containers, as the kernel writes them.
# Arguments: the project, the service, the port.
# shellcheck disable=SC2154 # connection/own.sh
all=$(docker ps -q --no-trunc --filter "label=com.docker.compose.project=$1" \
  --filter "label=com.docker.compose.service=$2") || exit
port=$(printf '%04X' "$3")
# Word splitting is wanted: ids are hexadecimal.
# shellcheck disable=SC2086
for id in $(made_by_compose docker $all); do
  pid=$(docker container inspect --format '{{.State.Pid}}' "$id" </dev/null) || exit
  [ "$pid" -gt 0 ] || continue
  cat "/proc/$pid/net/tcp" "/proc/$pid/net/tcp6" 2>/dev/null |
    awk -v port=":$port" '$4 == "01" && substr($2, length($2) - 4) == port { print $3 }' | head -n 100
done
