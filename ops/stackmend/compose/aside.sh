# Take a foreign container out of the way, with all that is in it. Arguments: the project that needs
# the place, the container's name or id, the name that it has aside.
project=$1 container=$2 aside=$3
inspected=$(docker container inspect --format \
  '{{.Id}} {{.HostConfig.AutoRemove}} {{eq (index .Config.Labels "com.docker.compose.project") "'"$project"'"}}' \
  -- "$container") || exit
IFS=' ' read -r id temporary claims <<END
$inspected
END
copy() {
  # Labels cannot be taken from a container, and one that is removed when it stops cannot be kept.
  image=$(docker commit --change 'LABEL com.docker.compose.project=' "$id") &&
    docker create --name "$aside" --label "stackmend.set-aside=$id" --volumes-from "$id" "$image"
}
case $temporary-$claims in
false-false)
  docker update --restart=no "$id" && docker stop "$id" && docker rename "$id" "$aside"
  exit
  ;;
esac
# Whoever was cut off here before has left the copy behind.
has=$(docker container inspect --format '{{index .Config.Labels "stackmend.set-aside"}}' \
  -- "$aside" 2>/dev/null)
if [ "$temporary" = true ]; then
  [ "$has" = "$id" ] || copy || exit
  docker stop "$id"
else
  docker update --restart=no "$id" && docker stop "$id" || exit
  [ "$has" = "$id" ] || copy || exit
  docker rm "$id"
fi
