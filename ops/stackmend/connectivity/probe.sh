# What this host meets on its way to each endpoint, layer by layer, all at once. Changes nothing: what
# it writes lies in a directory of its own, removed at the end.
#
# Arguments: SECONDS PROJECT PACKAGES(yes|no), then one for each endpoint: "KIND SCHEME HOST PORT PATH
# REPOSITORY ADDRESSES", where "-" stands for none and commas divide addresses; values without blanks.
#
# exchange.py and echo.py go before it, as $exchange_py and $echo_py.
#
# Writes one section of lines "INDEX PLACE WORD VALUES", where PLACE is host or container and INDEX is
# "-" for what is of no endpoint.
# First of all: the controller counts the seconds around it.
now=$(date +%s)
LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin
export LC_ALL PATH
seconds=$1 project=$2 packages=$3
shift 3
half=$(((seconds + 1) / 2))
tenths=$(awk -v n="$((half * 10 - 10))" 'BEGIN { while (n-- > 0) print n }' </dev/null)
dir='' within=''
for place in /dev/shm /run /tmp "${TMPDIR:-/var/tmp}"; do
  dir=$(mktemp -d "$place/stackmend-connectivity.XXXXXX" 2>/dev/null) && break
  dir=''
done
[ -n "$dir" ] || { echo 'no directory for temporary files can be made on this host' >&2; exit 71; }
trap 'rm -rf "$dir"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 141' PIPE
trap 'exit 143' TERM

has() { command -v "$1" >/dev/null 2>&1; }
# One line of what others wrote, at most $1 bytes.
line() { tr -s '\000-\037\177' ' ' | cut -c "1-$1"; }
# Has the milliseconds since the start of the host in $clock, to a hundredth of a second.
tick() {
  read -r clock _ </proc/uptime
  clock=${clock%.*}${clock#*.}0
  clock=${clock#"${clock%%[!0]*}"}
  clock=${clock:-0}
}
counted() { awk '$1 == "Tcp:" && n++ { print $13 + 0 }' /proc/net/snmp 2>/dev/null; }

# Questions for DNS, "ID TYPE QUESTION" with escapes of printf: three for A, one for AAAA. awk knows
# no character's number by itself.
questions='
BEGIN {
  for (i = 1; i < 256; i++) code[sprintf("%c", i)] = i
  count = split(name, labels, ".")
  for (i = 1; i <= count; i++) {
    if (labels[i] == "") continue
    asked = asked sprintf("\\%03o", length(labels[i]))
    for (j = 1; j <= length(labels[i]); j++) asked = asked sprintf("\\%03o", code[substr(labels[i], j, 1)])
  }
  for (i = 0; i < 4; i++) {
    id++
    printf "%d %d \\%03o\\%03o\\001\\000\\000\\001\\000\\000\\000\\000\\000\\000", id, i < 3 ? 1 : 28, id / 256, id % 256
    printf "%s\\000\\000\\%03o\\000\\001\n", asked, i < 3 ? 1 : 28
  }
}'
# Lines "ID TYPE MS RC HEX" to lines "FAMILY STATUS MS ADDRESS...".
# shellcheck disable=SC2016 # the fields of awk
answer='
function at(i) { return i < size ? hex(substr(data, 2 * i + 1, 2)) : 0 }
function hex(t) { return 16 * (index("0123456789abcdef", substr(t, 1, 1)) - 1) + index("0123456789abcdef", substr(t, 2, 1)) - 1 }
function skip(i, n) {
  for (n = 0; n < 128 && i < size; n++) {
    if (at(i) >= 192) return i + 2
    if (at(i) == 0) return i + 1
    i += at(i) + 1
  }
  return size
}
{
  family = $2 == 1 ? 4 : 6; data = $5; size = length(data) / 2; status = ""; list = ""
  if ($4 == 124 || $4 == 143) status = "timeout"
  else if ($4 == 9) status = "unreachable"
  else if ($4 == 8) status = "filtered"
  else if (size == 0) status = "refused"
  else if (size < 12 || at(0) * 256 + at(1) != $1 || at(2) < 128) status = "unreadable"
  else if (at(3) % 16 == 3) status = "absent"
  else if (at(3) % 16 == 5) status = "denied"
  else if (at(3) % 16) status = "failed"
  else {
    i = 12
    for (n = at(4) * 256 + at(5); n > 0 && i < size; n--) i = skip(i) + 4
    found = 0
    for (n = at(6) * 256 + at(7); n > 0 && i < size && found < 4; n--) {
      i = skip(i); type = at(i) * 256 + at(i + 1); long = at(i + 8) * 256 + at(i + 9); i += 10
      if (type == $2 && type == 1 && long == 4 && i + 4 <= size) {
        found++; list = list " " at(i) "." at(i + 1) "." at(i + 2) "." at(i + 3)
      } else if (type == $2 && type == 28 && long == 16 && i + 16 <= size) {
        found++; list = list " "
        for (j = 0; j < 16; j += 2) list = list (j ? ":" : "") substr(data, 2 * (i + j) + 1, 4)
      }
      i += long
    }
    status = found ? "answered" : "none"
  }
  print family, status, $3, list
}'
# Server, limit, then ID TYPE QUESTION of each; all at once. /usr/bin/printf writes a question whole,
# where bash begins a new packet at each newline.
# shellcheck disable=SC2016 # these are the variables of that bash
udp='
set -o pipefail
server=$1 limit=$2
shift 2
tick() { read -r clock _ </proc/uptime; clock=${clock/./}0; clock=$((10#$clock)); }
while [ $# -gt 0 ]; do
  {
    tick; began=$clock data=""
    if ! { exec 3<>"/dev/udp/$server/53"; } 2>/dev/null; then
      rc=9
    elif ! env printf "$3" >&3; then
      rc=8
    else
      data=$(timeout "$limit" dd bs=4096 count=1 <&3 2>/dev/null | od -An -v -tx1)
      rc=$?
      data=${data//[[:space:]]/}
    fi
    tick
    echo "$1 $2 $((clock - began)) $rc $data"
  } &
  shift 3
done 2>/dev/null
wait
'
# Address, port, how many, seconds from one to the next, and for how many seconds any begins: a server
# with a short queue is not to be flooded. Prints for each that it began, and if it ended its
# milliseconds and exit status.
# shellcheck disable=SC2016 # these are the variables of that bash
tcp='
trap "kill \$(jobs -p); exit 0" TERM
exec 9<> <(:)
tick() { read -r clock _ </proc/uptime; clock=${clock/./}0; clock=$((10#$clock)); }
tick
last=$((clock + $5 * 1000))
for ((i = 0; i < $3; i++)); do
  tick
  ((i == 0 || clock < last)) || break
  echo "$i begin"
  {
    began=$clock
    : <>"/dev/tcp/$1/$2"
    rc=$?
    tick
    echo "$i $((clock - began)) $rc"
  } &
  read -r -t "$4" -u 9
done
wait
'
# Address, port, limit: what an SSH server says first. Exits as curl would.
# shellcheck disable=SC2016 # these are the variables of that bash
greet='
{ exec 3<>"/dev/tcp/$1/$2"; } || exit 7
echo connected
banner=$(timeout "$3" dd bs=1 count=4 <&3)
case $?:$banner in
  *:SSH-) exit 0 ;;
  124:*) exit 28 ;;
  0:?*) exit 8 ;;
  *) exit 52 ;;
esac
'
# The same exchange in packets of 536 bytes at most: the kernel tells the other side.
small='
import socket, ssl, sys
address, port, tls, host, path, seconds = sys.argv[1:7]
s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
s.settimeout(float(seconds))
s.connect((address, int(port)))
if tls == "yes": s = ssl._create_unverified_context().wrap_socket(s, server_hostname=host)
s.sendall(("GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: stackmend\r\nConnection: close\r\n\r\n" % (path, host)).encode())
sys.exit(0 if s.recv(1) else 1)
'

# Runs a command in the place that is looked from, for at most $1 seconds.
limited() {
  limit=$1
  shift
  # shellcheck disable=SC2086 # the words of a command, or none
  timeout "$limit" $within "$@"
}
say() { printf '%s %s %s\n' "$index" "$at" "$1"; }

ask_server() {
  # shellcheck disable=SC2046 # three words for each question
  set -- $(awk -v name="$host" -v id="$(($$ % 60000 + index))" "$questions" </dev/null)
  limited "$((half + 2))" bash -c "$udp" bash "$server" "$half" "$@" </dev/null 2>/dev/null |
    awk "$answer" | while read -r row; do say "lookup $server $row"; done
}

ask_resolver() {
  tick
  began=$clock
  row=$(RES_OPTIONS="timeout:$half attempts:1" timeout "$seconds" getent ahosts "$host" </dev/null 2>/dev/null)
  rc=$?
  tick
  found=$(printf '%s\n' "$row" | awk '$1 ~ /^[0-9A-Fa-f:.]+$/ && !seen[$1]++ && n++ < 8 { printf " %s", $1 }')
  case $rc in
    0) status=answered ;;
    124 | 143) status=timeout ;;
    *) status=failed ;;
  esac
  say "lookup - 0 $status $((clock - began))$found"
}

# Address, port, how many, seconds between them, file.
shake() {
  limited "$seconds" bash -c "$tcp" bash "$1" "$2" "$3" "$4" "$half" </dev/null 2>"$5.err" >"$5"
}

connect() {
  shake "$address" "$port" 3 0.1 "$file.tcp.$address"
  reason=failed
  case $(tail -n 1 "$file.tcp.$address.err") in
    *refused*) reason=refused ;;
    *'No route'* | *unreachable*) reason=unreachable ;;
    *'timed out'*) reason=timeout ;;
  esac
  awk -v limit="${seconds}000" -v reason="$reason" '
    NF == 3 { print $2, $3 ? reason : "connected"; n++ }
    END { for (; n < 3; n++) print limit, "timeout" }' "$file.tcp.$address" |
    while read -r took status; do say "connect $address $status $took"; done
}

# How many handshakes began, how many were late, and how often one was that came after one in time.
count_late() {
  awk '
    NF == 2 { begun++; late[$1] = 1 }
    NF == 3 && $2 < 900 { late[$1] = 0 }
    END {
      for (i = 0; i < begun; i++) { all += late[i]; spells += late[i] && !(i && late[i - 1]) }
      print begun + 0, all + 0, spells + 0
    }' "$1"
}

# The rate at which packets are lost on the way to $address, by one alone of the endpoints that share
# it, once one has connected.
measure_loss() {
  # The few connections of the other checks go first.
  sleep 0.3
  for try in $tenths; do
    ! grep -q ' 0$' "$file.tcp.$address" 2>/dev/null || break
    sleep 0.1
  done
  grep -q ' 0$' "$file.tcp.$address" 2>/dev/null && mkdir "$dir/measured.$address" 2>/dev/null || return
  send_echoes &
  # The same with the host itself, where nothing can be lost: how late a busy host alone makes it.
  shake 127.0.0.1 1 50 0.04 "$file.self" &
  shake "$address" "$port" 50 0.04 "$file.many"
  wait
  say "burst $address $(count_late "$file.many") $(count_late "$file.self" | cut -d ' ' -f 1,2) $(cat "$file.echo" 2>/dev/null || echo 0 0)"
}

send_echoes() {
  row=''
  ! has ping || row=$(limited "$seconds" ping -n -q -c 100 -i 0.02 -W 1 "$address" </dev/null 2>/dev/null |
    sed -n 's/^\([0-9]*\) packets transmitted, \([0-9]*\) .*received.*/\1 \2/p')
  # shellcheck disable=SC2154 # the program goes before this script
  [ -n "$row" ] || ! has python3 || row=$(limited "$seconds" python3 -I -c "$echo_py" "$address" </dev/null 2>/dev/null)
  [ -z "$row" ] || printf '%s\n' "$row" >"$file.echo"
}

# One exchange; $address may be empty, where a proxy finds it.
exchange() {
  out=$file.${address:-proxy}.$1
  route=$address
  case $route in *:*) route="[$route]" ;; esac
  name=$host
  case $name in *:*) name="[$name]" ;; esac
  set -- -q -g -s -S --max-time "$seconds" -A stackmend -o /dev/null -D "$out.head"
  if [ -n "$address" ]; then
    set -- "$@" --noproxy '*' --resolve "$host:$port:$route"
  elif [ -n "$outside" ]; then
    set -- "$@" --resolve "$outside"
  fi
  rc=0
  if [ "$client" = python3 ]; then
    [ -n "$address" ] || return
    # shellcheck disable=SC2154 # the program goes before this script
    limited "$((seconds + 1))" python3 -I -c "$exchange_py" "$seconds" "$scheme" "$host" "$port" "$path" "$address" "$out.head" \
      </dev/null >"$out.curl" 2>"$out.err" || rc=$?
  else
    # The proxy may name a password: it goes by the input.
    { [ -n "$address" ] || printf 'proxy = "%s"\n' "$proxy"; } |
      limited "$((seconds + 1))" curl -K - "$@" \
        -w '%{http_code} %{http_connect} %{time_connect} %{time_appconnect} %{time_total} %{size_download}\n' \
        "$scheme://$name:$port$path" >"$out.curl" 2>"$out.err" || rc=$?
  fi
  [ "$rc" -ne 124 ] || rc=28
  read -r numbers <"$out.curl"
  # Ended from outside, it says nothing.
  numbers=${numbers:-000 000 0 0 0 0}
  # What took any time at all is not nothing: milliseconds are rounded up.
  awk -v row="$index $at answer ${address:--} $rc" -v numbers="$numbers" '
    function ms(t) { t *= 1000; return int(t) + (t > int(t)) }
    BEGIN { split(numbers, n, " "); print row, n[1], n[2], ms(n[3]), ms(n[4]), ms(n[5]), n[6] }' </dev/null
  [ ! -s "$out.err" ] || say "error ${address:--} $rc $(line 300 <"$out.err" | sed 's/^curl: ([0-9]*) //; s/ More details here.*//')"
  [ ! -s "$out.head" ] || head -c 16384 "$out.head" | tr '\000-\011\013-\037\177' ' ' |
    awk -F: -v row="$index $at header ${address:--}" '
      BEGIN {
        split("date content-type location retry-after ratelimit-limit ratelimit-remaining ratelimit-reset x-ratelimit-remaining x-ratelimit-reset docker-distribution-api-version proxy-authenticate via server", names, " ")
        for (i in names) known[names[i]] = 1
      }
      { key = tolower($1) }
      key in known && !seen[key]++ { sub(/^[^:]*: */, ""); print row, substr(key " " $0, 1, 300) }'
}
hide_login() { printf '%s' "$1" | sed 's/^\([a-z0-9]*:\/\/\)\{0,1\}.*@/\1/'; }
line_by_line() { tr '\000-\011\013-\037\177' ' ' | cut -c 1-300; }

greet() {
  limited "$((seconds + 1))" bash -c "$greet" bash "$address" "$port" "$seconds" </dev/null >"$file.greet.$1.$address" 2>"$file.greet.$1.$address.err"
  rc=$?
  case $rc:$(cat "$file.greet.$1.$address.err") in
    52:*'reset by peer'*) rc=56 ;;
    124:*) rc=28 ;;
  esac
  connected=0
  [ ! -s "$file.greet.$1.$address" ] || connected=1
  say "answer $address $rc 0 0 $connected 0 0 0"
}

# Whether small packets bring what large ones do not: tried where no exchange ends soon, while they go
# on.
exchange_small() {
  for try in $tenths; do
    for ended in "$file.$address".[123].curl; do [ ! -s "$ended" ] || return; done
    sleep 0.1
  done
  grep -q ' 0$' "$file.tcp.$address" || return
  if ! has python3; then
    say 'skip MTU python3 is not on the host'
    return
  fi
  tls=no
  [ "$scheme" != https ] || tls=yes
  if limited "$half" python3 -I -c "$small" "$address" "$port" "$tls" "$host" "$path" "$half" </dev/null >/dev/null 2>&1; then
    say 'small yes'
  else
    say 'small no'
  fi
}

# The server's clock, where its certificate was not believed.
read_date() {
  if [ "$at" = host ] && [ "$client" = curl ] &&
    grep -q "^$index host answer $address 60 " "$file.rows"; then
    route=$address
    case $route in *:*) route="[$route]" ;; esac
    # Believed in nothing but the time.
    limited "$half" curl -q -g -s -k -I --max-time "$half" --noproxy '*' --resolve "$host:$port:$route" \
      -o /dev/null -D - -A stackmend "$scheme://$host:$port$path" </dev/null 2>/dev/null |
      tr -d '\r' | sed -n 's/^[Dd]ate: *//p' | head -n 1 | line 60 | while read -r row; do say "date $row"; done
  fi
}

# What a registry says is left: to anybody, with the token that it gives to anybody.
read_rate() {
  ask() { printf '%s' "$1" | limited "$seconds" curl -q -g -s -K - --max-time "$seconds" --noproxy '*' -A stackmend "$2" "$3" 2>/dev/null; }
  realm=$(ask '' -I "$scheme://$host:$port/v2/" | tr -d '\r' |
    sed -n 's/^[Ww][Ww][Ww]-[Aa]uthenticate: *Bearer realm="\(https\{0,1\}:\/\/[A-Za-z0-9._:\/-]*\)",service="\([A-Za-z0-9._:-]*\)".*/\1?service=\2/p' | head -n 1)
  header=''
  if [ -n "$realm" ]; then
    token=$(ask '' -L "$realm&scope=repository:$repository:pull" |
      sed -n 's/.*"token" *: *"\([A-Za-z0-9._~+\/=-]*\)".*/\1/p' | head -n 1)
    if [ -z "$token" ]; then
      say 'skip rate limit: curl got no token for anybody'
      return
    fi
    header="header = \"Authorization: Bearer $token\""
  fi
  limits=$(ask "$header" -I "$scheme://$host:$port/v2/$repository/manifests/latest" | tr -d '\r' | line_by_line |
    awk 'NR == 1 { print "status", $2 } { key = tolower($1); sub(/:$/, "", key) }
      key ~ /^ratelimit-(limit|remaining|reset)$/ { print substr(key, 11), $2 }')
  if [ -z "$limits" ]; then
    say 'skip rate limit: curl got no answer'
    return
  fi
  printf '%s\n' "$limits" | while read -r row; do say "rate $row"; done
}

# Has the addresses in $file.found, once all answers are there, or a while after the first.
wait_for_addresses() {
  while :; do
    complete=yes
    for job in $jobs; do [ -e "$file.names.$job" ] || complete=no; done
    cat "$file".names.* 2>/dev/null | awk '$3 == "lookup" { for (i = 8; i <= NF; i++) print $i }' >"$file.found"
    [ "$complete" = no ] || break
    [ ! -s "$file.found" ] || [ "$waited" -lt 3 ] || break
    [ "$waited" -lt "$((half * 10 + 20))" ] || break
    waited=$((waited + 1))
    sleep 0.1
  done
}

observe_endpoint() {
  file=$dir/$at.$index address='' waited=0 jobs=''
  if [ "$at" = container ] && [ -n "$inner" ]; then
    proxy=$inner
    say "proxy $(hide_login "$proxy")"
  elif [ "$at" = container ] && [ -n "$proxy" ]; then
    say 'skip all its programs are set to use a proxy'
    return
  fi
  case $host in
    *:* | *[!0-9.]*) ;;
    *) address=$host ;;
  esac
  case $host in *:*) address=$host ;; esac
  if [ -z "$address" ]; then
    for server in $servers; do
      jobs="$jobs $server"
      { ask_server >"$file.part.$server"; mv "$file.part.$server" "$file.names.$server"; } &
    done
    if [ "$at" = host ]; then
      if has getent; then
        for job in 1 2 3; do
          jobs="$jobs $job"
          { ask_resolver >"$file.part.$job"; mv "$file.part.$job" "$file.names.$job"; } &
        done
      else
        say 'skip resolver getent is not on the host'
      fi
    fi
  fi
  if [ -n "$proxy" ]; then
    [ "$client" = curl ] || say 'skip the proxy curl is not on the host'
    for try in 1 2 3; do exchange "$try" >"$file.answer.$try" & done
    wait
    cat "$file".names.* "$file".answer.* 2>/dev/null
    return
  fi
  [ -n "$address" ] || wait_for_addresses
  {
    [ -z "$address" ] || echo "$address"
    cat "$file.found" 2>/dev/null
    [ "$hints" = - ] || printf '%s\n' "$hints" | tr , '\n'
  } | awk '!seen[$1]++ { six = $1 ~ /:/; if (count[six]++ < 4) print $1 }' >"$file.addresses"
  first4='' first6='' here=' 127.0.0.1 ::1 '
  while read -r address; do
    if has ip; then
      entry=$(limited 2 ip route get "$address" 2>/dev/null) || entry=''
      case $entry in
        '' | unreachable* | *' src fe80:'*) say "routed $address no" ; case $address in *:*) continue ;; esac ;;
        *) say "routed $address yes" ;;
      esac
      case $entry in local*) say "own $address" ; here="$here$address " ;; esac
    fi
    case $address in
      *:*) first6=${first6:-$address} ;;
      *) first4=${first4:-$address} ;;
    esac
    [ "$bash" = no ] || connect &
  done <"$file.addresses"
  for address in $first4 $first6; do
    for try in 1 2 3; do
      case $scheme in
        ssh) [ "$bash" = no ] || greet "$try" & ;;
        tcp) ;;
        *) [ -z "$client" ] || { sleep "0.$((try - 1))" ; exchange "$try"; } & ;;
      esac >"$file.answer.$address.$try"
    done
    case $scheme in http*) [ -z "$client" ] || exchange_small & ;; esac
  done
  address=${first4:-$first6}
  if [ -n "$address" ] && [ "$at" = host ]; then
    # Who greets nobody a hundred times takes it for an attack, and shuts us out; and nothing is lost
    # on the way to the host itself.
    case "$scheme:$bash:$here" in
      ssh:* | *:no:* | *" $address "*) ;;
      *) measure_loss >"$file.measured" & ;;
    esac
    if [ "$repository" != - ] && [ "$client" = curl ]; then read_rate & fi
  fi
  wait
  cat "$file".names.* "$file".answer.* "$file.measured" 2>/dev/null >"$file.rows"
  cat "$file.rows"
  for address in $first4 $first6; do read_date; done
}

# Observes each endpoint from one place.
observe() {
  at=$1 servers=$2 within=$3 index=0
  while read -r kind scheme host port path repository hints proxy inner outside; do
    index=$((index + 1))
    [ "$proxy" != - ] || proxy=''
    [ "$inner" != - ] || inner=''
    [ "$at" = container ] && [ "$outside" != - ] || outside=''
    { observe_endpoint >"$dir/$at.$index.row" 2>"$dir/$at.$index.err"; } &
  done <"$dir/endpoints"
  wait
}

# The origin of each of the host's own package sources, once.
list_packages() {
  {
    cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
      sed -n 's/^[[:space:]]*deb[[:space:]]\{1,\}\(\[[^]]*\][[:space:]]*\)\{0,1\}\([^[:space:]]*\)[[:space:]]\{1,\}\([^[:space:]]*\).*/\2 dists\/\3\/InRelease/p'
    for source in /etc/apt/sources.list.d/*.sources; do
      [ -f "$source" ] || continue
      awk 'function flush() { if (uri != "" && enabled != "no") print uri, "dists/" suite "/InRelease"; uri = ""; suite = ""; enabled = "" }
        /^[[:space:]]*$/ { flush() }
        tolower($1) == "uris:" { uri = $2 }
        tolower($1) == "suites:" { suite = $2 }
        tolower($1) == "enabled:" { enabled = tolower($2) }
        END { flush() }' "$source"
    done
    cat /etc/yum.repos.d/*.repo 2>/dev/null | awk -F= '
      /^\[/ { if (url != "" && on) print url, ""; url = ""; on = 1 }
      /^enabled[[:space:]]*=[[:space:]]*0/ { on = 0 }
      /^(baseurl|metalink|mirrorlist)[[:space:]]*=/ { if (url == "") { url = $2; gsub(/[[:space:]]|[?].*/, "", url) } }
      END { if (url != "" && on) print url, "" }'
    sed -n 's/^\(https\{0,1\}:[^[:space:]]*\).*/\1 /p' /etc/apk/repositories 2>/dev/null
  } | awk '
    $1 ~ /^https?:\/\/[A-Za-z0-9._-]+(:[0-9]+)?(\/[A-Za-z0-9._~\/-]*)?$/ && $2 ~ /^[A-Za-z0-9._~\/-]*$/ {
      scheme = $1; sub(/:.*/, "", scheme)
      rest = $1; sub(/^[^:]*:\/\//, "", rest)
      path = rest; if (!sub(/^[^\/]*\//, "/", path)) path = "/"
      sub(/\/.*/, "", rest)
      port = scheme == "https" ? 443 : 80
      if (rest ~ /:/) { port = rest; sub(/.*:/, "", port); sub(/:.*/, "", rest) }
      if (path !~ /\/$/) path = path "/"
      if (!seen[scheme rest port]++ && n++ < 16 && port <= 65535)
        print "packages", scheme, rest, port, path ($2 == "" ? "" : $2), "-", "-"
    }'
}

# Has in $proxy what the programs that speak to an endpoint are set to use; empty for none.
find_proxy() {
  proxy=''
  from=''
  case $kind in
    registry)
      from=$dir/dockerd
      ;;
    packages)
      has apt-config && proxy=$(apt-config dump "Acquire::$scheme::Proxy" 2>/dev/null | sed -n 's/^[^ ]* "\(http[^"]*\)";$/\1/p' | head -n 1)
      [ -n "$proxy" ] || return
      ;;
    *) from=$dir/own ;;
  esac
  [ -z "$from" ] || proxy=$(sed -n "s/^\($scheme\)_proxy=//p" "$from" | head -n 1)
  check_proxy
}
# Has in $inner what builds and containers get, from the one whom docker runs as, and in $outside
# where the host finds it: NAME:PORT:ADDRESS.
find_inner_proxy() {
  from=$dir/inner
  inner=$(sed -n "s/^\($scheme\)_proxy=//p" "$from" | head -n 1)
  proxy=$inner
  check_proxy
  # A name is resolved here: no resolver of the host is reached from a container's network. The name
  # stays: the proxy's certificate has to be for it.
  outside='' rest=${proxy#*://}
  rest=${rest##*@}
  name=${rest%%[:/]*} number=${rest#"$name"}
  number=${number%%/*}
  number=${number#:}
  if [ -z "$number" ]; then
    # As curl has it.
    case $proxy in https://*) number=443 ;; *) number=1080 ;; esac
  fi
  case $name in
    '' | *[!A-Za-z0-9.-]*) ;;
    *[!0-9.]*)
      [ "$name" = "$resolved" ] ||
        found=$(timeout 5 getent ahosts "$name" </dev/null 2>/dev/null |
          awk '/^[0-9.]+ / && !four { four = $1 } /^[0-9a-f]*:[0-9a-f:.]+ / && !six { six = "[" $1 "]" } END { print four ? four : six }')
      resolved=$name address=$found
      case $number in *[!0-9]*) address='' ;; esac
      [ -z "$address" ] || outside=$name:$number:$address
      ;;
  esac
  inner=$proxy
}
# Has $proxy emptied where $from excepts $host from it.
check_proxy() {
  case $proxy in
    *[!!-~]* | *'"'* | *\\*) proxy='' ;;
  esac
  [ -n "$proxy" ] || return
  # As Go and curl read it: names, domains, * for all.
  except=$(sed -n 's/^no_proxy=//p' "${from:-/dev/null}" | head -n 1 | tr ',' ' ')
  # A * is none of the names of files here.
  set -f
  for name in $except 127.0.0.1 localhost; do
    case $name in
      '*') proxy='' ;;
      .*) case $host in *"$name") proxy='' ;; esac ;;
      *) case $host in "$name" | *."$name") proxy='' ;; esac ;;
    esac
  done
  set +f
}

tick
began=$clock
before=$(counted)
bash=yes client=''
if has curl; then client=curl; elif has python3; then client=python3; fi
has bash || bash=no
if ! has timeout; then
  echo 'the command timeout is not on this host: no wait could be limited' >&2
  exit 69
fi

# The variables' names alone are made small: a password stays as it is.
# shellcheck disable=SC2016 # the fields of awk
lower='{ at = index($0, "="); key = tolower(substr($0, 1, at - 1)); if (key ~ /^(https?|no)_proxy$/) print key substr($0, at) }'
env | awk "$lower" >"$dir/own"
resolved=''
tr -d '\n' <"${DOCKER_CONFIG:-${HOME:-/root}/.docker}/config.json" 2>/dev/null |
  sed -n 's/.*"proxies"[[:space:]]*:[[:space:]]*{[[:space:]]*"default"[[:space:]]*:[[:space:]]*{\([^}]*\)}.*/\1/p' |
  sed 's/",/"\n/g' |
  sed -n 's/.*"\(https\{0,1\}\|no\)Proxy"[[:space:]]*:[[:space:]]*"\([^"]*\)".*/\1_proxy=\2/p' >"$dir/inner"
pid=$(pidof dockerd 2>/dev/null | cut -d ' ' -f 1)
{
  tr -d '\n' </etc/docker/daemon.json 2>/dev/null |
    sed -n 's/.*"proxies"[[:space:]]*:[[:space:]]*{\([^}]*\)}.*/\1/p' | tr ',' '\n' |
    sed -n 's/.*"\(https\{0,1\}\|no\)-proxy"[[:space:]]*:[[:space:]]*"\([^"]*\)".*/\1_proxy=\2/p'
  [ -z "$pid" ] || tr '\0' '\n' <"/proc/$pid/environ" | awk "$lower"
} 2>/dev/null >"$dir/dockerd"

{
  for endpoint; do printf '%s\n' "$endpoint"; done
  [ "$packages" = no ] || list_packages
} | while read -r kind scheme host port path repository hints; do
  find_inner_proxy
  find_proxy
  printf '%s\n' "$kind $scheme $host $port $path $repository $hints ${proxy:--} ${inner:--} ${outside:--}"
done >"$dir/endpoints"

# Whoever opens a FIFO waits.
servers=$([ ! -f /etc/resolv.conf ] || awk '$1 == "nameserver" && $2 ~ /^[0-9A-Fa-f:.]+(%[A-Za-z0-9_.-]+)?$/ && n++ < 3 { print $2 }' /etc/resolv.conf 2>/dev/null)
case "
$servers
" in
  *"
127."* | *"
::1
"*)
    # Whom a cache of the host's own asks.
    upstream=$(cat /run/systemd/resolve/resolv.conf /run/dnsmasq/resolv.conf 2>/dev/null |
      awk '$1 == "nameserver" && $2 ~ /^[0-9A-Fa-f:.]+$/ && $2 !~ /^127[.]/ && !seen[$2]++ && n++ < 3 { print $2 }')
    servers="$servers $upstream"
    ;;
esac
asked=$servers
[ "$bash" = yes ] || asked=''
observe host "$asked" '' &
for server in $servers; do
  [ "$bash" = no ] || {
    # shellcheck disable=SC2016 # the words of that bash
    row=$(timeout "$half" bash -c ': <>"/dev/tcp/$0/53"' "$server" 2>&1 </dev/null)
    case $?:$row in
      0:* | *refused*) echo "$server" >"$dir/reached.$server" ;;
    esac
  } &
done

# The first container of the project that has a network of its own, and the DNS servers that it has.
container='' inside='' reason="project $project has no running container with a network of its own"
if [ -z "$project" ]; then
  reason='there is no stack'
elif [ "$(id -u)" -ne 0 ]; then
  reason='only root may enter a network of a container'
elif ! has docker || ! has nsenter; then
  reason='docker or nsenter is not on the host'
else
  # shellcheck disable=SC2046 # a list of ids
  set -- $(docker ps -q --no-trunc --filter "label=com.docker.compose.project=$project" </dev/null 2>/dev/null | head -n 40)
  # shellcheck disable=SC2046 # a list of ids
  [ $# -eq 0 ] || set -- $(made_by_compose 'timeout 10 docker' "$@")
  if [ $# -gt 0 ]; then
    found=$(timeout 10 docker inspect -f '{{.State.Pid}} {{.HostConfig.NetworkMode}} {{.ResolvConfPath}} {{.Name}}' "$@" </dev/null 2>/dev/null |
      awk '$1 > 0 && $2 != "host" && $2 != "none" && $2 !~ /^container:/ && $4 ~ /^\/[A-Za-z0-9._-]+$/ { print; exit }')
    if [ -n "$found" ]; then
      # shellcheck disable=SC2086 # four words
      set -- $found
      container=${4#/} within_container="nsenter -t $1 -n"
      inside=$(awk '$1 == "nameserver" && $2 ~ /^[0-9A-Fa-f:.]+$/ && n++ < 3 { print $2 }' "$3" 2>/dev/null)
      [ "$bash" = yes ] || inside=''
    fi
  fi
fi

[ -z "$container" ] || observe container "$inside" "$within_container"
wait

# Who holds a port of this host for a container.
forwarded=''
for pid in $(pidof docker-proxy 2>/dev/null); do
  forwarded="$forwarded $(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | sed -n 's/.* -host-port \([0-9]*\) .*/\1/p')"
done
tick
took=$((clock - began))

begin observed
{
  index='-' at=host
  say "now $now"
  say "took $took"
  say "repeated $(($(counted) - before))"
  for server in $servers; do say "server $server"; done
  for server in $servers; do [ ! -e "$dir/reached.$server" ] || say "reached $server"; done
  if has ip; then
    for family in 4 6; do
      if [ -n "$(timeout 5 ip "-$family" route show default 2>/dev/null)" ]; then say "route $family yes"; else say "route $family no"; fi
    done
  fi
  if [ -n "$container" ]; then say "container $container"; else say "alone $reason"; fi
  [ "$bash" = yes ] || say 'skip DNS servers and TCP: bash is not on the host'
  [ -n "$client" ] || say 'skip TLS and HTTP: curl is not on the host, and python3 is not'
  has ping || has python3 || say 'skip echo requests: ping and python3 are not on the host'
  while read -r kind scheme host port path repository hints proxy inner outside; do
    case $index in -) index=0 ;; esac
    index=$((index + 1))
    say "endpoint $kind $scheme $host $port $path"
    [ "$proxy" = - ] || say "proxy $(hide_login "$proxy")"
    case " $forwarded " in *" $port "*) say forwarder ;; esac
  done <"$dir/endpoints"
  cat "$dir"/host.*.row "$dir"/container.*.row 2>/dev/null
  index='-'
  say complete
} | quoted
end 0
