# The least that a host can be asked to know that nothing is to do, in one session: what the files
# hold, what every container, image and network is, room on the disk, and both checks.
# Arguments: the stack's directory, its project, the URL that must answer.
set -eu
directory=$1 project=$2 url=$3
cd "$directory"
df -P . /var/lib/docker
find . -type f -exec sha256sum {} +
ids=$(docker ps -aq --filter "label=com.docker.compose.project=$project")
[ -n "$ids" ]
# shellcheck disable=SC2086 # one id a word
shown=$(docker inspect $ids)
printf '%s\n' "$shown"
# shellcheck disable=SC2046
docker inspect $(printf '%s\n' "$shown" |
  sed -n 's/^ *"\(Image": "sha256:\|NetworkID": "\)\([0-9a-f]*\)",$/\2/p' | sort -u)
curl -fsS --max-time 5 "$url"
docker exec "$project-redis-1" redis-cli ping | grep PONG
