# as_user UID USER COMMAND...: run it with this user's rights, for twenty seconds at most.
as_user() {
  as=$1 login=$2
  shift 2
  if [ "$(id -u)" = "$as" ]; then
    timeout 20 "$@"
  elif has runuser; then
    timeout 20 runuser -u "$login" -- "$@"
  else
    # shellcheck disable=SC2016 # the inner shell expands
    timeout 20 su -s /bin/sh "$login" -c 'exec "$@"' sh "$@"
  fi
}
