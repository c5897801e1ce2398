# Print "KiB free|path" where Docker's images, the project's files and our memory live.
# Arguments: the project's directory. Exits with 124 where the engine hangs (connection/frame.sh).
root=$(docker info --format '{{.DockerRootDir}}' 2>/dev/null)
[ $? -ne 124 ] || exit 124
for path in "$root" "$1" /var/lib/stackmend; do
  while [ -n "$path" ] && [ ! -d "$path" ]; do path=${path%/*}; done
  # Not df: what is mounted has any name that it was given, with blanks and lines of its own.
  # shellcheck disable=SC2046 # two numbers
  set -- $(stat -f -c '%a %S' -- "${path:-/}" 2>/dev/null)
  [ $# -ne 2 ] || printf '%s|%s\n' "$(($1 * $2 / 1024))" "${path:-/}"
done
