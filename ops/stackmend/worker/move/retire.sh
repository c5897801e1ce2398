# Stop a service's containers so that neither the engine nor a reboot starts them again; volumes are
# kept. Fails where one of them runs afterwards. Arguments: the project, the service, whether the
# containers are removed (yes|no).
# shellcheck disable=SC2154 # connection/own.sh
listed() {
  docker ps -q --no-trunc "$@" --filter "label=com.docker.compose.project=$project" \
    --filter "label=com.docker.compose.service=$service" --filter label=com.docker.compose.oneoff=False
}
project=$1 service=$2 remove=$3
all=$(listed -a) || exit
# Word splitting is wanted: ids are hexadecimal.
# shellcheck disable=SC2086
ids=$(made_by_compose docker $all)
for id in $ids; do
  docker update --restart=no "$id" >/dev/null || exit
  docker stop "$id" >/dev/null || exit
  [ "$remove" != yes ] || docker rm "$id" >/dev/null || exit
done
# A busy engine shows one as running for a moment after it has ended it.
tries=0
while left=$(listed) || exit; [ -n "$left" ] && [ "$tries" -lt 10 ]; do
  sleep 1
  tries=$((tries + 1))
done
if [ -n "$left" ]; then
  echo "containers of $service run still: $left" >&2
  exit 1
fi
