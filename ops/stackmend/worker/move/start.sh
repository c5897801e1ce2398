# Start a service's containers that were stopped. Arguments: the project, the service.
# shellcheck disable=SC2154 # connection/own.sh
all=$(docker ps -aq --no-trunc --filter "label=com.docker.compose.project=$1" \
  --filter "label=com.docker.compose.service=$2" --filter label=com.docker.compose.oneoff=False) || exit
# Word splitting is wanted: ids are hexadecimal.
# shellcheck disable=SC2086
for id in $(made_by_compose docker $all); do
  docker start "$id" >/dev/null || exit
done
