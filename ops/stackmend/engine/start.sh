# Start the engine, now and with the host, and the containers that ran before it was stopped.
# Arguments: what common.sh takes, the engine's daemon.json.
alone
enabled || echo 'cannot enable it' >&2
if ! answers; then
  service start >/dev/null 2>&1
  if comes_up 90; then proven "$1"
  else without "$1" || { why >&2; exit 70; }
  fi
fi
bring_back || exit 74
