# Names resolve under the new servers: they stay. Arguments: the mark of the change, the names.
# shellcheck disable=SC2154 # common.sh sets them
mark=$1
shift
confirmable() {
  [ "$(cat "$room/armed" 2>/dev/null)" = "$mark" ] && return
  fail 75 "the host has reverted the change already: the servers answer too slowly for that; mend them, or raise stack[\"resolver\"][\"revert_after\"]"
}
confirmable
for name; do
  tries=0
  until timeout 8 getent hosts "$name" >/dev/null 2>&1; do
    tries=$((tries + 1))
    [ $tries -lt 4 ] || fail 68 "the host does not resolve $name under the new servers"
    sleep 0.5
  done
done
# Not while a revert is under way.
enter
trap leave EXIT
confirmable
# Taken away by one rename: a revert that begins now finds nothing to do.
mv -- "$room/armed" "$room/confirmed" || fail 74 "cannot disarm the revert"
rm -rf "$room/confirmed" "$room/before" "$room/revert.sh" "$room/reload" "$room/services"
disarm
exit 0
