# Fail where a link leads to what containers mount from a project's directory, that others than the
# host's root may have made: the engine would follow it, with root's rights. Below what a container
# mounts, root may be the container's. Names each link on standard error.
# Arguments: the project's directory, then every path below it that a container mounts; "." is itself.
# shellcheck disable=SC2154 # connection/walk.sh sets them
directory=$1 links=0
shift
leads() {
  links=$((links + 1))
  echo "$1 is a link, which the engine would follow to mount it; put what it leads to in its place" >&2
}
for path; do
  [ "$path" != . ] || continue
  at='' further=$path theirs=''
  for other; do [ "$other" != . ] || theirs=yes; done
  while [ -n "$further" ]; do
    at=${at:+$at/}${further%%/*}
    case $further in */*) further=${further#*/} ;; *) further='' ;; esac
    if [ -n "$theirs" ] && [ -L "$directory/$at" ]; then
      leads "$directory/$at"
      continue 2
    fi
    for other; do [ "$other" != "$at" ] || theirs=yes; done
  done
  reach "$directory/$path" || case $obstacle in link*) leads "${obstacle#*  }" ;; esac
done
[ $links = 0 ]
