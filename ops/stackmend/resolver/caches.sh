# Which DNS caches run, and whether they say what the servers behind them do. Changes nothing.
# Writes sections (connection/frame.sh). Arguments: for each name: the name, and the questions for its
# IPv4 and its IPv6 addresses.
running=' '
for process in /proc/[0-9]*/comm; do
  read -r name 2>/dev/null <"$process" || continue
  # The kernel keeps 15 letters.
  case $name in systemd-resolve | dnsmasq | unbound | nscd) running="$running$name " ;; esac
done
begin host
{
  printf 'root %s\n' "$(id -u)"
  if [ -d /System/Library ]; then echo 'system Darwin'; fi
  release=''
  if [ -e /proc/sys/kernel/osrelease ]; then read -r release </proc/sys/kernel/osrelease; fi
  case $release in *[Mm]icrosoft*) echo 'wsl yes' ;; esac
} | quoted
end 0
if [ "$running" = ' ' ]; then
  for section in caches domain whole; do
    begin $section
    end 0
  done
  exit
fi
if ! has bash || ! has od || ! has dd || ! has timeout || ! has getent; then
  section missing true
  exit
fi

runs() { case $running in *" $1 "*) ;; *) return 1 ;; esac }
# answers_here NAME: whether it is this one that answers at $own. There may be others: libvirt has a dnsmasq.
answers_here() {
  runs "$1" || return 1
  has ss || return 0
  ss -H -lunp 'sport = :53' 2>/dev/null | awk -v own="$own" -v name="((\"$1\"" '
    { sub(/%[^:]*/, "", $4) }
    index($0, name) && ($4 == own ":53" || $4 ~ /^(0\.0\.0\.0|\*|\[::\]):53$/) { found = 1 }
    END { exit !found }'
}
# addresses FILE...: the servers that these files name, but for this host's own.
addresses() {
  for file; do if [ -f "$file" ]; then head -c 65536 -- "$file"; fi; done 2>/dev/null | awk '$1 == "nameserver" && $2 !~ /^127\./ && $2 != "::1" { print $2 }' | only
}
only() { grep -E '^[0-9A-Fa-f.:]+(%[A-Za-z0-9_.-]+)?$' | sort -u | head -n 3; }
number() { sed -n 's/^ *\([0-9]\{1,12\}\)$/\1/p' | head -n 1; }
own=''
if [ -f /etc/resolv.conf ]; then
  own=$(awk '$1 == "nameserver" && $2 ~ /^127\./ && $2 !~ /^127\.0\.0\.5[34]$/ { print $2 }' /etc/resolv.conf 2>/dev/null | only | head -n 1)
fi
own=${own:-127.0.0.1}
resolved='' dnsmasq='' unbound='' nscd='' caches=''

begin caches
{
  if runs systemd-resolve; then
    caches="$caches systemd-resolved"
    resolved=$(addresses /run/systemd/resolve/resolv.conf)
    printf 'systemd-resolved size %s\n' "$(
      timeout 5 busctl get-property org.freedesktop.resolve1 /org/freedesktop/resolve1 \
        org.freedesktop.resolve1.Manager CacheStatistics 2>/dev/null | awk '{ print $2 }' | number
    )"
  fi
  if answers_here dnsmasq; then
    caches="$caches dnsmasq"
    dnsmasq=$(cat /etc/dnsmasq.conf /etc/dnsmasq.d/*.conf 2>/dev/null | sed -n 's/^server=//p' | only)
    if [ -z "$dnsmasq" ]; then dnsmasq=$(addresses /run/dnsmasq/resolv.conf /etc/resolv.conf); fi
    printf 'dnsmasq size \n'
  fi
  if answers_here unbound; then
    caches="$caches unbound"
    unbound=$(timeout 5 unbound-control list_forwards 2>/dev/null |
      awk '$1 == "." { for (i = 4; i <= NF; i++) print $i }' | only)
    printf 'unbound size %s\n' "$(
      timeout 5 unbound-control stats_noreset 2>/dev/null |
        sed -n 's/^\(rrset\|msg\)\.cache\.count=\([0-9]*\)$/\2/p' | awk '{ n += $1 } END { if (NR) print n }' | number
    )"
  fi
  if runs nscd; then
    caches="$caches nscd"
    nscd=$(addresses /etc/resolv.conf)
    if [ -z "$nscd" ]; then nscd=${resolved:-${dnsmasq:-$unbound}}; fi
    printf 'nscd size %s\n' "$(
      timeout 5 nscd -g 2>/dev/null |
        awk '/^hosts cache:/ { on = 1 } on && /current number of cached values/ { print $1; exit }' | number
    )"
  fi
  for server in $resolved; do printf 'systemd-resolved upstream %s\n' "$server"; done
  for server in $dnsmasq; do printf 'dnsmasq upstream %s\n' "$server"; done
  for server in $unbound; do printf 'unbound upstream %s\n' "$server"; done
  for server in $nscd; do printf 'nscd upstream %s\n' "$server"; done
  while [ $# -gt 2 ]; do
    # An entry of the hosts file is no answer of a server.
    if ! awk -v name="$1" '{ sub(/#.*/, ""); for (i = 2; i <= NF; i++) if ($i == name) found = 1 } END { exit !found }' /etc/hosts 2>/dev/null; then
      for cache in $caches; do
        case $cache in
        systemd-resolved) at=127.0.0.53 upstream=$resolved ;;
        dnsmasq) at=$own upstream=$dnsmasq ;;
        unbound) at=$own upstream=$unbound ;;
        nscd) at='' upstream=$nscd ;;
        esac
        printf '%s asked %s\n' "$cache" "$1"
        if [ -n "$at" ]; then
          ask "$cache cached $1 4" "$at" "$2" &
          ask "$cache cached $1 6" "$at" "$3" &
        else
          printf '%s looked %s\n' "$cache" "$(resolve_name "$1")" &
        fi
        for server in $upstream; do
          ask "$cache $server $1 4" "$server" "$2" &
          ask "$cache $server $1 6" "$server" "$3" &
        done
      done
    fi
    shift 3
  done
  wait
} | quoted
end 0
begin domain
if runs systemd-resolve; then timeout 5 resolvectl domain 2>/dev/null </dev/null; fi | quoted
end 0
section whole true
