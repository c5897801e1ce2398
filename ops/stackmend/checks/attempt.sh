# shellcheck shell=sh
# One attempt of one check, made where it runs: on the host, in a service's network, or, as the
# standard input of `sh -s`, in a container. It writes nothing to any file: the answer goes to
# standard output as it came, `method TOOL`, `resolved ADDRESS...` (of tcp, redis, greet) and what
# the tool said to standard error, and its exit status is that of curl, whatever the tool:
# 0 answered, 6 name, 7 connection, 18 incomplete, 28 time, 35 TLS, 52 empty, 56 reset,
# 60 certificate; 99 no tool.
#
#   attempt http SECONDS METHOD URL HOST PORT PATH INSECURE(yes|no) [HEADER: VALUE]...
#   attempt tcp SECONDS HOST PORT LINGER(yes|no)
#   attempt redis SECONDS HOST PORT   (with $password and $login set before, where there are any)
#   attempt greet SECONDS HOST PORT REQUEST   (as octal escapes)
#   attempt resolve SECONDS HOST
#   attempt all SECONDS DIRECTORY [INDEX tcp|redis|greet HOST PORT LINGER|-|REQUEST]...
#
# `all` makes many at once, and is silent: of each its answer, what it said and `STATUS BEGAN ENDED`
# (milliseconds since the host's start) lie in DIRECTORY as INDEX.reply, INDEX.err and INDEX.first.
# A redis is asked with INDEX.secret and INDEX.login, and not at all where there is no such secret.

LC_ALL=C
export LC_ALL
unset http_proxy https_proxy all_proxy no_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY

has() {
    command -v "$1" >/dev/null 2>&1
}

method() {
    printf 'method %s\n' "$1" >&2
}

# Ends a tool that keeps no time of its own; its exit status is then 124.
limited() {
    # Whoever sends this may know what there is.
    case ${STACKMEND_TIMEOUT:-} in
        exact | rounded | none) ;;
        *)
            STACKMEND_TIMEOUT=none
            ! timeout 9 true >/dev/null 2>&1 || STACKMEND_TIMEOUT=rounded
            ! timeout 9.5 true >/dev/null 2>&1 || STACKMEND_TIMEOUT=exact
            ;;
    esac
    limit=$1
    [ "$STACKMEND_TIMEOUT" = exact ] || limit=$rounded
    shift
    if [ "$STACKMEND_TIMEOUT" != none ]; then
        timeout "$limit" "$@"
    else
        # A command in the background would otherwise be given /dev/null.
        "$@" <&0 &
        child=$!
        (
            sleep "$rounded"
            kill "$child"
        ) >/dev/null 2>&1 </dev/null &
        watchdog=$!
        wait "$child"
        status=$?
        kill "$watchdog" 2>/dev/null
        [ "$status" -ne 143 ] || status=124
        return "$status"
    fi
}

http_python='
import http.client, os, signal, socket, ssl, sys
seconds, method, host, port, path, tls, insecure = sys.argv[1:8]
def late(*_): raise TimeoutError("no complete answer in time")
signal.signal(signal.SIGALRM, late)
signal.setitimer(signal.ITIMER_REAL, float(seconds))
out, begun = sys.stdout.buffer, False
def end(code, error):
    print(error or type(error).__name__, file=sys.stderr)
    sys.exit(code)
try:
    if tls == "yes":
        context = ssl._create_unverified_context() if insecure == "yes" else None
        peer = http.client.HTTPSConnection(host, int(port), context=context)
    else:
        peer = http.client.HTTPConnection(host, int(port))
    fields = {"User-Agent": "stackmend", "Accept": "*/*", "Connection": "close"}
    for header in sys.argv[8:]:
        name, value = header.split(": ", 1)
        fields[name] = os.fsencode(value)
    peer.request(method, path, headers=fields)
    answer = peer.getresponse()
    begun = True
    head = "".join("%s: %s\r\n" % pair for pair in answer.getheaders())
    out.write(("HTTP/1.1 %d %s\r\n%s\r\n" % (answer.status, answer.reason, head)).encode("latin-1", "replace"))
    out.flush()
    while True:
        part = answer.read1(65536)
        if not part: break
        out.write(part)
        out.flush()
    if answer.length: end(18, "the answer ended %d bytes early" % answer.length)
except socket.gaierror as error: end(6, error)
except ssl.SSLCertVerificationError as error: end(60, error)
except ssl.SSLError as error: end(35, error)
except TimeoutError as error: end(28, error)
except http.client.RemoteDisconnected as error: end(52, error)
except ConnectionRefusedError as error: end(7, error)
except ConnectionResetError as error: end(56, error)
except BrokenPipeError: pass
except http.client.IncompleteRead as error: end(18, error)
except http.client.HTTPException as error: end(1, "not an HTTP answer: %r" % error)
except OSError as error: end(56 if begun else 7, error)
'

# HTTP/1.0, because an answer to HTTP/1.1 may come in chunks, which no shell takes apart safely.
# shellcheck disable=SC2016 # these are the variables of that bash
http_bash='
trap "" PIPE
{ exec 3<>"/dev/tcp/$1/$2"; } || exit 7
{ printf "%s %s HTTP/1.0\r\nHost: %s\r\nUser-Agent: stackmend\r\nAccept: */*\r\nConnection: close\r\n" "$3" "$4" "$5"
shift 5
[ $# -eq 0 ] || printf "%s\r\n" "$@"
printf "\r\n"; } >&3 || exit 56
exec cat <&3
'

# shellcheck disable=SC2016 # these are the variables of that bash
tcp_bash='
{ exec 3<>"/dev/tcp/$1/$2"; } || exit 7
[ "$3" = yes ] || exit 0
IFS= read -r -n 1 -t 0.1 _ <&3
[ $? -ne 1 ] || { echo "closed at once" >&2; exit 52; }
'

tcp_python='
import socket, sys
seconds, host, port, linger = sys.argv[1:5]
def end(code, error):
    print(error, file=sys.stderr)
    sys.exit(code)
try:
    peer = socket.create_connection((host, int(port)), float(seconds))
    if linger == "yes":
        peer.settimeout(0.1)
        try:
            if not peer.recv(1): end(52, "closed at once")
        except socket.timeout: pass
        except ConnectionResetError: end(52, "closed at once")
except socket.gaierror as error: end(6, error)
except socket.timeout as error: end(28, error)
except OSError as error: end(7, error)
'

# What is sent and received goes through standard input and output: it holds a password. A server
# that goes on waiting (yes) has answered once it is silent.
# shellcheck disable=SC2016 # these are the variables of that bash
talk_bash='
trap "" PIPE
{ exec 3<>"/dev/tcp/$1/$2"; } || exit 7
cat >&3
[ "$3" = yes ] || exec cat <&3
dd bs=4096 count=1 <&3 2>/dev/null || exit 56
timeout 0.3 cat <&3 2>/dev/null
exit 0
'

talk_python='
import socket, sys
def end(code, error):
    print(error, file=sys.stderr)
    sys.exit(code)
connected = False
try:
    peer = socket.create_connection((sys.argv[2], int(sys.argv[3])), float(sys.argv[1]))
    connected = True
    peer.sendall(sys.stdin.buffer.read())
    answered = False
    while True:
        part = peer.recv(65536)
        if not part: break
        sys.stdout.buffer.write(part)
        sys.stdout.buffer.flush()
        if sys.argv[4] == "yes":
            answered = True
            peer.settimeout(0.3)
except socket.gaierror as error: end(6, error)
except socket.timeout as error: answered or end(28, error)
except ConnectionResetError as error: end(56, error)
except OSError as error: end(56 if connected else 7, error)
'

# wget names its reasons in words and has its own exit codes; 6 and 8 are an answer with an error
# status.
wget_status() {
    case $1 in
        0 | 6 | 8) status=0 ;;
        124) status=28 ;;
        # A failure of the network that it says nothing of: the connection ended within the body.
        4) status=18 ;;
        *) status=1 ;;
    esac
    case $2 in
        *'unable to resolve'* | *'bad address'*) status=6 ;;
        *'certificate'*) [ "$status" -eq 0 ] || status=60 ;;
        *'Connection refused'* | *'No route to host'* | *'unreachable'*) status=7 ;;
        *'timed out'*) status=28 ;;
        *'error getting response'* | *'No data received'*) status=52 ;;
        *'reset by peer'*) status=56 ;;
        *'connection closed prematurely'*) status=18 ;;
        *'server returned error: HTTP'*) status=0 ;;
    esac
}

by_curl() {
    url=$1 verb=$2 insecure=$3
    shift 3
    # The arguments become: option value ... with every header behind its own -H.
    count=$#
    while [ "$count" -gt 0 ]; do
        header=$1
        shift
        set -- "$@" -H "$header"
        count=$((count - 1))
    done
    case $verb in
        HEAD) set -- "$@" -I ;;
        GET) ;;
        *) set -- "$@" -X "$verb" ;;
    esac
    [ "$insecure" = no ] || set -- "$@" -k
    method curl
    { output=$(curl -q -g -i -s -S --max-time "$seconds" -A stackmend "$@" "$url" 2>&1 >&3 3>&- </dev/null); } 3>&1
    status=$?
    case $status:$output in
        2:* | 1:*'not supported'* | 1:*disabled* | 132:* | 134:* | 139:*) return 1 ;;
    esac
    # It does not say by itself why a connection failed.
    [ "$status" -ne 7 ] ||
        output=$(curl -q -g -v -s --max-time "$seconds" "$@" "$url" 2>&1 >/dev/null </dev/null | grep ' failed: ')
    printf '%s\n' "$output" >&2
    return 0
}

by_wget() {
    url=$1 verb=$2 insecure=$3
    shift 3
    count=$#
    while [ "$count" -gt 0 ]; do
        header=$1
        shift
        set -- "$@" --header "$header"
        count=$((count - 1))
    done
    [ "$insecure" = no ] || set -- "$@" --no-check-certificate
    case $(wget --version 2>&1 </dev/null) in
        *'GNU Wget'*)
            [ "$verb" = GET ] || set -- "$@" --method="$verb"
            set -- -nv --no-config --no-proxy --tries=1 --max-redirect=0 --content-on-error --no-hsts \
                -T "$rounded" "$@"
            tool=wget
            ;;
        *)
            # busybox can only GET, and follows redirections: its first status line is the answer.
            # Its -T makes Debian 12's crash.
            [ "$verb" = GET ] || return 1
            set -- -q "$@"
            tool='busybox wget'
            ;;
    esac
    method "$tool"
    { output=$(limited "$seconds" wget -S -O - -U stackmend "$@" "$url" 2>&1 >&3 3>&- </dev/null); } 3>&1
    code=$?
    # Killed by a fault of its own: another tool may do better.
    case $code in
        132 | 134 | 139) return 1 ;;
    esac
    case $output in
        *'unrecognized option'* | *'invalid option'* | *'not an http or ftp url'* | *'HTTPS support'*) return 1 ;;
    esac
    wget_status "$code" "$output"
    printf '%s\n' "$output" >&2
    return 0
}

attempt_http() {
    verb=$1 url=$2 host=$3 port=$4 path=$5 insecure=$6
    shift 6
    case $url in
        https:*) tls=yes ;;
        *) tls=no ;;
    esac
    authority=${url#*://}
    authority=${authority%%/*}
    if has curl; then
        by_curl "$url" "$verb" "$insecure" "$@" && return "$status"
    fi
    if has wget; then
        by_wget "$url" "$verb" "$insecure" "$@" && return "$status"
    fi
    if has python3; then
        method python3
        python3 -I -S -c "$http_python" "$seconds" "$verb" "$host" "$port" "$path" "$tls" "$insecure" "$@" </dev/null
        return
    fi
    [ "$tls" = no ] || return 99
    if has bash; then
        method bash
        limited "$seconds" bash -c "$http_bash" bash "$host" "$port" "$verb" "$path" "$authority" "$@" </dev/null
        status=$?
        # 1 is that of cat: the connection was there, and broke.
        case $status in
            1) status=56 ;;
            124) status=28 ;;
        esac
        return "$status"
    fi
    if has nc; then
        method nc
        {
            printf '%s %s HTTP/1.0\r\nHost: %s\r\nUser-Agent: stackmend\r\nAccept: */*\r\nConnection: close\r\n' \
                "$verb" "$path" "$authority"
            [ $# -eq 0 ] || printf '%s\r\n' "$@"
            printf '\r\n'
        } | limited "$seconds" nc -w "$rounded" "$host" "$port"
        status=$?
        [ "$status" -ne 124 ] || status=28
        [ "$status" -ne 1 ] || status=7
        return "$status"
    fi
    return 99
}

attempt_tcp() {
    host=$1 port=$2 linger=$3
    [ "$linger" = yes ] || name_addresses "$host"
    if has bash; then
        method bash
        limited "$seconds" bash -c "$tcp_bash" bash "$host" "$port" "$linger" </dev/null
        status=$?
    elif has python3; then
        method python3
        python3 -I -S -c "$tcp_python" "$seconds" "$host" "$port" "$linger" </dev/null
        status=$?
    elif has nc; then
        method nc
        output=$(limited "$seconds" nc -z -w "$rounded" "$host" "$port" 2>&1 </dev/null)
        status=$?
        case $output in
            *'invalid option'* | *'unrecognized option'*)
                # busybox: a program that it runs once it is connected ends it.
                output=$(limited "$seconds" nc -w "$rounded" "$host" "$port" -e true 2>&1 </dev/null)
                status=$?
                ;;
        esac
        printf '%s\n' "$output" >&2
        [ "$status" -ne 1 ] || status=7
    else
        return 99
    fi
    [ "$status" -ne 124 ] || status=28
    return "$status"
}

# Nothing is changed by it: SETRANGE writes nothing to a key that is not there, and is refused where
# writes are. QUIT ends the answer.
redis_words() {
    # shellcheck disable=SC2016 # the protocol's dollars
    if [ -n "$login" ]; then
        printf '*3\r\n$4\r\nAUTH\r\n$%s\r\n%s\r\n$%s\r\n%s\r\n' "${#login}" "$login" "${#password}" "$password"
    elif [ -n "$password" ]; then
        printf '*2\r\n$4\r\nAUTH\r\n$%s\r\n%s\r\n' "${#password}" "$password"
    fi
    printf '%s\r\n' PING 'INFO replication' 'INFO persistence' 'SETRANGE stackmend:check 0 ""' QUIT
}

# Sends its standard input and prints what comes back; $3: whether the server goes on waiting.
talk() {
    if has bash && { [ "$3" = no ] || has dd; }; then
        method bash
        limited "$seconds" bash -c "$talk_bash" bash "$1" "$2" "$3"
        status=$?
        [ "$status" -ne 1 ] || status=56
    elif has python3; then
        method python3
        limited "$seconds" python3 -I -S -c "$talk_python" "$seconds" "$1" "$2" "$3"
        status=$?
    elif has nc; then
        method nc
        limited "$seconds" nc -w "$rounded" "$1" "$2"
        status=$?
        [ "$status" -ne 1 ] || status=7
    else
        return 99
    fi
    [ "$status" -ne 124 ] || status=28
    return "$status"
}

# The addresses that a name has there; an address has no other.
name_addresses() {
    case $1 in
        *:* | localhost) return ;;
        *[!0-9.]*) ;;
        *) return ;;
    esac
    found='' before=''
    set -f
    for word in $(list_addresses "$1"); do
        case $word:$before:" $found" in
            STREAM:*[!0-9a-fA-F.:]*:* | STREAM:*" $before "*) ;;
            STREAM:*) found="$found$before " ;;
        esac
        before=$word
    done
    set +f
    [ -z "$found" ] || printf 'resolved %s\n' "$found" >&2
}

list_addresses() {
    # Those that are noted are limited as a whole.
    if [ -n "$directory" ] && has getent; then
        getent ahosts "$1" </dev/null
    else
        attempt_resolve "$1"
    fi
}

attempt_resolve() {
    if has getent; then
        limited "$seconds" getent ahosts "$1" </dev/null
    elif has python3; then
        limited "$seconds" python3 -I -S -c 'import socket, sys
for found in socket.getaddrinfo(sys.argv[1], None, type=socket.SOCK_STREAM): print(found[4][0], "STREAM")' \
            "$1" </dev/null 2>/dev/null
    else
        return 99
    fi
    case $? in
        0) ;;
        # No answer is not the answer that there is none.
        124) return 28 ;;
        *) return 6 ;;
    esac
}

make_attempt() {
    what=$1
    shift
    case $what in
        http) attempt_http "$@" ;;
        tcp) attempt_tcp "$@" ;;
        redis)
            name_addresses "$1"
            redis_words | talk "$1" "$2" no
            ;;
        greet)
            name_addresses "$1"
            # shellcheck disable=SC2059 # escapes, and nothing else
            printf "$3" | talk "$1" "$2" yes
            ;;
        resolve) attempt_resolve "$@" ;;
        all) attempt_all "$@" ;;
    esac
}

attempt_all() {
    directory=$1
    shift
    while [ $# -ge 5 ]; do
        attempt_noted "$1" "$2" "$3" "$4" "$5" </dev/null &
        shift 5
    done
    wait
}

attempt_noted() {
    noted=$directory/$1
    shift
    case $1 in
        tcp) note_attempt "$@" >/dev/null 2>"$noted.err" ;;
        redis)
            [ -e "$noted.secret" ] || return 0
            IFS= read -r password <"$noted.secret"
            IFS= read -r login <"$noted.login"
            note_attempt "$@" 2>"$noted.err" | head -c 65536 >"$noted.reply"
            ;;
        greet) note_attempt "$@" 2>"$noted.err" | head -c 4096 >"$noted.reply" ;;
    esac
}

note_attempt() {
    read_clock
    began=$now
    make_attempt "$@"
    status=$?
    read_clock
    echo "$status $began $now" >"$noted.first"
}

read_clock() {
    read -r now _ </proc/uptime 2>/dev/null || now=0.00
    now=${now%.*}${now#*.}0
}

seconds=$2 what=$1 directory=''
rounded=${seconds%.*}
[ "$rounded" = "$seconds" ] || rounded=$((rounded + 1))
shift 2
make_attempt "$what" "$@"
