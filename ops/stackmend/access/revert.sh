# Revert a change of sshd, unless a run has confirmed it. Arguments: its mark.
# shellcheck disable=SC2154 # common.sh sets them
mark=$1
[ "$(cat "$room/armed" 2>/dev/null)" = "$mark" ] || exit 0
if [ -f "$room/before/part" ]; then
  put "$part" "$room/before/part"
else
  remove "$part"
fi
if [ -f "$room/before/main" ]; then put "$main" "$room/before/main"; fi
reload
status=$?
rm -rf "$room/before" "$room/armed"
exit $status
