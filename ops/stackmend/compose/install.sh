# Put a project's files in place: all are unpacked beside their places first, then each takes its
# place by a rename, a new directory as a whole. What is overwritten or removed is kept. The project's
# directory may be another's, and containers may mount any part of it: see connection/walk.sh for how
# it is written to.
# Arguments: the state directory, the files as stage.sh keeps them and the name that the kept files
# get (both in it), the project's directory, the bytes that a file of it can have, then paths to
# remove.
# shellcheck disable=SC2154 # connection/walk.sh sets them
state=$1 from=$1/$2 kept=$1/replaced/$3 directory=$4 largest=$5
shift 5
umask 077

fail() {
  printf '%s\n' "$*" >&2
  exit 1
}
for path in "${from#"$state"/}" "${kept#"$state"/}" "$@"; do
  plain "$path" || fail "$path is no path below a directory"
done
private "$state" || exit 1
work=$state/installing

# What is unpacked beside its place waits there in directories with names that nobody can foresee.
# They are remembered with those below them, for whoever comes after a kill.
clean() {
  [ ! -f "$work/beside" ] || sort -ru "$work/beside" | while IFS= read -r made; do
    path=${made#* * } made=${made%" $path"}
    clear "${made% *}" "${made#* }" "$path"
  done
  rm -rf -- "$work"
}
# clear INODE UP DIRECTORY: remove it with the files in it, where that is the inode of the directory
# UP of it; of another's that has its name, nothing is removed.
# Never recursively: not every rm is safe from what becomes a link meanwhile.
clear() {
  { hold "$3" && is "$1" "$2"; } || return 0
  for name in ./* ./.[!.]* ./..?*; do printf '%s\0' "$name"; done | xargs -0 rm -f -- 2>/dev/null
  hold "${3%/*}" && rmdir -- "./${3##*/}" 2>/dev/null
}
is() { [ "$(stat -c %d:%i -- "$2" 2>/dev/null)" = "$1" ]; }
clean
trap 'clean' EXIT
trap 'exit 1' HUP INT PIPE TERM
mkdir -- "$work" || exit 1

# What is in the way is found before anything is touched.
explain() {
  case $1 in
  link) echo "$2 is a link, which is not followed; remove it, or put what it leads to in its place" ;;
  directory) echo "$2 is in the way: it is a directory; move it elsewhere" ;;
  closed) echo "$2 cannot be entered: Permission denied" ;;
  large) echo "$2 is larger than any file of a project: move it elsewhere" ;;
  mount) echo "$2 is a mount point, and cannot be replaced; unmount it" ;;
  odd) echo "$2 is no path below the project's directory" ;;
  *) echo "$2 is in the way: it is neither a file nor a directory; move it elsewhere" ;;
  esac
}
reach "$directory" || fail "$(explain "${obstacle%%  *}" "${obstacle#*  }")"
# GNU's tar takes a backslash in a name for the start of an escape.
case $(tar --version 2>/dev/null) in *GNU*) as_named=--no-unquote ;; *) as_named='' ;; esac
export as_named

# by_directory LIST: its names into LIST.1, LIST.2, ..., one for each directory; LIST.d numbers the
# directories.
by_directory() {
  sed 's|^|./|; s|/\([^/]*\)$|//\1|' "$1" | sort | list=$1 awk '
    BEGIN { list = ENVIRON["list"]; printf "" >(list ".d") }
    {
      at = index($0, "//")
      directory = substr($0, 2, at - 2)
      if (!n || directory != last) {
        if (n) close(list "." n)
        last = directory
        print ++n " " directory >(list ".d")
      }
      print "./" substr($0, at + 2) >(list "." n)
    }'
}
# files LIST: those of a list of digests, as a survey tells them.
files() { sed -n 's/^[0-9a-f]\{64\}/f/p' "$1"; }

# Earlier versions kept the files as a tree: it is kept here as this one keeps them.
if [ ! -f "$from/directories" ] || [ ! -f "$from/modes" ]; then
  tree=$from from=$work/packed
  { cd "$tree" && find . -type f | sed 's|^\./||' | sort >"$work/tree" && mkdir -- "$from" &&
    digests "$tree" "$largest" <"$work/tree" >"$from/files" &&
    files "$from/files" | each "$tree" stat -c %f -- >"$from/modes" && by_directory "$work/tree"; } ||
    fail "cannot read the files of $tree"
  while IFS= read -r line; do
    number=${line%% *} at=${line#* }
    printf '%s %s %s\n' "$number" "$(wc -l <"$work/tree.$number")" "$at"
    (
      set --
      while IFS= read -r name; do set -- "$@" "$name"; done <"$work/tree.$number"
      # shellcheck disable=SC2086 # one word or none
      cd -P -- "$tree$at" && tar $as_named -cf "$from/$number.tar" -- "$@"
    ) || fail "cannot read the files of $tree$at"
  done <"$work/tree.d" >"$from/directories"
fi
printf '%s\n' "$@" | sed '/^$/d' >"$work/gone" || exit 1
sed 's/^[^ ]*  //' "$from/files" | sort -u - "$work/gone" | digests "$real" "$largest" >"$work/there" || exit 1
blocked=$(sed -n '/^!/{s/^!//p;q;}' "$work/there")
[ -z "$blocked" ] || fail "$(explain "${blocked%%  *}" "$real/${blocked#*  }")"

# Content and permissions, by position. Permissions are not set on what is there: it is put in place
# again.
changing="the files in $directory change while they are looked at; run this again"
files "$work/there" | each "$real" stat -c %f -- >"$work/modes" || fail "$changing"
awk '
  what == "modes" { mode[FNR] = $0; next }
  what == "wanted" { right[FNR] = $0; next }
  { path = substr($0, 67); sum = substr($0, 1, 64) }
  what == "there" { if (/^[0-9a-f]/) is[path] = sum " " mode[++n]; next }
  is[path] != sum " " right[FNR] { print path }
' what=modes "$work/modes" what=wanted "$from/modes" what=there "$work/there" \
  what='' "$from/files" >"$work/changed" || exit 1
awk 'what { if (/^[0-9a-f]/) is[substr($0, 67)] = 1; next } is[$0]' \
  what=there "$work/there" what='' "$work/gone" >"$work/removed" || exit 1
# The kernel does not let a mount point be renamed over or removed.
mounted=$(cat "$work/changed" "$work/removed" | root=$real awk '
  BEGIN { root = ENVIRON["root"] "/" }
  what { mounted[$5] = 1; next }
  { path = root $0
    gsub(/\\/, "\\134", path); gsub(/ /, "\\040", path); gsub(/\t/, "\\011", path)
    if (path in mounted) { print root $0; exit } }' what=mounts /proc/self/mountinfo what='' -) || exit 1
[ -z "$mounted" ] || fail "$(explain mount "$mounted")"

# with LIST COMMAND...: the command, with the names of the list behind it.
with() { tr '\n' '\0' <"$1" | (shift && timeout 600 xargs -0 "$@"); }
# keep LIST DIRECTORY: what the held directory has of these files. Each generation keeps what it
# replaced first.
keep() {
  while IFS= read -r name; do
    # Docker makes an empty directory of a file that it is to mount and does not find.
    if [ -d "$name" ] && [ ! -L "$name" ]; then rmdir -- "$name" || return; fi
    if [ -f "$name" ] && [ ! -e "$kept$2/$name" ]; then printf '%s\n' "$name"; fi
  done <"$1" >"$work/keep" || return
  [ -s "$work/keep" ] || return 0
  # shellcheck disable=SC2016 # the inner shell expands
  mkdir -p -- "$kept$2" && with "$work/keep" sh -c 'to=$1 archive=$2; shift 2
    tar $as_named -cf "$archive" -- "$@" && cd -P -- "$to" && tar -xpf "$archive"' keep "$kept$2" "$work/keep.tar"
}

by_directory "$work/changed" && by_directory "$work/removed" || exit 1

renamer
# For each directory with files that change: the nearest one that is there, in which they wait; then,
# behind "//", its list, its archive, whether all in it change, and itself.
awk '
  what == "have" { n = $1; size = $2; sub(/^[0-9]+ [0-9]+ /, ""); archive[$0] = n; of[$0] = size; next }
  what == "changed" { path = "/" $0; sub(/\/[^\/]*$/, "", path); count[path]++; next }
  { n = $1; sub(/^[0-9]+ /, "")
    print n " " archive[$0] " " (count[$0] == of[$0] ? "all" : "some") " " $0 }
' what=have "$from/directories" what=changed "$work/changed" what='' "$work/changed.d" |
  while IFS= read -r line; do
    base=${line#* * * }
    # What comes there later than this makes a rename fail.
    while [ "$renames" != ln ] && [ -n "$base" ] && [ ! -d "$real$base" ]; do base=${base%/*}; done
    printf '%s//%s\n' "$base" "$line"
  done | sort >"$work/plan" || exit 1

last=none rounds=0
while IFS= read -r line; do
  base=${line%%//*} line=${line#*//}
  list=$work/changed.${line%% *} line=${line#* }
  archive=$from/${line%% *}.tar line=${line#* }
  which=${line%% *} into=${line#* }
  if [ "$base" != "$last" ]; then
    last=$base rounds=$((rounds + 1))
    { (umask 022 && dig "$real$base") && hold "$real$base" && exec 4<. && nest "$real$base"; } 2>"$work/said" || {
      output=$(tail -n 1 "$work/said")
      fail "no file can be made in $real$base${output:+: $output}"
    }
    beside=$real$base/$beside
    printf '%s . %s\n' "$inode" "$beside" >>"$work/beside"
    printf '%s\n' "$base" "$beside" "$inode" >"$work/round.$rounds"
  fi
  deeper=${into#"$base"} at=$beside up=.
  if [ -z "$deeper" ]; then
    cat "$list"
  else
    deeper=${deeper#/}
    printf './%s\n' "${deeper%%/*}"
    while [ -n "$deeper" ]; do
      at=$at/${deeper%%/*}
      case $up in .) up=.. ;; *) up=$up/.. ;; esac
      printf '%s\n' "$inode $up $at" >>"$work/beside"
      case $deeper in */*) deeper=${deeper#*/} ;; *) deeper='' ;; esac
    done
  fi >>"$work/move.$rounds"
  umask 022
  { dig "$at" && is "$inode" "$up"; } || fail "$changing"
  umask 077
  # Some tars take such names for patterns.
  if [ "$which" = some ] && grep -q '[][*?\\]' "$list"; then which=all; fi
  # Every tar opens with O_EXCL, as no cp but GNU's does. The files are made with their permissions:
  # none are set by name, nor owners.
  if [ "$which" = all ]; then
    (umask 0 && exec tar -xf - -m -o --no-same-permissions <"$archive")
  else
    # shellcheck disable=SC2016 # the inner shell expands
    (umask 0 && with "$list" sh -c 'exec tar $as_named -xf - -m -o --no-same-permissions -- "$@" <"$0"' "$archive")
  fi || fail "the files for $real$into cannot be written"
done <"$work/plan"
mkdir -p -- "$kept" || exit 1
turn=0
while [ $turn -lt $rounds ]; do
  turn=$((turn + 1))
  { IFS= read -r base && IFS= read -r beside && read -r inode; } <"$work/round.$turn"
  sort -u "$work/move.$turn" >"$work/move"
  { hold "$real$base" && exec 4<. && keep "$work/move" "$base"; } || fail "what is in $real$base cannot be kept"
  { hold "$beside" && is "$inode" . && with "$work/move" sh -c "$renaming" place; } 2>"$work/said" || {
    output=$(cat "$work/said")
    case $output in
    *"not permitted"*) fail "what is in $real$base cannot be replaced: $output; see lsattr there" ;;
    *"ross-device"*) fail "$real$base lies on another file system than a moment ago: $output" ;;
    *) fail "$changing: $output" ;;
    esac
  }
  clear "$inode" . "$beside"
done
while IFS= read -r line; do
  at=$real${line#* } list=$work/removed.${line%% *}
  { hold "$at" && keep "$list" "${line#* }"; } || fail "what is in $at cannot be kept"
  with "$list" rm -f -- 2>"$work/said" || fail "$changing: $(cat "$work/said")"
done <"$work/removed.d"
# What took a file's place while it was kept.
find "$kept" ! -type f ! -type d -exec rm -f -- {} +
if hold "$real"; then sync . 2>/dev/null || sync; fi
# Five generations are enough to look back; their names sort by time.
cd "$state/replaced" || exit 1
set -- */
while [ $# -gt 5 ]; do
  rm -rf -- "./$1"
  shift
done
