# Print how many requests Ollama has answered by 404, by its log, since the last of its clients was
# started: they ask for a model by another name. Arguments: the project, the container of Ollama, the
# clients' services.
# shellcheck disable=SC2154 # connection/own.sh
project=$1 target=$2
shift 2
since=''
for service; do
  all=$(docker ps -q --no-trunc --filter "label=com.docker.compose.project=$project" \
    --filter "label=com.docker.compose.service=$service") || exit
  # Word splitting is wanted: ids are hexadecimal.
  # shellcheck disable=SC2086
  for id in $(made_by_compose docker $all); do
    started=$(docker container inspect --format '{{.State.StartedAt}}' "$id" </dev/null) || exit
    since=$(printf '%s\n%s\n' "$since" "$started" | sort | tail -n 1)
  done
done
if [ -z "$since" ]; then
  echo 'no client runs' >&2
  exit 1
fi
docker logs --since "$since" "$target" 2>&1 </dev/null |
  grep -cE '\[GIN\].*\| *404 \|.*"/v1/(chat/)?completions"' || true
