# Put a tree of files in place: all are copied beside their places first, then each takes its place
# by a rename. What is overwritten or removed is kept.
# Arguments: the tree, the project's directory, where to keep what was there, then paths to remove.
from=$1 directory=$2 kept=$3
shift 3
set -e
new=.stackmend-new

if [ -e "$directory" ] && [ ! -d "$directory" ]; then
  echo "$directory is in the way: it is not a directory" >&2
  exit 1
fi
mkdir -p "$directory" "$kept"
chmod 700 "$kept"
cd "$from"
list=$(find . -type f)

clean() {
  printf '%s\n' "$list" | while IFS= read -r path; do
    rm -f "$directory/${path%/*}/$new.${path##*/}"
  done
}
trap 'clean' EXIT
trap 'exit 1' HUP INT PIPE TERM

keep() {
  # Each generation keeps what it replaced first.
  [ -f "$directory/$1" ] || return 0
  [ -e "$kept/$1" ] && return 0
  mkdir -p "$kept/$(dirname "./$1")"
  cp -p "$directory/$1" "$kept/$1"
}

printf '%s\n' "$list" | while IFS= read -r path; do
  path=${path#./}
  # Docker makes an empty directory of a file that it is to mount and does not find.
  if [ -d "$directory/$path" ] && ! rmdir "$directory/$path" 2>/dev/null; then
    echo "$directory/$path is in the way: it is a directory" >&2
    exit 1
  fi
  cmp -s "./$path" "$directory/$path" && continue
  parent=$(dirname "./$path")
  mkdir -p "$directory/$parent"
  cp -p "./$path" "$directory/$parent/$new.${path##*/}"
done
printf '%s\n' "$list" | while IFS= read -r path; do
  path=${path#./}
  parent=$(dirname "./$path")
  fresh=$directory/$parent/$new.${path##*/}
  if [ -e "$fresh" ]; then
    keep "$path"
    mv -f "$fresh" "$directory/$path"
  else
    # The content is right; the permissions may not be.
    chmod "$(stat -c %a "./$path")" "$directory/$path"
  fi
done
for path; do
  keep "$path"
  rm -f "$directory/$path"
done
sync "$directory" 2>/dev/null || sync
# Five generations are enough to look back; their names sort by time.
cd "${kept%/*}"
set -- */
while [ $# -gt 5 ]; do
  rm -rf "./$1"
  shift
done
