# Put a daemon.json in place and have the engine run with it; where it does not, put the one before
# back. The file is on standard input. Arguments: what common.sh takes, the file, "restart" or
# "reload", the stamp of its copy, then the words that the service starts dockerd with.
config=$1 how=$2 stamp=$3
shift 3
root=${root:?}
alone
mkdir -p "$(dirname "$config")" || exit 73
new=$config.stackmend-new
old=$root/kept/daemon.json.$stamp
if [ -e "$config" ]; then cp -p -- "$config" "$new" || exit 73
else (umask 022; : >"$new") || exit 73
fi
cat >"$new" || { rm -f "$new"; exit 73; }

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
if dockerd --help 2>/dev/null | grep -q -e --validate; then
  said=$(dockerd "$@" --validate --config-file "$new" 2>&1) || {
    rm -f "$new"
    printf '%s\n' "$said" | grep -v '^time=.*level=\(info\|warning\)' | tail -n 3 >&2
    exit 65
  }
fi

remember
if [ -e "$config" ]; then
  cp -p -- "$config" "$old" || { rm -f "$new"; exit 73; }
  printf '%s\n' "$old" >"$root/pending"
else
  : >"$root/pending"
fi
sync "$root" 2>/dev/null || sync
mv -f -- "$new" "$config" || { rm -f "$new" "$root/pending"; exit 73; }
take_up "$how" "$config"
