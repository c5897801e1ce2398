# Put back the daemon.json that a change replaced, and have the engine run with it; where it does not,
# with what the change had set. Arguments: what common.sh takes, the file, the stamp of the change.
config=$1 stamp=$2
root=${root:?}
alone
old=$root/kept/daemon.json.$stamp
if ! cmp -s -- "$config" "$old.set"; then
  echo "$config was changed since" >&2
  exit 75
fi
remember
printf '%s\n' "$old.set" >"$root/pending" || exit 73
sync "$root" 2>/dev/null || sync
if [ -e "$old" ]; then put "$config" "$old"; else remove "$config"; fi || { rm -f "$root/pending"; exit 73; }
adopt restart "$config"
