# Keep the list of services that run on other files than those in place.
# Arguments: the state directory, "add" or "drop", the services; none to drop are all.
state=$1 verb=$2
shift 2
umask 077
private "$state" || exit 1
for name; do
  case $name in
  '' | . | .. | */*)
    echo "$name is no name of a service" >&2
    exit 1
    ;;
  esac
done
case $verb in
add) mkdir -p -- "$state/stale" && cd "$state/stale" && touch -- "$@" ;;
drop)
  if [ $# = 0 ]; then
    rm -rf -- "$state/stale"
  elif cd "$state/stale" 2>/dev/null; then
    rm -f -- "$@"
  fi
  ;;
esac
