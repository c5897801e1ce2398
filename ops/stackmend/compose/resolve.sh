# What Docker Compose makes of files that are not on this host yet. They come as a tar archive on
# standard input, with the digests of all that are to lie on the host, live in memory where the host
# can, and are gone when this ends.
# Writes sections (connection/frame.sh), that of images by images.sh. Arguments: the project, its
# directory, the bytes that a file of it can have, then Compose's options that name its files and
# profiles. Standard input begins with the mark of the sections.
# shellcheck disable=SC2154 # connection/walk.sh sets them
project=$1 directory=$2 largest=$3
shift 3

umask 077
own=
trap '[ -z "$own" ] || rm -rf "$own"' EXIT
# A lost connection is a broken pipe, and no signal that ends a shell lets it clean up by itself.
trap 'exit 1' HUP INT PIPE TERM
for base in /dev/shm "${TMPDIR:-/tmp}"; do
  own=$(mktemp -d "$base/stackmend.XXXXXX" 2>/dev/null) || continue
  # One that is full takes the directory, and no file. The last one says so itself.
  { head -c 16777216 /dev/zero >"$own/room"; } 2>/dev/null && rm "$own/room" && break
  [ "$base" != /dev/shm ] || rm -rf "$own"
done
work=$own/project
begin unpacked
output=$(mkdir "$work" && tar -xf - -C "$work" 2>&1)
status=$?
printf '%s\n%s\n' "$work" "$output" | quoted
end $status
[ $status -eq 0 ] || exit 0

compose() { docker compose -p "$project" "$@"; }
# The images that services have in what Compose printed as JSON, indented. Fails where one names none,
# or anything is not as expected: Compose is asked once more then, which takes as long as all else.
named_images() {
  awk '
    /^  "/ { services = /^  "services": \{$/ }
    services && /^    "/ { count++ }
    services && /^      "image": "[^"\\]+",?$/ {
      named++
      sub(/^[^:]*: "/, "")
      sub(/",?$/, "")
      print
    }
    END { exit !count || count != named }'
}

cd "$work" || exit 0
desired=$own/wanted
mv .stackmend.wanted "$desired" || exit 0
begin config
output=$(compose "$@" config --format json 2>"$own/stderr")
status=$?
printf '%s\n' "$output" | quoted
end $status
section problem cat "$own/stderr"
rm -f "$own/stderr"
if [ $status -ne 0 ]; then
  # Either it refuses the files, or there is no Compose.
  section compose docker compose version --short
  exit 0
fi

# Only in its final place does a project have its final hashes; there they can be had where nothing
# differs.
paths=$(sed 's/^[0-9a-f]*  //' "$desired")
if reach "$directory"; then
  there=$(printf '%s\n' "$paths" | sed '/^$/d' | digests "$real" "$largest")
else
  there=!$obstacle
fi
section barred printf '%s\n' "$there"
differs=$(printf '%s\n' "$there" | awk '
  what == "there" { there[$0] = 1; next }
  !($0 in there) { print substr($0, 67) }' what=there - what='' "$desired")
cd "$work" || exit 0
section differs printf '%s\n' "$differs"
if [ -z "$differs" ]; then
  cd "$real" && section hashes compose "$@" config --hash '*'
  cd "$work" || exit 0
fi

set -f
references=$(printf '%s\n' "$output" | named_images) ||
  references=$(compose "$@" config --images 2>/dev/null)
# Word splitting is wanted: they are references.
# shellcheck disable=SC2046
images $(printf '%s\n' "$references" | sort -u)

networks=$(docker network ls -q --filter "label=com.docker.compose.project=$project")
# Word splitting is wanted: ids are hexadecimal.
# shellcheck disable=SC2086
[ -z "$networks" ] || section networks docker network inspect $networks

volumes=$(docker volume ls -q --filter "label=com.docker.compose.project=$project")
# Word splitting is wanted: an engine's names of volumes hold no blanks.
# shellcheck disable=SC2086
[ -z "$volumes" ] || section volumes docker volume inspect -- $volumes
[ -z "${STACKMEND_HUNG:-}" ] || section hung true
