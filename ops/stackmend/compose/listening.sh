# What listens for TCP in the networks of containers, and in the host's own. Changes nothing.
# Writes sections (connection/frame.sh): in each line a container's id, or "host", and an address and
# a port as the kernel has them; "-" stands where they were all read. Arguments: ids of containers.
LC_ALL=C
export LC_ALL
listening() {
  set -- "$1" /proc/"$2"/net/tcp /proc/"$2"/net/tcp6
  [ -r "$2" ] || return 0
  [ -r "$3" ] || set -- "$1" "$2"
  id=$1
  shift
  awk -v id="$id" '$4 == "0A" { print id, $2 } END { print id, "-" }' "$@" 2>/dev/null
}
begin listening
{
  listening host self
  [ $# -eq 0 ] || docker inspect --format '{{.Id}} {{.State.Pid}}' "$@" 2>/dev/null |
    while read -r id pid; do
      case $pid in '' | 0 | *[!0-9]*) ;; *) listening "$id" "$pid" ;; esac
    done
} | quoted
end 0
