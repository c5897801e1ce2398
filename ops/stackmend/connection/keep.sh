# Replace a file of ours that only root reads by standard input, in one step; or remove it. Behind
# walk.sh. Arguments: the file, whether there is to be one (yes|no).
umask 077
private "${1%/*}" || exit 73
if [ "$2" = yes ]; then
  cat >"$1.new" || exit 73
  sync "$1.new" 2>/dev/null
  mv -f -- "$1.new" "$1" || exit 73
else
  rm -f -- "$1" "$1.new" || exit 73
fi
sync "${1%/*}" 2>/dev/null || sync
