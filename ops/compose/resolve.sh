# What Docker Compose makes of files that are not on this host yet. They come as a tar archive on
# standard input, live in memory where the host can, and are gone when this ends.
# Writes sections (connection/frame.sh), that of images by images.sh. Arguments: the project, its
# directory, then profiles. Standard input begins with the mark of the sections.
# shellcheck disable=SC2154 # connection/walk.sh sets them
project=$1 directory=$2
shift 2

umask 077
work=
trap '[ -z "$work" ] || rm -rf "$work"' EXIT
# A lost connection is a broken pipe, and no signal that ends a shell lets it clean up by itself.
trap 'exit 1' HUP INT PIPE TERM
for base in /dev/shm "${TMPDIR:-/tmp}"; do
  [ -d "$base" ] && [ -w "$base" ] && work=$(mktemp -d "$base/stackmend.XXXXXX") && break
done
begin unpacked
said=$(tar -xf - -C "$work" 2>&1)
status=$?
printf '%s\n%s\n' "$work" "$said" | quoted
end $status
[ $status -eq 0 ] || exit 0

for profile; do
  set -- "$@" --profile "$profile"
  shift
done
compose() { docker compose -p "$project" "$@"; }

cd "$work" || exit 0
begin config
said=$(compose "$@" config --format json 2>"$work/.stderr")
status=$?
printf '%s\n' "$said" | quoted
end $status
section problem cat "$work/.stderr"
rm -f "$work/.stderr"
if [ $status -ne 0 ]; then
  # Either it refuses the files, or there is no Compose.
  section compose docker compose version --short
  exit 0
fi

# Only in its final place does a project have its final hashes; there they can be had where nothing
# differs.
paths=$(find . -type f | sed 's|^\./||')
if reach "$directory"; then
  there=$(printf '%s\n' "$paths" | digests "$real")
else
  there=!$obstacle
fi
section barred printf '%s\n' "$there"
cd "$work" || exit 0
wanted=$(printf '%s\n' "$paths" | digests .)
differs=$(printf '%s\n=\n%s\n' "$there" "$wanted" | awk '
  !behind { if (/^=/) behind = 1; else there[$0] = 1; next }
  !($0 in there) { print substr($0, 67) }')
section differs printf '%s\n' "$differs"
if [ -z "$differs" ]; then
  cd "$real" && section hashes compose "$@" config --hash '*'
  cd "$work" || exit 0
fi

set -f
# Word splitting is wanted: they are references.
# shellcheck disable=SC2046
images $(compose "$@" config --images 2>/dev/null | sort -u)

networks=$(docker network ls -q --filter "label=com.docker.compose.project=$project")
# Word splitting is wanted: ids are hexadecimal.
# shellcheck disable=SC2086
[ -z "$networks" ] || section networks docker network inspect $networks
