# Replace the compose file that a room lays over a project's own, in one step, by standard input; by
# nothing, remove it. Arguments: the state directory, whether there is to be one (yes|no).
umask 077
private "$1" || exit
if [ "$2" = yes ]; then
  cat >"$1/layer.yaml.new" || exit
  sync "$1/layer.yaml.new" 2>/dev/null
  mv -f -- "$1/layer.yaml.new" "$1/layer.yaml" || exit
else
  rm -f -- "$1/layer.yaml" "$1/layer.yaml.new" || exit
fi
sync "$1" 2>/dev/null || sync
