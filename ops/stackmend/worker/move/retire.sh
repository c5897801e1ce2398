# Stop a service's containers so that neither the engine nor a reboot starts them again; volumes are
# kept. Arguments: the project, the service, whether the containers are removed (yes|no).
# shellcheck disable=SC2046,SC2154 # ids are hexadecimal; connection/own.sh
ids=$(made_by_compose docker $(docker ps -aq --no-trunc \
  --filter "label=com.docker.compose.project=$1" --filter "label=com.docker.compose.service=$2" \
  --filter label=com.docker.compose.oneoff=False))
for id in $ids; do
  docker update --restart=no "$id" >/dev/null || exit
  docker stop "$id" >/dev/null || exit
  [ "$3" != yes ] || docker rm "$id" >/dev/null || exit
done
