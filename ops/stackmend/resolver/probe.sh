# By what a host resolves names, in one reading. Changes nothing.
# Writes sections (connection/frame.sh). Arguments: names that it is to resolve by now.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
LC_ALL=C
export PATH LC_ALL
cd /
has() { command -v "$1" >/dev/null 2>&1; }
# Whoever asks over D-Bus may wait for as long as the other side likes.
soon() { if has timeout; then timeout 5 "$@"; else "$@"; fi 2>/dev/null </dev/null; }
# Whoever opens a FIFO waits. Two bytes more than are taken show that there is more,
# also where the line that is read last has no end and is given one.
text() { if [ -f "$1" ]; then head -c 65538 -- "$1" 2>/dev/null; fi; }
file=/etc/resolv.conf
real=$(readlink -f -- $file)

begin host
{
  printf 'root %s\n' "$(id -u)"
  target=$(readlink -- $file)
  printf 'target %s\n' "$target"
  mounted=$(awk '$5 == "/etc/resolv.conf" { print "yes"; exit }' /proc/self/mountinfo 2>/dev/null)
  if [ -n "$mounted" ]; then echo 'mounted yes'; fi
  if [ -f $file ] && has lsattr; then
    attributes=$(lsattr -d -- "$real" 2>/dev/null)
    printf 'attributes %s\n' "${attributes%% *}"
  fi
  kind='file'
  if [ -d $file ]; then
    kind='directory'
  elif [ -e $file ] && [ ! -f $file ]; then
    kind='special'
  elif [ -L $file ] && { [ -z "$real" ] || [ ! -d "${real%/*}/" ]; }; then
    kind='astray'
  fi
  printf 'kind %s\n' "$kind"
  if [ "$kind" = file ] && [ "$(id -u)" = 0 ]; then
    # What takes its place is made beside it, but for a mount.
    where=${real%/*}/
    if [ -n "$mounted" ]; then where=$file; fi
    if [ ! -w "$where" ]; then printf 'closed %s\n' "$where"; fi
  fi
  for tool in bash chattr systemd-run setsid systemd-tmpfiles; do
    if has "$tool"; then printf 'tool %s\n' "$tool"; fi
  done
  if [ -d /etc/dhcp/dhclient-enter-hooks.d ]; then echo 'tool dhclient-hooks'; fi
  for process in /proc/[0-9]*/comm; do
    read -r name 2>/dev/null <"$process" || continue
    case $name in
    dhclient | dhcpcd | NetworkManager) printf 'running %s\n' "$name" ;;
    systemd-resolve*) echo 'running resolved' ;;
    systemd-network*) echo 'running networkd' ;;
    esac
  done | sort -u
  resolvconf=$(command -v resolvconf)
  case $resolvconf in ?*) resolvconf=$(readlink -f "$resolvconf") ;; esac
  case $resolvconf in
  '' | */resolvectl) ;;
  *) if [ -e /etc/resolvconf.conf ]; then echo 'resolvconf openresolv'; else echo 'resolvconf resolvconf'; fi ;;
  esac
  if [ -d /run/systemd/system ]; then
    resolved=$target
    if [ -d /run/systemd/resolve ]; then resolved=/systemd/; fi
    case $resolved in
    */systemd/*)
      startup=$(soon systemctl is-enabled systemd-resolved.service)
      status=$?
      # Of one that is not there, some print nothing; so does one that cannot tell, or not in time.
      if [ -z "$startup" ] && [ $status != 124 ]; then
        startup=not-found
        for place in /etc /run /usr/local/lib /usr/lib /lib; do
          if [ -e "$place/systemd/system/systemd-resolved.service" ]; then startup=''; fi
        done
      fi
      case $startup in ?*) printf 'startup %s\n' "$startup" ;; esac
      ;;
    esac
  fi
  read -r release </proc/sys/kernel/osrelease
  case $release in *[Mm]icrosoft*) echo 'wsl yes' ;; esac
  armed=''
  if [ -e /var/lib/stackmend/resolver/armed ]; then read -r armed </var/lib/stackmend/resolver/armed; fi
  printf 'armed %s\n' "$armed"
} | quoted
end 0
begin text
text $file | quoted
end 0

# networked LINK NETWORK INDEX: the servers that files of systemd-networkd name for a link, a line
# each and in its order, an empty one where the list begins anew; and those of a lease.
networked() {
  {
    printf '%s\n' "$2"
    # Of drop-ins with one name the first place counts, whatever is there.
    for place in /etc /run /usr/local/lib /usr/lib /lib; do
      for path in "$place/systemd/network/${2##*/}.d"/*.conf; do
        if [ -e "$path" ] || [ -L "$path" ]; then printf '%s\n' "$path"; fi
      done
    done | awk -F / '!known[$NF]++ { print $NF "/" $0 }' | sort -t / -k 1,1 | cut -d / -f 2-
  } | while read -r path; do
    text "$path" | awk -v name="$1" '
      /^[ \t]*\[/ { on = /^[ \t]*\[Network\][ \t\r]*$/ }
      on && /^[ \t]*DNS[ \t]*=/ { sub(/^[^=]*=[ \t]*/, ""); print name, "file", $0 }'
  done
  printf '%s lease %s\n' "$1" "$(text "/run/systemd/netif/leases/$3" | sed -n 's/^DNS=//p' | tr '\n' ' ')"
}

tunnels='' links='' lasting=''
for path in /sys/class/net/*; do
  link=${path##*/} kind=plain index='' network=''
  if [ -e "$path/tun_flags" ]; then kind=tunnel; fi
  case $link in tun[0-9]* | tap[0-9]* | wg[0-9]* | ppp[0-9]* | tailscale* | zt* | nordlynx) kind=tunnel ;; esac
  while read -r line; do
    case $line in DEVTYPE=wireguard) kind=tunnel ;; IFINDEX=*) index=${line#*=} ;; esac
  done 2>/dev/null <"$path/uevent"
  if [ -f "/run/systemd/netif/links/$index" ]; then
    network=$(sed -n 's/^NETWORK_FILE=//p' "/run/systemd/netif/links/$index")
    # What resolvectl told systemd-networkd is in none of these.
    lasting="$lasting$(networked "$link" "$network" "$index")
"
  fi
  if [ $kind = tunnel ]; then tunnels=yes; fi
  links="$links$kind $link $network
"
done
begin links
printf %s "$links" | quoted
end 0
begin lasting
printf %s "$lasting" | quoted
end 0
begin default
awk 'FNR == 1 { file++ }
  file == 1 && $2 == "00000000" && $8 == "00000000" { print $1 }
  file == 2 && $1 ~ /^0+$/ && $2 == "00" && $NF != "lo" { print $NF }' \
  /proc/net/route /proc/net/ipv6_route 2>/dev/null | quoted
end 0
begin routes
if [ -n "$tunnels" ] && has ip; then
  text $file | awk '$1 == "nameserver" { print $2 }' | head -n 8 | while read -r server; do
    case $server in 127.* | ::1 | -* | *[!0-9A-Fa-f.:]*) continue ;; esac
    printf '%s %s\n' "$server" "$(ip route get "$server" 2>/dev/null | sed -n 's/.* dev \([^ ]*\).*/\1/p' | head -n 1)"
  done
fi | quoted
end 0

if [ -S /run/systemd/resolve/io.systemd.Resolve ] && has resolvectl; then
  begin mode
  soon busctl get-property org.freedesktop.resolve1 /org/freedesktop/resolve1 \
    org.freedesktop.resolve1.Manager ResolvConfMode | quoted
  end 0
  section dns soon resolvectl dns
  section domain soon resolvectl domain
fi
if has nmcli && [ -d /run/NetworkManager ]; then
  begin dns-mode
  soon busctl get-property org.freedesktop.NetworkManager /org/freedesktop/NetworkManager/DnsManager \
    org.freedesktop.NetworkManager.DnsManager Mode | quoted
  end 0
  connections=$(soon nmcli -t -e no -f UUID,TYPE,DEVICE,FILENAME connection show --active | head -n 32)
  section connections printf '%s\n' "$connections"
  begin settings
  printf '%s\n' "$connections" | cut -d : -f 1 | while read -r uuid; do
    case $uuid in '' | *[!0-9a-f-]*) continue ;; esac
    soon nmcli -t -e no -f ipv4.method,ipv4.dns,ipv4.ignore-auto-dns,ipv4.dns-search,ipv6.method,ipv6.dns,ipv6.ignore-auto-dns,ipv6.dns-search,IP4.DNS,IP6.DNS \
      connection show "$uuid" | sed "s/^/$uuid /"
  done | quoted
  end 0
fi
if [ -d /run/resolvconf/interfaces ] || [ -d /run/resolvconf/interface ]; then
  # words KEYWORDS: what the records of interfaces have behind these, each with its interface.
  words() {
    for path in /run/resolvconf/interfaces/* /run/resolvconf/interface/*; do
      if [ -f "$path" ]; then
        awk -v name="${path##*/}" -v keywords=" $1 " 'index(keywords, " " $1 " ") {
          for (i = 2; i <= NF && (i == 2 || $1 != "nameserver"); i++) print $i, name
        }' "$path" | head -n 16
      fi
    done
  }
  begin records
  words nameserver | quoted
  end 0
  begin searches
  words 'search domain' | quoted
  end 0
fi

number=0
for path in /etc/systemd/resolved.conf.d/60-stackmend.conf /etc/resolvconf.conf \
  /etc/resolvconf/resolv.conf.d/head /etc/dhcp/dhclient-enter-hooks.d/zz-stackmend \
  /etc/dhcpcd.conf /etc/wsl.conf /etc/tmpfiles.d/60-stackmend-resolver.conf; do
  number=$((number + 1))
  if [ -f "$path" ]; then
    begin "file$number"
    text "$path" | quoted
    end 0
  fi
done
# Side by side: a server that is silent costs its wait once.
if [ $# -gt 0 ] && has getent && has timeout; then
  begin resolved
  {
    for name; do
      if timeout 8 getent ahosts "$name" >/dev/null 2>&1 </dev/null; then printf '%s\n' "$name"; fi &
    done
    wait
  } | quoted
  end 0
fi
section whole true
