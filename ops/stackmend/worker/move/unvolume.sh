# Remove a volume that a move made, with the models in it, where Compose made it for that move: by
# its labels, and used by no container. Arguments: the project, the volume's key in its files.
name=$1_$2
found=$(docker volume ls -q --filter "name=^$name\$" --filter "label=com.docker.compose.project=$1" \
  --filter "label=com.docker.compose.volume=$2") || exit
[ -n "$found" ] || exit 0
docker volume rm "$name" >/dev/null
