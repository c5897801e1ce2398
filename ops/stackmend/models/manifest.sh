# Replace a model's manifest by standard input, in one step.
# Arguments: the store, the path below its manifests, the owner (UID:GID or empty).
# shellcheck disable=SC2154 # walk.sh sets them
umask 077
own=$(mktemp -d) || exit
trap 'rm -rf -- "$own"' EXIT
trap 'exit 1' HUP INT PIPE TERM
name=${2##*/}
cat >"$own/$name" && chmod 0644 "$own/$name" || exit
[ -z "$3" ] || chown -- "$3" "$own/$name" || exit
umask 022
plain "$2" && reach "$1" || exit
# The directories on the way are the server's too.
at=$real further=manifests/$2
while [ "$further" != "$name" ]; do
  part=${further%%/*} further=${further#*/}
  if ! hold "$at/$part"; then
    hold "$at" && mkdir -- "./$part" || exit
    [ -z "$3" ] || chown -h -- "$3" "./$part" || exit
    hold "$at/$part" || exit
  fi
  at=$at/$part
done
lay "$own" "$name"
