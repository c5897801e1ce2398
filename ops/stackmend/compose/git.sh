# What a git server has, and the files of one of its commits. Nothing stays on the host: the
# repository lies in a directory of its own and is gone when this ends. Nobody's configuration of
# git, hooks, helpers or environment count, and no file of the repository is ever checked out.
# Arguments: the address, the protocols that may be spoken, the server that the login is for, then
# "list" and patterns of refs; or "tree", the full name of a ref (or a commit), the commit, the
# directory in it, the bytes that its files may have, the file that keeps those of the commit that
# was proven, the seconds for a fetch, and those of them for which nothing may come. Standard input:
# the user and the password. The line "fetching" goes before files that are not at hand.
umask 077
url=$1 protocols=$2 origin=$3 how=$4
shift 4
IFS= read -r user
IFS= read -r password

# What was proven is at hand.
if [ "$how" = tree ] && [ -f "$5" ] && IFS= read -r known <"$5" && [ "$known" = "$2 $3" ]; then
  tail -n +2 "$5"
  exit
fi

command -v git >/dev/null 2>&1 || {
  echo 'git is not installed on the host' >&2
  exit 69
}
for name in $(env | sed -n 's/^\(GIT_[A-Za-z0-9_]*\)=.*/\1/p; s/^\(SSH_ASKPASS[A-Z_]*\)=.*/\1/p'); do
  unset "$name"
done
own='' running='' watcher='' ended=''
# git is in a group of its own, that of timeout, which hands the signal on.
# shellcheck disable=SC2329 # the trap calls it
end() {
  [ -z "$watcher" ] || kill "$watcher" 2>/dev/null
  [ -z "$running" ] || while kill "$running" 2>/dev/null; do wait "$running"; done
  [ -z "$own" ] || rm -rf "$own"
}
trap end EXIT
# A lost connection is a broken pipe, and no signal that ends a shell lets it clean up by itself. More
# than one comes: the next is not to cut off the cleaning.
trap 'ended=yes; [ -z "$running" ] || kill "$running" 2>/dev/null' HUP INT PIPE TERM
temporary=${TMPDIR:-/tmp}
# What a run left that was killed.
find "$temporary" -maxdepth 1 -type d -user "$(id -u)" -name 'stackmend-git.*.*' 2>/dev/null |
  while IFS= read -r left; do
    process=${left#"$temporary"/stackmend-git.}
    [ "$process" = "$left" ] || [ -d "/proc/${process%%.*}" ] || rm -rf "$left"
  done
own=$(mktemp -d "$temporary/stackmend-git.$$.XXXXXX") && cd "$own" || exit 73

LC_ALL=C HOME=$own XDG_CONFIG_HOME=$own GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null
GIT_TERMINAL_PROMPT=0 GIT_ALLOW_PROTOCOL=$protocols GIT_NO_LAZY_FETCH=1
GIT_SSH_COMMAND='ssh -o BatchMode=yes -o ConnectTimeout=20 -o ServerAliveInterval=15'
export LC_ALL HOME XDG_CONFIG_HOME GIT_CONFIG_NOSYSTEM GIT_CONFIG_GLOBAL GIT_TERMINAL_PROMPT
export GIT_ALLOW_PROTOCOL GIT_NO_LAZY_FETCH GIT_SSH_COMMAND
# Whoever asks for a login gets it for this very server, wherever that may send us to.
printf 'username=%s\npassword=%s\n' "$user" "$password" >login
# It has no name that would be left if this is killed.
exec 9<login && rm login || exit 73
[ -n "$user" ] || origin=
run() {
  limit=$1
  shift
  [ -z "$ended" ] || exit 1
  # In the background: a signal is heard while it runs.
  timeout -k 5 "$limit" git -c core.askPass= -c credential.helper= \
    ${origin:+-c "credential.$origin.helper=!cat /proc/self/fd/9; :"} \
    -c core.hooksPath=/dev/null -c core.fsmonitor=false -c gc.auto=0 -c submodule.recurse=false \
    -c http.lowSpeedLimit=100 -c http.lowSpeedTime=30 -c fetch.unpackLimit=1 -c tar.umask=0022 "$@" &
  running=$!
  [ -z "$ended" ] || kill "$running"
  watcher=''
  [ "$1" != fetch ] || {
    watch "$running" </dev/null >/dev/null 2>&1 9<&- &
    watcher=$!
  }
  wait "$running"
  ran=$?
  [ -z "$ended" ] || exit 1
  running=''
  [ -z "$watcher" ] || kill "$watcher" 2>/dev/null
  watcher=''
  # Whatever it waits for, it says nothing of it.
  [ $ran -ne 124 ] || echo "Operation timed out after $limit seconds" >&2
  [ ! -e "$own/stalled" ] || echo "Operation timed out: nothing came for $idle seconds" >&2
  return $ran
}
# Ends a fetch of which nothing moves any more: no file, no byte that git reads (ssh keeps its
# connection alive by itself). A protocol other than HTTP has no limit of its own.
watch() {
  cd / || return
  was='' quiet=0
  while [ $quiet -lt "$idle" ]; do
    sleep 5
    now=$(
      ls -lR "$own"
      for process in /proc/[0-9]*; do
        # shellcheck disable=SC3013 # every sh that a host has knows it
        [ "$process/cwd" -ef "$own/repository" ] || continue
        read -r program <"$process/comm" || continue
        case $program in git*) cat "$process/io" ;; esac
      done
    )
    quiet=$((quiet + 5))
    [ "$now" = "$was" ] || quiet=0
    was=$now
  done
  : >"$own/stalled"
  kill "$1"
}
if [ "$how" = list ]; then
  run 120 ls-remote -- "$url" "$@"
  exit
fi

ref=$1 commit=$2 path=$3 largest=$4 allowed=$6 idle=$7
echo fetching
# Blocks of 512 bytes: no pack fills the disk.
ulimit -f 4194304 2>/dev/null
run 60 init -q --bare repository && cd repository || exit 73
# The files as they are in the commit, whatever its own attributes say.
mkdir -p info
echo '* -text !eol !ident !filter !working-tree-encoding -export-ignore -export-subst' >info/attributes
fetch() {
  rm -f "$own/stalled"
  run "$allowed" fetch -q --no-tags --no-recurse-submodules "$@" \
    -- "$url" "+$ref:refs/fetched" 2>"$own/said"
}
fetch --depth 1 || { grep -q 'does not support shallow' "$own/said" && fetch; } || {
  cat "$own/said" >&2
  exit 1
}
found=$(run 60 rev-parse --verify -q 'refs/fetched^{commit}')
[ "$found" = "$commit" ] || {
  echo "$ref moved while it was fetched: it is ${found:-gone} now" >&2
  exit 75
}
run 60 cat-file -e "$commit:$path" 2>/dev/null || {
  echo "$path does not exist in commit $commit" >&2
  exit 66
}
(ulimit -f $((largest / 512)) && run 600 archive --format=tar -o "$own/tree.tar" "$commit:$path") 2>"$own/said" || {
  [ "$(wc -c <"$own/tree.tar")" -lt $((largest / 512 * 512)) ] || echo "its files have more than $((largest / 1048576)) MiB" >&2
  cat "$own/said" >&2
  exit 1
}
gzip -1 <"$own/tree.tar"
