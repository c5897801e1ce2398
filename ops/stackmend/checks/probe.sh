# shellcheck shell=sh
# Looks whether the checks of a stack pass. Changes nothing: what it writes lies in a directory of
# its own, removed at the end. `facts.py` sends these functions, then one call for each check:
#
#   checks_begin PROJECT ATTEMPTS DIAGNOSE(yes|no)   (and the text of attempt.sh into $checks_dir)
#   checks_http INDEX SECONDS SOURCE TARGET PORT STATUSES CONTAINS(yes|no) TEXT METHOD URL PATH INSECURE [HEADER]...
#   checks_tcp INDEX SECONDS SOURCE TARGET PORT
#   checks_containers, or checks_known CONTAINER...  (before the first check with a SOURCE)
#   checks_exec INDEX SECONDS SERVICE EXIT CONTAINS(yes|no) TEXT COMMAND...
#   checks_greet INDEX SECONDS SOURCE TARGET PORT PATTERNS REQUEST
#   checks_redis INDEX SECONDS SOURCE TARGET PORT SERVICE ROLE [VARIABLE]
#   checks_groups INDEX...   (of the last call of each group, before the first)
#   checks_group COUNT   (of calls of the last three that have one SOURCE and one SECONDS, which a
#                         function checks_calls makes)
#   checks_end
#
# It prints lines `INDEX KEY VALUE`; control characters in what others said become blanks.

checks_cr=$(printf '\r')
checks_tab=$(printf '\t')
checks_body=1048576
checks_output=65536
# Bytes of a container's hosts file that are read.
checks_names=1048576

checks_has() {
    command -v "$1" >/dev/null 2>&1
}

checks_begin() {
    LC_ALL=C
    PATH=$PATH:/usr/sbin:/sbin
    export LC_ALL PATH
    checks_project=$1 checks_attempts=$2 checks_diagnose=$3
    checks_dir=''
    for checks_place in /dev/shm /run /tmp "${TMPDIR:-/var/tmp}"; do
        checks_dir=$(mktemp -d "$checks_place/stackmend-checks.XXXXXX" 2>/dev/null) || continue
        # One that is full takes the directory, and no file.
        { head -c 1048576 /dev/zero >"$checks_dir/attempt"; } 2>/dev/null && break
        rm -rf "$checks_dir"
        checks_dir=''
    done
    if [ -z "$checks_dir" ] || [ ! -d "$checks_dir" ]; then
        echo 'fatal no room for temporary files in /dev/shm, /run and /tmp: see df -h /dev/shm /run /tmp'
        return 1
    fi
    trap 'rm -rf "$checks_dir"' EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    # So a lost connection arrives; a shell that a signal ends does not clean up by itself.
    trap 'exit 141' PIPE
    trap 'exit 143' TERM
    checks_user=$(id -u) checks_started=0
    checks_clock
    checks_started_at=$checks_now
    checks_timeout=''
    checks_rounds=yes
    STACKMEND_TIMEOUT=none
    if timeout -k 1 9.5 true >/dev/null 2>&1; then
        checks_timeout='timeout -k 1' checks_rounds=no STACKMEND_TIMEOUT=exact
    elif timeout 9 true >/dev/null 2>&1; then
        checks_timeout=timeout STACKMEND_TIMEOUT=rounded
    fi
    # Spares attempt.sh to find it out.
    export STACKMEND_TIMEOUT
    checks_grouped='' view=''
}

# Runs a command for at most $1 seconds; its exit status is then 124, or 143 from our own watchdog.
checks_limited() {
    checks_limit=$1
    shift
    if [ "$checks_rounds" = yes ]; then
        case $checks_limit in
            *.*) checks_limit=$((${checks_limit%.*} + 1)) ;;
        esac
    fi
    if [ -n "$checks_timeout" ]; then
        # shellcheck disable=SC2086 # the words of a command
        $checks_timeout "$checks_limit" "$@"
    else
        # A command in the background would otherwise be given /dev/null.
        "$@" <&0 &
        checks_child=$!
        (
            sleep "$checks_limit"
            kill "$checks_child"
        ) >/dev/null 2>&1 </dev/null &
        checks_watchdog=$!
        wait "$checks_child"
        checks_status=$?
        kill "$checks_watchdog" 2>/dev/null
        return "$checks_status"
    fi
}

# One line from standard input, without control characters, at most $1 bytes.
checks_line() {
    head -c "$1" | tr '\000-\037\177' ' '
    cat >/dev/null
}

checks_say() {
    printf '%s %s %s\n' "$index" "$1" "$2"
}

checks_say_file() {
    [ -s "$3" ] && printf '%s %s %s\n' "$index" "$1" "$(checks_line "$2" <"$3")"
}

checks_clock() {
    read -r checks_now _ </proc/uptime 2>/dev/null || checks_now=0.00
    checks_now=${checks_now%.*}${checks_now#*.}0
}

checks_containers() {
    if ! checks_has docker; then
        echo 'docker is not installed here, or not in PATH' >"$checks_dir/no-docker"
        return
    fi
    if engine_failed; then
        echo 'the Docker daemon does not run: docker.service failed' >"$checks_dir/no-docker"
        return
    fi
    # Another probe has waited for it.
    if [ -n "${STACKMEND_HUNG:-}" ]; then
        echo 'the Docker daemon does not answer' >"$checks_dir/no-docker"
        return
    fi
    if checks_limited 10 docker ps -a --no-trunc \
        --filter "label=com.docker.compose.project=$checks_project" \
        --filter label=com.docker.compose.oneoff=False \
        --format '{{.State}} {{.ID}} {{.Names}} {{json (.Label "com.docker.compose.container-number")}} {{json (.Label "com.docker.compose.service")}}' \
        </dev/null 2>"$checks_dir/said" >"$checks_dir/found"; then
        # Somebody else's container may bear our labels.
        # shellcheck disable=SC2046 # a list of ids
        made_by_compose 'checks_limited 20 docker' \
            $(sed -n 's/^[a-z]* \([0-9a-f]*\) .*/\1/p' "$checks_dir/found") >"$checks_dir/own"
        # A label holds whatever an image gives it: what is no service's name is no service.
        sed -n 's/^\([a-z]*\) \([0-9a-f]*\) \([^ "]*\) "\([0-9]*\)" "\([A-Za-z0-9._-]*\)"$/\5 \4 \1 \2 \3/p' \
            "$checks_dir/found" |
            awk 'FILENAME != "-" { own[$1] = 1; next } $4 in own' "$checks_dir/own" - |
            sort -k 1,1 -k 2,2n >"$checks_dir/containers"
    else
        # shellcheck disable=SC2086 # one word or none
        case $? in 124 | 137 | 143) kill -USR1 $$ ${STACKMEND_READER:-} ;; esac
        echo "docker does not answer within 10 s" >"$checks_dir/no-docker"
        [ ! -s "$checks_dir/said" ] || checks_line 300 <"$checks_dir/said" >"$checks_dir/no-docker"
        return
    fi
    checks_processes
}

# The same where the caller has just read them: each `SERVICE NUMBER STATE ID NAME`.
checks_known() {
    printf '%s\n' "$@" >"$checks_dir/containers"
    checks_processes
}

# What each running one's first process is: the way into its network.
checks_processes() {
    : >"$checks_dir/pids"
    [ "$checks_user" -eq 0 ] || return
    set --
    while read -r _ _ checks_state checks_id _; do
        [ "$checks_state" = running ] || continue
        # containerd notes it in a file, which spares asking the engine; the process's cgroup tells
        # whether the note is still true.
        checks_pid='' checks_cgroup=''
        read -r checks_pid 2>/dev/null <"/run/containerd/io.containerd.runtime.v2.task/moby/$checks_id/init.pid"
        [ -z "$checks_pid" ] || read -r checks_cgroup 2>/dev/null <"/proc/$checks_pid/cgroup"
        case $checks_cgroup in
            *"$checks_id"*) printf '%s %s\n' "$checks_id" "$checks_pid" >>"$checks_dir/pids" ;;
            *) set -- "$@" "$checks_id" ;;
        esac
    done <"$checks_dir/containers"
    [ $# -eq 0 ] ||
        checks_limited 20 docker inspect -f '{{.Id}} {{.State.Pid}}' "$@" \
            </dev/null 2>/dev/null >>"$checks_dir/pids"
}

# Sets cid, cname, pid of the first running container of service $1, or says why there is none.
checks_container() {
    if [ -s "$checks_dir/no-docker" ]; then
        checks_say reason "containers cannot be looked up: $(cat "$checks_dir/no-docker")"
        result=unknown
        return 1
    fi
    cid='' running=0 total=0 others=''
    while read -r service _ state id name; do
        [ "$service" = "$1" ] || continue
        total=$((total + 1))
        if [ "$state" = running ]; then
            running=$((running + 1))
            [ -n "$cid" ] || cid=$id cname=$name
        else
            others="$others $name=$state"
        fi
    done <"$checks_dir/containers"
    if [ -z "$cid" ]; then
        result=failed
        checks_say stopped "$1$others"
        return 1
    fi
    checks_say container "$cname $running"
    pid=''
    while read -r id found; do
        [ "$id" != "$cid" ] || [ "$found" = 0 ] || pid=$found
    done <"$checks_dir/pids"
}

# A container's resolver as files to be laid over ours. A link is followed in the container's own
# tree: in ours it would name a file of the host.
checks_view() {
    # That of a group is there.
    [ -z "$view" ] || [ ! -e "$view.complete" ] || return 0
    view=$checks_dir/view.$index
    [ -d "$view" ] || mkdir "$view" || return
    for file in resolv.conf hosts; do
        from=/proc/$pid/root/etc/$file
        if [ -L "$from" ]; then
            link=$(readlink "$from")
            case $link in
                /*) from=/proc/$pid/root$link ;;
                *) from=/proc/$pid/root/etc/$link ;;
            esac
            [ ! -L "$from" ] || return
        fi
        # What is no file would be waited for.
        [ -f "$from" ] || return
        head -c "$checks_names" "$from" >"$view/$file" 2>/dev/null || return
    done
    echo 'hosts: files dns' >"$view/nsswitch.conf" || return
    {
        printf '%s /etc/%s none bind 0 0\n' "$view/resolv.conf" resolv.conf "$view/hosts" hosts
        [ ! -e /etc/nsswitch.conf ] || echo "$view/nsswitch.conf /etc/nsswitch.conf none bind 0 0"
    } >"$view/fstab" && : >"$view.complete"
}

# shellcheck disable=SC2016 # these are the variables of that sh
checks_enter='
view=$1 attempt=$2
shift 2
{
    {
        [ -e /etc/resolv.conf ] && mount -a -T "$view/fstab" &&
            [ /etc/resolv.conf -ef "$view/resolv.conf" ] && [ /etc/hosts -ef "$view/hosts" ] &&
            { [ ! -e /etc/nsswitch.conf ] || [ /etc/nsswitch.conf -ef "$view/nsswitch.conf" ]; }
    } || mount -t overlay -o "ro,lowerdir=$view:/etc" overlay /etc || exit 97
    [ ! -S /run/nscd/socket ] || mount --bind /dev/null /run/nscd/socket || exit 97
} >/dev/null 2>&1
. "$attempt"
'

# Runs attempt.sh where the check runs. In a service's network: with the host's tools, from a mount
# namespace of its own where the container's resolver lies over ours; where that is not possible,
# in the container with what it has. Sets $route.
checks_reach() {
    limit=$1
    shift
    if [ -z "$source" ]; then
        route=''
        checks_limited "$limit" sh "$attempt" "$@" </dev/null
        return
    fi
    if [ "$route" != exec+ ] && [ -n "$pid" ] && checks_has nsenter && checks_has unshare && checks_view; then
        route=nsenter+
        checks_limited "$limit" nsenter -t "$pid" -n -- unshare -m --propagation private -- \
            sh -c "$checks_enter" sh "$view" "$attempt" "$@" </dev/null
        status=$?
        # 97: the mounts; 1 without a tool named: nsenter or unshare are not permitted.
        case $status in
            97) ;;
            1) grep -q '^method ' "$prefix.err" && return 1 ;;
            *) return "$status" ;;
        esac
        : >"$prefix.err"
    fi
    route=exec+
    checks_limited "$limit" docker exec -i -e "STACKMEND_CHECK=$mark" "$cid" \
        sh -s -- "$@" <"$attempt"
    status=$?
    case $status in
        124 | 137 | 143) checks_kill ;;
        126 | 127)
            # No shell in there: nothing was asked.
            grep -q '^method ' "$prefix.err" || return 98
            ;;
    esac
    return "$status"
}

# `docker exec` leaves what it started when its client ends. Only processes of that container that
# bear our mark are ended. A busy engine may start them only after its client has ended.
checks_kill() {
    if [ "$checks_user" -ne 0 ] || [ -z "$pid" ]; then
        checks_say left "$cname"
        return
    fi
    space=$(readlink "/proc/$pid/ns/pid")
    ended='' pass=0
    while [ "$pass" -lt 4 ]; do
        [ "$pass" -eq 0 ] || sleep 1
        for process in $(checks_list_left); do
            kill -9 "$process" && ended=yes
        done
        # What it started itself meanwhile bears the mark, too.
        [ -n "$ended" ] && [ -z "$(checks_list_left)" ] && return
        pass=$((pass + 1))
    done
}

# The processes of the container's own namespace, $space, that bear our mark.
checks_list_left() {
    grep -l -F "STACKMEND_CHECK=$mark" /proc/[0-9]*/environ 2>/dev/null | while read -r file; do
        process=${file#/proc/}
        process=${process%/environ}
        [ "$(readlink "/proc/$process/ns/pid")" = "$space" ] && echo "$process"
    done
}

# Reads what attempt.sh said: sets $method and $resolved, leaves the rest in $prefix.said.
checks_read_method() {
    method='' resolved=''
    : >"$prefix.said"
    while IFS= read -r line; do
        case $line in
            'method '*)
                method=$route${line#method }
                : >"$prefix.said"
                ;;
            # A container's shell may say anything.
            'resolved '*)
                resolved=${line#resolved }
                case ${#resolved}:$resolved in
                    ????*:* | *[!0-9a-fA-F:.\ ]*)
                        resolved=$(printf %s "$resolved" | head -c 2000 | tr -cd '0-9a-fA-F:. ')
                        ;;
                esac
                ;;
            *) printf '%s\n' "$line" >>"$prefix.said" ;;
        esac
    done <"$prefix.err"
}

# Whether the text of file $1 holds $2, exactly, whatever it is made of.
checks_holds() {
    # A command substitution takes trailing newlines away.
    text=$(cat "$1" 2>/dev/null && echo x) 2>/dev/null
    case ${text%x} in
        *"$2"*) return 0 ;;
    esac
    return 1
}

checks_status_accepted() {
    for accepted in $statuses; do
        [ "$code" -lt "${accepted%-*}" ] || [ "$code" -gt "${accepted#*-}" ] || return 0
    done
    return 1
}

# Asks with attempt.sh: at most $1 bytes of the answer are in $prefix.reply, and $rc is its status.
# The first time that is what the group has found already.
checks_ask() {
    size=$1
    shift
    if [ -n "$first" ]; then
        read -r rc began checks_now <"$prefix.first"
        first='' route=nsenter+
    else
        : >"$prefix.err"
        {
            checks_reach "$grace" "$@"
            echo "$? $route" >"$prefix.rc"
        } 2>>"$prefix.err" | head -c "$size" >"$prefix.reply"
        read -r rc route <"$prefix.rc"
        checks_clock
    fi
    checks_read_method
}

checks_http_once() {
    : >"$prefix.err"
    {
        checks_reach "$grace" http "$seconds" "$verb" "$url" "$target" "$port" "$path" "$insecure" "$@"
        echo "$? $route" >"$prefix.rc"
    } 2>>"$prefix.err" | head -c "$((checks_body + 65536))" >"$prefix.out"
    read -r rc route <"$prefix.rc"
    checks_read_method
    # The answer begins with its head, except that of busybox, which is in what it said.
    code='' head=''
    IFS= read -r line <"$prefix.out" 2>/dev/null
    while :; do
        case $line in
            HTTP/*' '[1-5][0-9][0-9]*) head=yes ;;
            *) break ;;
        esac
        code=${line#* }
        code=${code%"${code#???}"}
        case $code in
            1??) ;;
            *) break ;;
        esac
        sed "1,/^$checks_cr\$/d" "$prefix.out" >"$prefix.rest" && mv "$prefix.rest" "$prefix.out"
        IFS= read -r line <"$prefix.out"
    done
    if [ -z "$code" ]; then
        code=$(sed -n 's/^ *HTTP\/[0-9.]* \([1-5][0-9][0-9]\).*/\1/p' "$prefix.said" | head -n 1)
    fi
    # head(1) has closed the pipe: what we wanted to read is there, and the tool was cut off by us.
    size=$(wc -c <"$prefix.out")
    [ "$size" -lt "$((checks_body + 65536))" ] || rc=0
    if [ "$rc" -eq 0 ] && [ "$head" = yes ] && [ "$size" -lt "$((checks_body + 65536))" ]; then
        case $method in
            *bash | *nc)
                # These two do not notice an answer that ends too early.
                announced=$(sed -n "/^$checks_cr\$/q; s/^[Cc]ontent-[Ll]ength: *\([0-9]*\)$checks_cr\$/\1/p" "$prefix.out")
                have=$(sed "1,/^$checks_cr\$/d" "$prefix.out" | wc -c)
                [ "$verb" = HEAD ] || [ -z "$announced" ] || [ "$have" -ge "$announced" ] || rc=18
                ;;
        esac
    fi
    checks_clock
    result=failed found=''
    case $rc in
        98 | 99) result=unknown; return ;;
    esac
    if [ -z "$code" ]; then
        # The tool is content, but what came is nothing, or not HTTP.
        if [ "$rc" -eq 0 ]; then
            rc=52
            [ ! -s "$prefix.out" ] || rc=1
        fi
        return
    fi
    checks_status_accepted || return
    if [ "$contains" = yes ]; then
        if [ "$head" = yes ]; then
            sed "1,/^$checks_cr\$/d" "$prefix.out" | head -c "$checks_body" >"$prefix.body"
        else
            head -c "$checks_body" <"$prefix.out" >"$prefix.body"
        fi
        found=no
        if checks_holds "$prefix.body" "$needle"; then
            # What had to be there came: the rest of a stream need not end.
            found=yes result=passed
        fi
    elif [ "$rc" -eq 0 ]; then
        result=passed
    fi
}

checks_name_once() {
    : >"$prefix.err"
    : >"$prefix.said"
    {
        checks_reach "$grace" resolve "$seconds" "$target"
        echo "$? $route" >"$prefix.rc"
    } 2>>"$prefix.err" | head -c 65536 >"$prefix.reply"
    read -r rc route <"$prefix.rc"
    checks_read_method
    method=${route}resolver
    resolved=$(sed -n 's/^\([0-9a-fA-F:.]*\) *STREAM.*/\1/p' "$prefix.reply" | sort -u | head -n 8 | tr '\n' ' ')
    case $rc in
        0) result=passed ;;
        6) result=failed ;;
        *) result=unknown ;;
    esac
}

checks_tcp_once() {
    linger=no
    # Docker's proxy accepts for a container that does not listen, and closes at once.
    [ -n "$source" ] || linger=yes
    checks_ask 65536 tcp "$seconds" "$target" "$port" "$linger"
    case $rc in
        0) result=passed ;;
        98 | 99) result=unknown ;;
        *) result=failed ;;
    esac
    # The kernel accepts for a process that is frozen.
    if [ "$result" = passed ] && [ -n "$source" ]; then
        states=''
        while read -r service _ state _ _; do
            [ "$service" != "$target" ] || states="$states $state"
        done <"$checks_dir/containers"
        case $states in
            *running* | '') ;;
            *)
                result=failed
                checks_say asleep "$target$states"
                ;;
        esac
    fi
}

checks_greet_once() {
    : >"$prefix.said"
    if ! checks_has od; then
        checks_say reason 'the host lacks od, which reads the answer'
        result=unknown rc=99 method=''
        return
    fi
    checks_greet_with "$request"
    result=failed
    case $rc in
        98 | 99) result=unknown; return ;;
    esac
    if [ -n "$reply" ]; then
        rc=0
    elif [ "$rc" -eq 0 ]; then
        rc=52
    fi
    set -f
    for pattern in $patterns; do
        # shellcheck disable=SC2254 # it is a pattern
        case $reply in
            $pattern) result=passed ;;
        esac
    done
    set +f
    # Who is silent may speak something else: most of those answer this.
    case $result:$reply:$rc in
        failed::28 | failed::52 | failed::56)
            kept="$rc $seconds"
            [ "${seconds%.*}" -lt 3 ] || seconds=3
            checks_greet_with 'GET / HTTP/1.0\r\n\r\n'
            rc=${kept% *} seconds=${kept#* }
            ;;
    esac
}

# Sends a request; what comes back is in $reply, in hexadecimal.
checks_greet_with() {
    checks_ask 4096 greet "$seconds" "$target" "$port" "$1"
    reply=$(od -An -v -tx1 <"$prefix.reply" | tr -d ' \n')
    printf %s "$reply" >"$prefix.hex"
}

checks_exec_once() {
    : >"$prefix.said"
    {
        checks_limited "$seconds" docker exec -e "STACKMEND_CHECK=$mark" "$cid" "$@" </dev/null 2>&1
        echo $? >"$prefix.rc"
    } | {
        head -c "$checks_output"
        cat >/dev/null
    } >"$prefix.out"
    read -r rc <"$prefix.rc"
    checks_clock
    method='docker exec' code='' found='' result=failed
    case $rc in
        124 | 137 | 143)
            # The command may end so by itself: only the clock tells whose it is.
            if [ "$((checks_now - began))" -ge "$((${seconds%.*} * 1000))" ]; then
                rc='time'
                checks_kill
            fi
            ;;
    esac
    [ "$rc" = "$expected" ] || return
    if [ "$contains" = yes ]; then
        found=no
        checks_holds "$prefix.out" "$needle" || return
        found=yes
    fi
    result=passed
}

# Where the password of service $1 is, by its container: "DECLARED-AS<tab>VALUE", with "file PATH"
# for what a file holds and "hidden" for what only its shell knows; nothing where there is none.
# shellcheck disable=SC2016 # what is looked for has dollars
checks_redis_password='
function expand(value, bare) {
    if (bare && value ~ /^[$][{]?[A-Za-z_][A-Za-z0-9_]*[}]?$/) {
        gsub(/[${}]/, "", value)
        return value in env ? env[value] : "hidden"
    }
    return bare && value ~ /[$`]/ ? "hidden" : value
}
/^A / { words[++count] = substr($0, 3) }
/^E / { at = index($0, "="); env[substr($0, 3, at - 3)] = substr($0, at + 1) }
/^D / { directory = substr($0, 3) }
END {
    if ("REDIS_ARGS" in env) words[++count] = env["REDIS_ARGS"]
    for (i = 1; i <= count; i++) {
        if (words[i] == "--requirepass") { print "--requirepass\t" words[i + 1]; exit }
        if (match(words[i], /--requirepass[= ]+/)) {
            value = substr(words[i], RSTART + RLENGTH)
            mark = substr(value, 1, 1)
            if (mark == "\"" || mark == "\047") {
                value = substr(value, 2)
                value = substr(value, 1, index(value mark, mark) - 1)
            } else sub(/[ \t;&|].*/, "", value)
            print "--requirepass\t" expand(value, mark != "\047")
            exit
        }
        if (words[i] ~ /(^|[ \t])--(aclfile|user|include)([= \t]|$)/) list = 1
        if (match(words[i], /[^ ]+[.]conf/)) file = substr(words[i], RSTART, RLENGTH)
    }
    if (file != "") print "conf\t" (file ~ /^[/]/ ? "" : directory "/") file
    if (list) print "its access list\thidden"
    split("REDIS_PASSWORD VALKEY_PASSWORD REDISCLI_AUTH", names, " ")
    for (i = 1; i <= 3; i++) {
        if (env[names[i]] != "") { print names[i] "\t" env[names[i]]; exit }
        if (env[names[i] "_FILE"] != "") { print names[i] "_FILE\tfile " env[names[i] "_FILE"]; exit }
    }
}'

# What a variable of a container, or its command, holds to log in at host:port, as three lines: the
# state (found, none, missing, hidden, file), the user, and the password or the file's path.
# shellcheck disable=SC2016 # what is looked for has dollars
checks_redis_caller='
function number(digit) { return index("0123456789abcdef", tolower(digit)) - 1 }
function decode(text,    out) {
    while (match(text, /%[0-9A-Fa-f][0-9A-Fa-f]/)) {
        out = out substr(text, 1, RSTART - 1) \
            sprintf("%c", number(substr(text, RSTART + 1, 1)) * 16 + number(substr(text, RSTART + 2, 1)))
        text = substr(text, RSTART + 3)
    }
    return out text
}
function answer(state, user, password) {
    print state; print user; print password
    done = 1
    exit
}
# The first address for host:port, or else the first that has a password; 1: the text has addresses.
function read_addresses(text,    addressed, authority, at, place, login, colon, user, password) {
    user = password = ""
    while (match(text, /[A-Za-z][A-Za-z0-9+.-]*:\/\//)) {
        addressed = 1
        text = substr(text, RSTART + RLENGTH)
        authority = text
        sub(commanded ? "[/?# \t\"\047].*" : "[/?#].*", "", authority)
        place = authority
        sub(/.*@/, "", place)
        login = substr(authority, 1, length(authority) - length(place) - 1)
        sub("[,; \t\"\047].*", "", place)
        colon = index(login, ":")
        if (tolower(place) == tolower(host) || tolower(place) == tolower(host ":" port))
            keep(login, colon)
        else if (colon && first == "") first = login
    }
    if (addressed && first != "") keep(first, index(first, ":"))
    return addressed
}
function keep(login, colon,    user, password) {
    user = decode(colon ? substr(login, 1, colon - 1) : login)
    password = colon ? substr(login, colon + 1) : ""
    if (commanded && password ~ /^[$][{]?[A-Za-z_][A-Za-z0-9_]*[}]?$/) {
        gsub(/[${}]/, "", password)
        if (!(password in env)) answer("hidden", "", "")
        password = env[password]
    } else if (commanded && password ~ /[$`]/) answer("hidden", "", "")
    password = decode(password)
    answer(password == "" ? "none" : "found", password == "" ? "" : user, password)
}
function read_value(text) {
    if (read_addresses(text)) answer("none", "", "")
    if (text == "" || text == host || text == host ":" port) answer("none", "", "")
    answer("found", "", text)
}
bare { at = index($0, "="); env[substr($0, 1, at - 1)] = substr($0, at + 1); next }
/^A / { words[++count] = substr($0, 3) }
/^E / { at = index($0, "="); env[substr($0, 3, at - 3)] = substr($0, at + 1) }
/^V / { read_value(substr($0, 3)) }
END {
    if (done) exit
    if (variable in env) {
        if (variable ~ /_FILE$/) answer("file", "", env[variable])
        read_value(env[variable])
    }
    if (variable != "command") answer("missing", "", "")
    commanded = 1
    for (i = 1; i <= count; i++) if (index(tolower(words[i]), tolower(host))) read_addresses(words[i])
    answer("none", "", "")
}'

# Reads that of variable $1 from standard input; what else it is given goes to awk.
checks_redis_read_caller() {
    name=$1
    shift
    awk -v variable="$name" -v host="$target" -v port="$port" "$@" "$checks_redis_caller"
}

checks_redis_take_caller() {
    state='' login='' value=''
    { read -r state; IFS= read -r login; IFS= read -r value; } <"$prefix.declared"
}

# Has what variable $1 of the caller holds in $prefix.secret and $prefix.login.
checks_redis_caller_secret() {
    : >"$prefix.secret"
    : >"$prefix.login"
    weak=no state=missing
    checks_say secret "$1"
    # Its first process has it, as a rule, which spares asking the engine; some write over theirs.
    if [ "$1" != command ] && [ -n "$pid" ] && [ -r "/proc/$pid/environ" ]; then
        tr '\000\012' '\012\001' <"/proc/$pid/environ" |
            checks_redis_read_caller "$1" -v bare=1 >"$prefix.declared"
        checks_redis_take_caller
    fi
    if [ "$state" = missing ]; then
        checks_limited 8 docker container inspect -f \
            '{{range .Config.Entrypoint}}A {{println .}}{{end}}{{range .Config.Cmd}}A {{println .}}{{end}}{{range .Config.Env}}E {{println .}}{{end}}' \
            "$cid" </dev/null 2>/dev/null | checks_redis_read_caller "$1" >"$prefix.declared"
        checks_redis_take_caller
    fi
    if [ "$state" = file ]; then
        # Read from outside: the container may have no program.
        checks_limited 5 docker cp -L "$cid:$value" - 2>/dev/null </dev/null |
            tar -xOf - 2>/dev/null | head -c 4096 >"$prefix.file"
        state=hidden
        if [ -s "$prefix.file" ]; then
            { printf 'V ' && cat "$prefix.file" && echo; } | checks_redis_read_caller "$1" >"$prefix.declared"
            checks_redis_take_caller
        fi
    fi
    case $state in
        found)
            printf '%s\n' "$login" >"$prefix.login"
            printf '%s\n' "$value" >"$prefix.secret"
            ;;
        hidden) checks_say hidden "$1" ;;
        none | missing) checks_say bare "$state" ;;
        *)
            rm "$prefix.secret"
            checks_say reason "docker does not say what $1 of $source is"
            result=unknown rc=99 method=''
            return 1
            ;;
    esac
}

# Has the password of service $1 in $prefix.secret, and says where it is from; it is shown nowhere.
# What stands in the environment alone is weak: the image may not heed it. $2 stands before the keys.
checks_redis_secret() {
    : >"$prefix.secret"
    weak=no holder=''
    while read -r service _ state id _; do
        [ "$service" != "$1" ] || [ "$state" != running ] || [ -n "$holder" ] || holder=$id
    done <"$checks_dir/containers"
    [ -n "$holder" ] || return
    checks_limited 8 docker container inspect -f \
        '{{range .Config.Entrypoint}}A {{println .}}{{end}}{{range .Config.Cmd}}A {{println .}}{{end}}{{range .Config.Env}}E {{println .}}{{end}}D {{.Config.WorkingDir}}' \
        "$holder" </dev/null 2>/dev/null | awk "$checks_redis_password" >"$prefix.declared"
    while IFS="$checks_tab" read -r from value; do
        case $from in
            conf)
                from=$value
                checks_limited 5 docker exec "$holder" cat -- "$from" 2>/dev/null </dev/null >"$prefix.conf"
                ! grep -q -i -E '^[[:space:]]*(replica|slave)of[[:space:]]+[^n]' "$prefix.conf" || role=any
                value=$(sed -n 's/^[[:space:]]*[Rr][Ee][Qq][Uu][Ii][Rr][Ee][Pp][Aa][Ss][Ss][[:space:]]*//p' "$prefix.conf" |
                    tail -n 1 | sed "s/[[:space:]]*\$//; s/^'\(.*\)'\$/\1/
                        /^\"/ { s/^.\(.*\).\$/\1/; s/\\\\\([\"\\\\]\)/\1/g; }")
                [ -n "$value" ] || ! grep -q -i -E '^[[:space:]]*(aclfile|user|include)[[:space:]]' "$prefix.conf" || value=hidden
                ;;
            *_FILE)
                weak=yes
                value=$(checks_limited 5 docker exec "$holder" cat -- "${value#file }" 2>/dev/null </dev/null)
                [ -n "$value" ] || value=hidden
                ;;
            --*) ;;
            *) weak=yes ;;
        esac
        [ -n "$value" ] || continue
        checks_say "${2:-}secret" "$from"
        if [ "$value" = hidden ]; then
            checks_say "${2:-}hidden" "$from"
        else
            printf '%s\n' "$value" >"$prefix.secret"
        fi
        return
    done <"$prefix.declared"
}

# Asks with what is in $prefix.secret and $prefix.login, which no argument holds.
checks_redis_ask() {
    if [ -z "$first" ]; then
        {
            printf "login='%s'\n" "$(sed "s/'/'\\\\''/g" "$prefix.login")"
            printf "password='%s'\n" "$(sed "s/'/'\\\\''/g" "$prefix.secret")"
            cat "$checks_dir/attempt"
        } >"$prefix.attempt"
        attempt=$prefix.attempt
    fi
    checks_ask 65536 redis "$seconds" "$target" "$port"
}

# Has what is asked with; 1: it cannot be known.
checks_redis_prepare() {
    : >"$prefix.login"
    if [ -n "$variable" ]; then
        checks_redis_caller_secret "$variable" || return
    else
        checks_redis_secret "$owner"
    fi
    echo "$weak $role" >"$prefix.known"
}

checks_redis_once() {
    : >"$prefix.said"
    if [ ! -e "$prefix.known" ]; then
        checks_redis_prepare || return
    elif [ "$tries" -eq 1 ]; then
        read -r weak role <"$prefix.known"
    fi
    checks_redis_ask
    result=failed
    case $rc in
        98 | 99) result=unknown; return ;;
    esac
    checks_redis_read
    [ "$result" != passed ] || return
    head -c 512 "$prefix.reply" | od -An -v -tx1 | tr -d ' \n' >"$prefix.hex"
    [ -z "$variable" ] || [ -e "$prefix.own" ] || checks_redis_own
}

# What of an answer says how a redis is, in $prefix.out and as lines of ours in $prefix.replies;
# passes what is well.
checks_redis_read() {
    # Whatever answers there may quote what it was sent. The first word says what it is.
    # Who may not ask for it (NOPERM) or keeps its keys elsewhere (MOVED) is well as far as it goes.
    # A redis without a password lets those in that send one; some of them complain.
    awk -v out="$prefix.out" -v replies="$prefix.replies" -v number="$index" \
        -v role="$role" -v weak="$weak" -v variable="$variable" '
        function keep(line) {
            if (kept++ >= 20) return
            print line >out
            print number, "reply", line >replies
        }
        BEGIN { printf "" >out; printf "" >replies }
        FILENAME != "-" { secret = $0; next }
        { gsub(/\r/, "") }
        /^(\+PONG|role:.*|master_(host|port|link_status):.*|(rdb_last_bgsave|aof_last_write)_status:.*)$/ {
            keep($0)
            if ($0 == "+PONG") pong = 1
            if ($0 ~ /_status:err/ && $0 !~ /^master/) bad = 1
            desired = role == "master" ? "role:master" : "role:slave"
            if ($0 ~ /^role:/ && role != "any" && $0 != desired) bad = 1
        }
        /^-[A-Z]+ / {
            sub(/, with args .*/, "")
            line = $1; rest = substr($0, length($1) + 1)
            while (secret != "" && (at = index(rest, secret))) {
                line = line substr(rest, 1, at - 1) "***"
                rest = substr(rest, at + length(secret))
            }
            line = line rest
            if (errors < 20) error[++errors] = line
            if (line ~ /^-(NOPERM|MOVED|ASK) /) next
            if (line ~ /^-READONLY / && role != "master") next
            open = line ~ /^-ERR .*([Nn]o password|without any password)/
            if (open && (weak == "yes" || variable != "")) next
            bad = 1
        }
        END {
            for (i = 1; i <= errors; i++) keep(error[i])
            exit bad || !pong
        }' "$prefix.secret" - <"$prefix.reply" && result=passed
}

# What the service itself declares, where its caller is refused: a role, and whether its own password
# is taken.
checks_redis_own() {
    : >"$prefix.own"
    caller=$prefix prefix=$prefix.owner
    : >"$prefix.login"
    checks_redis_secret "$owner" own
    if grep -q -E '^-(NOAUTH|WRONGPASS|ERR invalid password)' "$caller.out"; then
        if [ -s "$prefix.secret" ]; then
            # In a shell of its own: what is said of the check is of its caller's attempt.
            if (
                checks_redis_ask
                tr -d '\r' <"$prefix.reply" | grep -qx -F +PONG
            ); then checks_say own yes; else checks_say own no; fi
        fi
        prefix=$caller
    else
        prefix=$caller
        checks_redis_read
    fi
}

# What an attempt may take before it is ended from outside: its tool keeps the time itself.
checks_grace() {
    case $seconds in
        *.*) grace=$((${seconds%.*} + 2)) ;;
        *) grace=$((seconds + 1)) ;;
    esac
}

# Makes the attempts of one check and prints what came of them. Arguments: the function that makes
# one, and its arguments.
checks_make() {
    prefix=$checks_dir/$index attempt=$checks_dir/attempt route='' result='' cid='' pid='' cname='' resolved=''
    mark=${checks_dir##*.}.$index
    first=''
    [ ! -e "$prefix.first" ] || first=yes
    checks_grace
    if [ -n "$source" ] && ! checks_container "$source"; then
        checks_say result "$result"
        return
    fi
    tries=0
    while :; do
        tries=$((tries + 1))
        checks_clock
        began=$checks_now
        "$@"
        [ "$result" = failed ] || break
        [ "$tries" -lt "$checks_attempts" ] || break
        # The look as a whole has to end in time too.
        checks_clock
        [ "$((checks_now - checks_started_at))" -lt 30000 ] || break
        sleep 1
    done
    [ "$result" != failed ] || ! checks_lacks_names || {
        result=unknown
        checks_say reason "the hosts file in $cname is longer than $((checks_names / 1048576)) MiB, and $target is not in what was read of it"
    }
    checks_say method "$method"
    checks_say ms "$((checks_now - began))"
    checks_say tries "$tries"
    checks_say rc "$rc"
    [ -z "$code" ] || checks_say status "$code"
    [ -z "$found" ] || checks_say found "$found"
    [ -z "$resolved" ] || checks_say resolved "$resolved"
    [ ! -s "$prefix.hex" ] || checks_say hex "$(head -c 1024 "$prefix.hex")"
    checks_say result "$result"
    case $result in
        passed)
            [ "$1" != checks_redis_once ] || checks_say_replies
            checks_shared
            return 0
            ;;
    esac
    checks_say_file said 400 "$prefix.said"
    [ "$result" != unknown ] || checks_say_file said 400 "$prefix.err"
    case $1 in
        # There is no more to know of it.
        checks_name_once) return 0 ;;
        checks_http_once)
            [ -z "$head" ] || {
                sed "1,/^$checks_cr\$/d" "$prefix.out" | head -c 4096 >"$prefix.body"
                mv "$prefix.body" "$prefix.out"
            }
            ;;
        checks_redis_once) [ ! -e "$prefix.replies" ] || checks_say_replies ;;
    esac
    [ ! -e "$prefix.out" ] || checks_say_file out 200 "$prefix.out"
    [ "$result" = failed ] && [ "$checks_diagnose" = yes ] && checks_diagnosis
}

# Whether a name may stand in that part of a container's hosts file that was not read.
checks_lacks_names() {
    names=${view:-$checks_dir/view.$index}/hosts
    [ -n "$source" ] && [ -n "$target" ] && [ -z "$resolved" ] && [ -f "$names" ] &&
        { [ "$rc" -eq 6 ] || grep -q -i -E 'resol|not known|bad address|no address' "$prefix.said"; } &&
        [ "$(wc -c <"$names")" -ge "$checks_names" ]
}

# Whose the addresses are, of a name that has more of them than its service has containers.
checks_shared() {
    count=0
    for address in $resolved; do
        case $address in
            *:*) ;;
            *) count=$((count + 1)) ;;
        esac
    done
    [ -n "$source" ] && [ "$count" -gt 1 ] && [ -s "$checks_dir/containers" ] || return 0
    [ "$count" -gt "$(grep -c "^$target [0-9]* running " "$checks_dir/containers")" ] || return 0
    checks_inspect "$(checks_list_own)"
}

checks_list_own() {
    # shellcheck disable=SC2046 # a list of ids
    made_by_compose 'checks_limited 8 docker' \
        $(checks_limited 8 docker ps -aq --no-trunc --filter "label=com.docker.compose.project=$checks_project" </dev/null 2>/dev/null | head -n 60)
}

# What containers are, and where they listen. Its argument: their ids.
checks_inspect() {
    # shellcheck disable=SC2086 # a list of ids
    set -- $1
    [ $# -gt 0 ] || return 0
    checks_limited 8 docker inspect -f '{{.State.Pid}}{{"\t"}}{{json .Name}}{{"\t"}}{{json (index .Config.Labels "com.docker.compose.project")}}{{"\t"}}{{json (index .Config.Labels "com.docker.compose.service")}}{{"\t"}}{{json .State}}{{"\t"}}{{json .NetworkSettings.Networks}}{{"\t"}}{{json .HostConfig.PortBindings}}' "$@" \
        </dev/null 2>/dev/null >"$prefix.inspect"
    while IFS="$checks_tab" read -r process rest; do
        checks_say inspect "$process$checks_tab$rest"
        if [ "$process" != 0 ] && [ -r "/proc/$process/net/tcp" ]; then
            # Even without any: that it could be read is worth knowing.
            checks_say listen "$process"
            checks_say_lines listen "$(checks_listening '' "/proc/$process/net/tcp" "/proc/$process/net/tcp6" | sed "s/^/$process /")"
        fi
    done <"$prefix.inspect"
}

# What the host has for a container that calls it: its own addresses, who listens there, whether
# the host itself gets through, and rules for what comes in.
checks_call_of_host() {
    called=''
    own=$(checks_limited 5 ip -o addr 2>/dev/null | awk '{ sub("/.*", "", $4); print $4 }')
    for address in ${resolved:-$target}; do
        case $address in
            127.* | ::1) continue ;;
        esac
        printf '%s\n' "$own" | grep -qx -F -e "$address" || continue
        called=$address
        checks_say called "$address"
        checks_say_lines host-listen "$(checks_listening "$hex" /proc/net/tcp /proc/net/tcp6)"
        if checks_limited 4 sh "$checks_dir/attempt" tcp 3 "$address" "$port" yes </dev/null >/dev/null 2>&1; then
            checks_say host-reaches "$address"
        fi
        [ "$checks_user" -ne 0 ] || ! checks_has iptables ||
            checks_say_lines input "$(checks_limited 5 iptables -w 2 -S INPUT 2>/dev/null | grep -e '-P INPUT' -e DROP -e REJECT | head -n 20)"
        return
    done
}

# What drops, in the chains that are not Docker's own; but for the table "filter" with the table. Of
# the two chains that ask before Docker's every rule: one may let through what a later one drops.
# shellcheck disable=SC2016 # the fields of awk
checks_drops='
/^\*/ { table = substr($1, 2) " "; if (table == "filter ") table = "" }
$2 != "-A" { next }
table == "" && $3 ~ /^(DOCKER-USER|FORWARD)$/ { print; next }
$3 !~ /^DOCKER/ && $1 !~ /^\[0:/ && / -j (DROP|REJECT)/ { print table $0 }'

# `TABLE FROM CHAIN`: what jumps to a chain.
# shellcheck disable=SC2016
checks_jumps='
/^\*/ { table = substr($1, 2) }
/^:/ && $2 == "-" { made[table, substr($1, 2)] = 1 }
$2 == "-A" {
    for (i = 4; i < NF; i++)
        if (($i == "-j" || $i == "-g") && (table, $(i + 1)) in made && !known[table, $3, $(i + 1)]++)
            print table, $3, $(i + 1)
}'

# The same of nftables, each line with its key before it, and the elements of sets of addresses.
# shellcheck disable=SC2016
checks_nft='
$1 == "table" { table = $2 " " $3; key = $2 "/" $3; chain = ""; set = "" }
# Those of iptables and of Docker are told of above.
table ~ /^ip6? (filter|nat|mangle|raw|security)$/ || table ~ /docker/ { next }
$1 == "chain" { chain = $2; set = ""; next }
$1 == "set" || $1 == "map" { chain = ""; set = $1 == "set" ? $2 : ""; open = 0; next }
set != "" && $1 == "elements" { open = 1; sub(/.*= *\{/, "") }
set != "" {
    # One of a great many leaves room for the rules.
    if (open && sets++ < 1000) print "nftset", table, set, substr($0, 1, 500)
    if ($0 ~ /\}/) open = 0
    next
}
chain == "" { next }
$1 == "type" {
    hook = $4
    if (hook ~ /gress$/ && / devices? .*(br-|docker|veth|"lo")/) hook = hook "-own"
    print "edge", key, "@" hook, chain
    next
}
{
    for (i = 1; i < NF; i++)
        if ($i == "jump" || $i == "goto") { to = $(i + 1); sub(/,$/, "", to); print "edge", key, chain, to }
}
/ (drop|reject)( |$)/ || /^[ \t]*(drop|reject)( |$)/ { print "nft", table, chain, $0 }'

# Only for a check that failed. Prints what is there; what it means is for facts.py.
checks_diagnosis() {
    if [ -n "$target" ]; then
        : >"$prefix.err"
        found=$(checks_reach 5 resolve 3 "$target" 2>>"$prefix.err")
        case $? in
            0)
                resolved=$(printf '%s\n' "$found" | sed -n 's/^\([^ ]*\) *STREAM.*/\1/p' | sort -u | head -n 8 | tr '\n' ' ')
                checks_say resolved "$resolved"
                ;;
            6) checks_say resolved '' ;;
            28 | 124 | 137 | 143) checks_say unanswered "$target" ;;
        esac
        hex=$(printf '%04X' "$port")
        if [ -z "$source" ]; then
            checks_say_lines host-listen "$(checks_listening "$hex" /proc/net/tcp /proc/net/tcp6)"
            checks_say_lines own "$(checks_limited 5 ip -o addr 2>/dev/null | awk '{ sub("/.*", "", $4); print $4 }')"
        else
            checks_call_of_host
        fi
    fi
    checks_has docker || return
    # Those of the project, and whoever publishes the port that is asked.
    containers=$(checks_list_own)
    if [ -n "$target" ] && { [ -z "$source" ] || [ -n "$called" ]; }; then
        containers="$containers $(checks_limited 8 docker ps -q --no-trunc --filter "publish=$port" </dev/null 2>/dev/null)"
    fi
    checks_inspect "$containers"
    [ -n "$target" ] || return
    checks_say forwarding "$(cat /proc/sys/net/ipv4/ip_forward 2>/dev/null)"
    [ "$checks_user" -eq 0 ] || return
    if checks_has iptables; then
        # An engine that is told to make no rules misses none.
        tr '\0' ' ' </proc/"$(pidof dockerd 2>/dev/null)"/cmdline 2>/dev/null | grep -q -e '--iptables=false' ||
            grep -q '"iptables"[[:space:]]*:[[:space:]]*false' /etc/docker/daemon.json 2>/dev/null ||
            checks_say tables iptables
        checks_limited 5 iptables-save -c 2>/dev/null >"$prefix.rules"
        checks_say_lines drop "$(awk "$checks_drops" "$prefix.rules" | head -n 200)"
        checks_say_lines edge "$(awk "$checks_jumps" "$prefix.rules" | head -n 400)"
        checks_say_lines nat "$(checks_limited 5 iptables -w 2 -t nat -S 2>/dev/null | grep -e '-j DOCKER' -e MASQUERADE | head -n 60)"
        checks_say_lines forward "$(checks_limited 5 iptables -w 2 -S FORWARD 2>/dev/null | head -n 60)"
    fi
    # From 29 on Docker can keep rules of its own in nftables.
    checks_has nft || return 0
    checks_limited 5 nft list ruleset 2>/dev/null | awk "$checks_nft" >"$prefix.rules"
    for found in nft edge nftset; do
        checks_say_lines "$found" "$(sed -n "s/^$found //p" "$prefix.rules" | head -n 1000)"
    done
    checks_say_lines nftable "$(checks_limited 5 nft list tables 2>/dev/null | grep -i docker)"
}

checks_say_replies() {
    tr '\000-\010\013-\037\177' ' ' <"$prefix.replies"
}

checks_say_lines() {
    [ -z "$2" ] || printf '%s\n' "$2" | tr '\000-\010\013-\037\177' ' ' | sed "s/^/$index $1 /"
}

# `ADDRESS:PORT` in the kernel's hexadecimal of the sockets that listen, on port $1 if given.
checks_listening() {
    port=$1
    shift
    cat "$@" 2>/dev/null | awk -v port="$port" '$4 == "0A" && (port == "" || $2 ~ (":" port "$")) { print $2 }' | head -n 64
}

# All at once, but not so many that they keep each other from answering in time: waits until $1
# more may begin.
checks_room() {
    checks_started=$((checks_started + $1))
    [ "$checks_started" -gt 32 ] || return 0
    wait
    checks_started=$1
}

checks_start() {
    case $checks_grouped in
        listing)
            checks_list "$1"
            return
            ;;
        '') checks_room 1 ;;
    esac
    checks_make "$@" >>"$checks_dir/$index.result" 2>/dev/null &
}

# Makes room for the views of groups, each by the index of its last check.
checks_groups() {
    for group; do
        shift
        set -- "$@" "$checks_dir/view.$group"
    done
    mkdir "$@"
}

checks_group() {
    checks_room "$1"
    checks_group_once 2>/dev/null &
}

# The network of a caller is entered once for all of a group, which are asked there at once. What
# that finds is the first attempt of each; whatever it could not ask goes its own way.
checks_group_once() {
    checks_grouped=listing links=''
    checks_calls
    wait
    checks_enter_once
    checks_grouped=yes
    checks_calls
    wait
}

# Notes what is asked in a group; what a redis is asked with is found out beside.
checks_list() {
    case $1 in
        checks_tcp_once) links="$links $index tcp $target $port no" ;;
        checks_greet_once) links="$links $index greet $target $port $request" ;;
        checks_redis_once)
            links="$links $index redis $target $port -"
            prefix=$checks_dir/$index
            if checks_container "$source" >/dev/null; then
                checks_redis_prepare >"$prefix.result" || : >"$prefix.result" &
            fi
            ;;
    esac
}

checks_enter_once() {
    checks_container "$source" >/dev/null && [ -n "$pid" ] || return 0
    checks_has nsenter && checks_has unshare && checks_view || return 0
    checks_grace
    set -f
    # shellcheck disable=SC2086 # words without blanks
    set -- $links
    set +f
    checks_clock
    began=$checks_now
    checks_limited "$grace" nsenter -t "$pid" -n -- unshare -m --propagation private -- \
        sh -c "$checks_enter" sh "$view" \
        "$checks_dir/attempt" all "$seconds" "$checks_dir" "$@" </dev/null >/dev/null
    case $? in 124 | 137 | 143) ;; *) return 0 ;; esac
    checks_clock
    while [ $# -gt 0 ]; do
        prefix=$checks_dir/$1
        [ ! -e "$prefix.err" ] || [ -e "$prefix.first" ] || echo "124 $began $checks_now" >"$prefix.first"
        shift 5
    done
}

checks_http() {
    index=$1 seconds=$2 source=$3 target=$4 port=$5 statuses=$6 contains=$7 needle=$8 verb=$9
    shift 9
    url=$1 path=$2 insecure=$3
    shift 3
    checks_start checks_http_once "$@"
}

checks_tcp() {
    index=$1 seconds=$2 source=$3 target=$4 port=$5 code='' found='' head=''
    checks_start checks_tcp_once
}

checks_name() {
    index=$1 seconds=$2 source=$3 target=$4 port='' code='' found='' head=''
    checks_start checks_name_once
}

checks_greet() {
    index=$1 seconds=$2 source=$3 target=$4 port=$5 patterns=$6 request=$7 code='' found='' head=''
    checks_start checks_greet_once
}

checks_redis() {
    index=$1 seconds=$2 source=$3 target=$4 port=$5 owner=$6 role=$7 variable=${8:-} code='' found='' head=''
    checks_start checks_redis_once
}

checks_exec() {
    index=$1 seconds=$2 source=$3 expected=$4 contains=$5 needle=$6 target='' port=''
    shift 6
    checks_start checks_exec_once "$@"
}

checks_end() {
    wait
    cat "$checks_dir"/*.result 2>/dev/null
    echo end
}
