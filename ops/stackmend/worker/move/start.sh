# Start a service's containers that were stopped. Arguments: the project, the service.
# shellcheck disable=SC2046,SC2154 # ids are hexadecimal; connection/own.sh
ids=$(made_by_compose docker $(docker ps -aq --no-trunc \
  --filter "label=com.docker.compose.project=$1" --filter "label=com.docker.compose.service=$2" \
  --filter label=com.docker.compose.oneoff=False))
if [ -z "$ids" ]; then
  # Compose makes it again.
  exit 0
fi
for id in $ids; do
  docker start "$id" >/dev/null || exit
done
