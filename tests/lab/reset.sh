#!/bin/sh
# Runs as root inside a host: puts it back to the state that snapshot.sh remembered.
# $1: bare or managed; "thaw" does only the first step. Prints "clean" as its last word when the
# host is as it was, "reload NAME" before it for an image that must be loaded again; anything else is
# a reason to make the host anew.
# shellcheck disable=SC2086  # lists of ids and unit names are meant to be split
set -u
baseline=/lab/baseline

# Frozen or stopped processes hold up everything that follows. Only cgroups of this host's own
# processes are thawed: on cgroup v1 other hosts' containers are beside them.
thaw() {
    cat /proc/[0-9]*/cgroup 2> /dev/null | sort -u | while IFS=: read -r number controllers path; do
        [ "$path" != / ] || continue
        if [ "$controllers" = freezer ]; then
            state=/sys/fs/cgroup/freezer$path/freezer.state
            [ "$(cat "$state" 2> /dev/null)" = THAWED ] || echo THAWED > "$state"
        elif [ "$number" = 0 ] && [ -e "/sys/fs/cgroup$path/cgroup.freeze" ]; then
            [ "$(cat "/sys/fs/cgroup$path/cgroup.freeze")" = 0 ] \
                || echo 0 > "/sys/fs/cgroup$path/cgroup.freeze"
        fi
    done 2> /dev/null
}

# Everything that is neither a service of the new host nor a container: logins, jobs, leftovers.
kill_strangers() {
    keep=" 1 $$ $PPID $(grep '\.service$' $baseline/units \
        | xargs systemctl show -p MainPID --value | tr '\n' ' ')"
    own=$(readlink /proc/self/ns/pid)
    # Listed first, killed after: the helpers that list must not meet themselves.
    strangers=$(for process in /proc/[0-9]*; do
        case "$keep" in *" ${process#/proc/} "*) continue ;; esac
        [ "$(readlink "$process/ns/pid")" = "$own" ] || continue
        read -r command < "$process/comm" || continue
        case "$command" in
            containerd-shim* | docker-proxy | runc | systemd-journal | "(sd-pam)") continue ;;
        esac
        echo "${process#/proc/}"
    done 2> /dev/null)
    [ -z "$strangers" ] || kill -9 $strangers 2> /dev/null
}

thaw
[ "$1" != thaw ] || exit 0
# What is written last when a host is made: without it, its making was ended half-way.
[ -e $baseline/changed ] || { echo "not settled"; exit 1; }
pkill -CONT -x 'dockerd|containerd|sshd|systemd-journal' 2> /dev/null
kill_strangers

# Files.
changed=$(rsync -aHAX --delete --relative --out-format='%n' \
    --exclude=/etc/hosts --exclude=/etc/hostname --exclude=/etc/resolv.conf --exclude=/etc/mtab \
    /lab/pristine/./etc /lab/pristine/./root /lab/pristine/./home /lab/pristine/./opt \
    /lab/pristine/./srv /lab/pristine/./usr/local /lab/pristine/./var/spool \
    /lab/pristine/./var/lib/systemd / 2>&1) || { echo "rsync: $changed"; exit 1; }
grep -q ' /etc/resolv.conf ' /proc/self/mountinfo || { echo "resolv.conf unmounted"; exit 1; }
cmp -s $baseline/resolv.conf /etc/resolv.conf || cat $baseline/resolv.conf > /etc/resolv.conf
cmp -s $baseline/hosts /etc/hosts || cat $baseline/hosts > /etc/hosts
awk '{ print $5 }' /proc/self/mountinfo | sort | comm -13 $baseline/mounts - \
    | grep -v -e '^/var/lib/docker/' -e '^/run/docker/' -e '^/run/credentials' | sort -r \
    | while read -r mount; do umount -l "$mount"; done
find /tmp /var/tmp /mnt /media /var/lib/stackmend /dev/shm -mindepth 1 -delete 2> /dev/null
rmdir /var/lib/stackmend 2> /dev/null
for path in /run/* /run/.[!.]*; do
    case "${path#/run/}" in docker | containerd | user | xtables.lock) continue ;; esac
    grep -q -x -F -e "${path#/run/}" $baseline/run || rm -rf "$path"
done

# Services. How often they were started lately counts for nothing in the next test.
case "$changed" in
    *etc/systemd/*) systemctl daemon-reload ;;
esac
systemctl reset-failed
now=$(systemctl list-units --plain --no-legend --state=active,activating,deactivating,failed \
    --type=service,timer,socket,path | awk '{ print $1 }' | sort)
strange=$(printf '%s\n' "$now" | comm -13 $baseline/units - | grep -v '^user')
[ -z "$strange" ] || { systemctl stop $strange; systemctl reset-failed; } 2> /dev/null
missing=$(systemctl list-units --plain --no-legend --state=active \
    --type=service,timer,socket,path | awk '{ print $1 }' | sort | comm -23 $baseline/units - \
    | grep -v -e '^docker' -e '^containerd')
[ -z "$missing" ] || systemctl start $missing || { echo "not started: $missing"; exit 1; }
case "$changed" in
    *etc/ssh/*) systemctl restart ssh && systemctl reset-failed ssh ;;
esac

# The packet filter and the interface. Only what carries no container can be put back at once.
filter_now() { "$1-save" 2> /dev/null | grep -v '^#' | sed 's/\[[0-9:]*\]/[0:0]/'; }
restore_filter() {
    [ ! -e $baseline/restarted ] || return 0
    for tool in iptables ip6tables; do
        filter_now $tool | cmp -s - $baseline/$tool || $tool-restore < $baseline/$tool
    done
}
for device in /sys/class/net/*; do
    device=${device##*/}
    tc qdisc show dev "$device" | grep -q -e netem -e tbf -e htb && tc qdisc del dev "$device" root
done
[ "$(sysctl -n net.ipv4.ip_forward)" = "$(cat $baseline/ip_forward)" ] \
    || sysctl -q -w "net.ipv4.ip_forward=$(cat $baseline/ip_forward)"
[ ! -e $baseline/restarted ] \
    || ip -o address show dev eth0 | sed 's/ *valid_lft.*//' > $baseline/address
ip -o address show dev eth0 | sed 's/ *valid_lft.*//' | cmp -s - $baseline/address \
    || { echo "eth0 readdressed"; exit 1; }

# The engine, asked by its socket where it can be: the client takes five times as long.
api() { curl -gfsS -m 20 --unix-socket /run/docker.sock "$@"; }
listed() { api "http://docker/$2" | grep -o "\"$1\":\"[^\"]*\"" | cut -d '"' -f 4; }
if [ "$1" = managed ]; then
    command -v docker > /dev/null || { echo "no docker client"; exit 1; }
    restart=
    case "$changed" in
        *etc/docker/* | *etc/systemd/system/docker* | *etc/systemd/system/containerd*) restart=1 ;;
    esac
    if [ -n "$restart" ] || ! api -m 5 http://docker/_ping > /dev/null 2>&1; then
        systemctl unmask docker.service docker.socket containerd.service 2> /dev/null
        systemctl reset-failed 2> /dev/null
        restore_filter
        systemctl start containerd docker.socket
        timeout 60 systemctl restart docker || { echo "docker does not start"; exit 1; }
    fi
    # Twice: a container with a restart policy, or one being made just now, may come late.
    for _ in 1 2; do
        api http://docker/containers/json > /dev/null || { echo "no list of containers"; exit 1; }
        all=$(listed Id 'containers/json?all=1')
        [ -n "$all" ] || break
        paused=$(listed Id 'containers/json?filters={"status":["paused"]}')
        [ -z "$paused" ] || docker unpause $paused > /dev/null 2>&1
        printf '%s\n' $all | xargs -r -P 8 -n 4 timeout 30 docker rm -f -v > /dev/null 2>&1
    done
    [ -z "$(listed Id 'containers/json?all=1')" ] \
        || { echo "containers stay: $(docker ps -a)"; exit 1; }
    networks=$(listed Id 'networks?filters={"type":["custom"]}')
    [ -z "$networks" ] || docker network rm $networks > /dev/null || { echo networks; exit 1; }
    volumes=$(listed Name volumes)
    [ -z "$volumes" ] || docker volume rm -f $volumes > /dev/null || { echo volumes; exit 1; }
    api -X POST 'http://docker/build/prune?all=1' > /dev/null 2>&1
    if [ -e $baseline/restarted ]; then
        timeout 60 systemctl restart docker || { echo "docker does not start"; exit 1; }
        for tool in iptables ip6tables; do filter_now $tool > $baseline/$tool; done
    fi
    restore_filter

    record=/var/lib/docker/stackmend-lab/images
    images() {
        docker image ls --no-trunc --format '{{.Repository}}:{{.Tag}} {{.ID}}' | sort
    }
    if ! images | cmp -s - $record; then
        images | comm -13 $record - | while read -r name id; do
            case "$name" in
                *'<none>'*) docker image rm -f "$id" ;;
                *) docker image rm -f "$name" ;;
            esac
        done > /dev/null 2>&1
        images | comm -23 $record - | while read -r name id; do
            docker tag "$id" "$name"
        done > /dev/null 2>&1
        images | comm -23 $record - | sed 's/^/reload /; s/ sha256:.*//'
    fi
    find /var/lib/docker -mindepth 1 -maxdepth 1 \( -type f -o -type l \) -delete
fi
# What was wrong before is not to be found by whoever reads the journal now.
if command -v journalctl > /dev/null; then
    journalctl --rotate > /dev/null 2>&1
    journalctl --vacuum-size=1 > /dev/null 2>&1
fi
if [ -e $baseline/restarted ]; then
    cut -d ' ' -f 22 /proc/1/stat > $baseline/boot
    rm $baseline/restarted
fi
echo clean
