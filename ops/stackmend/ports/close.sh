# Close connections, each only while it is the one that was looked at, and leave their programs alone.
# Arguments: of each its protocol, its port here, and the inode of its socket.
# Exit statuses: 69 it cannot be closed here, 76 all were gone already.
command -v ss >/dev/null || {
  echo 'ss, of the package iproute2, is needed to close a connection' >&2
  exit 69
}
# Its two ends as ss itself writes them; empty where it is gone.
ends() {
  ss -H -n -e "$kind" state connected sport = ":$2" |
    awk -v inode="ino:$3" '{ for (i = 6; i <= NF; i++) if ($i == inode) print $4, $5 }'
}
closed=''
while [ $# -ge 3 ]; do
  case $1 in udp) kind=-u ;; *) kind=-t ;; esac
  found=$(ends "$@")
  if [ -n "$found" ]; then
    output=$(ss -K -H -n "$kind" state connected src "${found% *}" dst "${found#* }" 2>&1)
    [ -z "$(ends "$@")" ] || {
      echo "the kernel does not close it (CONFIG_INET_DIAG_DESTROY): $output" >&2
      exit 69
    }
    closed=1
  fi
  shift 3
done
[ -n "$closed" ] || exit 76
