# Restart the engine, so that it makes its rules of the packet filter again, and start the containers
# that ran. Arguments: what common.sh takes, the bridges that there are rules for, then.
root=${root:?}
alone
# Where no bridge misses a rule it hangs, and was asked a moment ago.
if [ $# -gt 0 ]; then remember; else remember 3; fi
rm -f "$root/restarted"
# A socket that somebody removed comes back only together with the unit that listens on it.
[ -S /run/docker.sock ] || systemctl stop docker.socket docker.service 2>/dev/null
# An engine whose containerd hangs would hang again.
if have ctr && have timeout && ! timeout -k 1 4 ctr version >/dev/null 2>&1; then
  systemctl restart containerd.service 2>/dev/null
fi
service restart >/dev/null 2>&1
comes_up 90 || { why >&2; exit 70; }
bring_back || exit 74
for bridge; do
  # The engine makes some of them only once it answers.
  for _ in 1 2 3 4 5; do
    iptables-save 2>/dev/null | grep -q -e " $bridge " && continue 2
    sleep 1
  done
  # Nobody is to restart it for the same again and again.
  : >"$root/restarted"
  echo "it makes no rules for $bridge" >&2
  exit 70
done
