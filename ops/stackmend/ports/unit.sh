# Stop units together: a service alone would be started by its socket, a socket alone stays open in
# its service. Arguments: the root of the records, the record, the ports, whose systemd, the units.
dir=$1/$2
claim unit "$3"
manager=$4
shift 4
keep manager "$manager"
for unit; do
  if ! { active=$(property ActiveState "$unit") && enabled=$(property UnitFileState "$unit"); }; then
    drop 71 "systemd does not know $unit; nothing was stopped"
  fi
  printf '%s|%s|%s\n' "$active" "$enabled" "$unit" >>"$dir/units" || exit 71
done
units stop -- "$@" || fail 74 "systemctl stop failed"
for unit; do
  case $(property ActiveState "$unit") in
  inactive | failed) ;;
  *) fail 77 "$unit is still active" ;;
  esac
done
finished
