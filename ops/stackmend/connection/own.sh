# Tells which containers Compose made, by what ops/stackmend/provenance.py says: `made_by_compose CLIENT ID...`
# prints the ids of those; CLIENT is the words that ask the engine. Labels that come from an image
# count for nothing: a container is Compose's where its label "image" is the id of the very image
# that it runs, or where its hash is not its image's.
made_by_compose() {
  client=$1
  shift
  [ $# -gt 0 ] || return 0
  label='{{json (index .Config.Labels "com.docker.compose'
  made=$($client container inspect --format \
    "{{.Id}} {{.Image}} $label.config-hash\")}} $label.image\")}}" "$@" 2>/dev/null </dev/null)
  # shellcheck disable=SC2046
  set -- $(printf '%s\n' "$made" | awk 'NF == 4 && $4 != "\"" $2 "\"" { print $2 }' | sort -u)
  {
    [ $# -eq 0 ] || $client image inspect --format "{{.Id}} $label.config-hash\")}}" "$@" \
      2>/dev/null </dev/null
    printf '%s\n' "$made"
  } | awk '
    NF == 2 { hash[$1] = $2 }
    NF == 4 && length($3) == 66 && $3 ~ /^"[0-9a-f]*"$/ {
      if ($4 == "\"" $2 "\"" || ($2 in hash && hash[$2] != $3)) print $1
    }'
}
