# Keep ports from outgoing connections: now, and after every start. What is reserved already, at run
# time or in a file, stays so. Arguments: the root of the records, the record, the ranges.
dir=$1/$2
claim reserve "$3"
ranges=$3
now=/proc/sys/net/ipv4/ip_local_reserved_ports
# Read last of all files: their names decide.
file=/etc/sysctl.d/zz-stackmend-reserved-ports.conf
before=$(cat "$now") || drop 71 "$now cannot be read"
keep before "$before"
(aim "$file") || drop 74 "$file cannot be written"
if [ -e "$file" ]; then cp -p -- "$file" "$dir/file" || exit 71; fi
kept() {
  for path in /usr/lib/sysctl.d/*.conf /lib/sysctl.d/*.conf /usr/local/lib/sysctl.d/*.conf \
    /run/sysctl.d/*.conf /etc/sysctl.d/*.conf /etc/sysctl.conf; do
    [ -f "$path" ] &&
      sed -n 's|^[[:space:]]*-\{0,1\}net[./]ipv4[./]ip_local_reserved_ports[[:space:]]*=[[:space:]]*||p' "$path"
  done
}
# The kernel takes a list with doubles, and gives it back in order.
printf '%s' "${before:+$before,}$ranges" >"$now" || drop 74 "$now cannot be written"
after=$(cat "$now")
keep after "$after"
all=$({
  echo "$after"
  kept
} | tr -d ' \t' | tr ',' '\n' | sed '/^$/d' | awk '!seen[$0]++' | paste -s -d, -)
if ! {
  printf '%s\n' '# Ports that services of this host are bound to, kept from outgoing connections.' \
    "net.ipv4.ip_local_reserved_ports = $all" >"$dir/new" &&
    put "$file" <"$dir/new"
}; then
  fail 74 "$file cannot be written"
fi
finished
