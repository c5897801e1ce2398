# Stop a container for good, on the engine that has it. Arguments: the root of the records, the
# record, the ports, the engine, the container's id, its name.
root=$1 dir=$1/$2
claim container "$3"
engine=$4 id=$5
keep engine "$engine"
keep id "$id"
keep name "$6"
policy='{{.HostConfig.RestartPolicy.Name}}:{{.HostConfig.RestartPolicy.MaximumRetryCount}}'
state=$(engine inspect --type container -f \
  "{{.State.Running}} {{.State.Paused}} {{.HostConfig.AutoRemove}} $policy" -- "$id") ||
  drop 76 "the engine does not know container $6"
IFS=' ' read -r running paused temporary restart <<END
$state
END
[ "$running" = true ] || drop 76 "container $6 does not run"
restart=${restart%:0}
# Whoever began to stop it and was cut off has already taken its restart policy away.
for old in "$root"/*/; do
  if [ ! -e "$old/done" ] && [ -f "$old/restart" ] && [ "$(cat "$old/id")" = "$id" ] &&
    [ "${old%/}" != "$dir" ]; then
    restart=$(cat "$old/restart")
  fi
done
keep restart "$restart"
keep paused "$paused"
keep passing "$temporary"
if [ "$temporary" = true ]; then
  volumes=$(engine inspect --type container -f \
    '{{range .Mounts}}{{if eq .Type "volume"}}{{.Name}} {{end}}{{end}}' -- "$id")
  for volume in $volumes; do
    # The name of a volume that nobody named is 64 hexadecimal digits.
    case $volume in
    *[!0-9a-f]*) ;;
    *) [ ${#volume} -ne 64 ] ||
      drop 78 "container $6 is removed when it stops (--rm), and its unnamed volume with it" ;;
    esac
  done
else
  case ${restart%%:*} in
  '' | no) ;;
  *)
    # An older Podman has no such update, and needs none: what is stopped by hand stays so.
    engine update --restart=no -- "$id" >/dev/null ||
      case $engine in podman*) ;; *) fail 74 "the restart policy of container $6 cannot be changed" ;; esac
    ;;
  esac
fi
engine stop -- "$id" >/dev/null || fail 74 "container $6 cannot be stopped"
[ "$(engine inspect --type container -f '{{.State.Running}}' -- "$id" 2>/dev/null)" != true ] ||
  fail 77 "container $6 still runs"
finished
