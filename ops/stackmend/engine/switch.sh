# Put a daemon.json in place and have the engine run with it; where it does not, restore the one
# before. The file is on standard input. Arguments: what common.sh takes, the file, "restart", "reload"
# or "either", the stamp of its copy, then the words that the service starts dockerd with.
config=$1 how=$2 stamp=$3
shift 3
root=${root:?}
alone
old=$root/kept/daemon.json.$stamp new=$root/daemon.json
trap 'rm -f "$new"' EXIT
cat >"$new" && (aim "$config") || exit 73

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
if dockerd --help 2>/dev/null | grep -q -e --validate; then
  output=$(dockerd "$@" --validate --config-file "$new" 2>&1) || {
    printf '%s\n' "$output" | grep -v '^time=.*level=\(info\|warning\)' | tail -n 3 >&2
    exit 65
  }
fi

remember
if [ -e "$config" ]; then
  cp -p -- "$config" "$old" || exit 73
  printf '%s\n' "$old" >"$root/pending"
else
  : >"$root/pending"
fi
# What tells, when it is to be taken back, whether anybody has changed it since.
cp -- "$new" "$old.set" || { rm -f "$root/pending"; exit 73; }
sync "$root" 2>/dev/null || sync
put "$config" <"$new" || { rm -f "$root/pending"; exit 73; }
adopt "$how" "$config"
