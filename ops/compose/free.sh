# Print "KiB free|path" where Docker's images, the project's files and our memory live.
# Arguments: the project's directory.
root=$(docker info --format '{{.DockerRootDir}}' 2>/dev/null)
for path in "$root" "$1" /var/lib/stackmend; do
  while [ -n "$path" ] && [ ! -d "$path" ]; do path=${path%/*}; done
  df -Pk "${path:-/}" 2>/dev/null | awk -v path="${path:-/}" 'NR == 2 { print $4 "|" path }'
done
