#!/bin/sh
# Runs as root inside a host: waits until its services answer. When the host is new, it then sets up
# the logins and remembers the state that a reset returns to, and prints "new".
# $1: kind (managed has an engine). $LAB_KEY: the public key of the lab.
set -eu

# The client takes five times as long to ask.
ping() { curl -fsS --unix-socket /run/docker.sock http://localhost/_ping > /dev/null 2>&1; }
answering() {
    systemctl is-active -q ssh cron || return 1
    [ "$1" != managed ] || ping || return 1
    [ -z "$(systemctl list-jobs --no-legend 2> /dev/null)" ]
}

tries=0
until answering "$1"; do
    tries=$((tries + 1))
    if [ $tries -gt 600 ]; then
        systemctl --failed --no-legend
        journalctl -n 30 --no-pager
        exit 1
    fi
    sleep 0.1
done
boot=$(cut -d ' ' -f 22 /proc/1/stat)
if [ -e /lab/baseline/done ]; then
    # After a restart the outer engine's own rules for names have other ports: remember them anew,
    # once nothing else is in the packet filter.
    [ "$boot" = "$(cat /lab/baseline/boot)" ] || touch /lab/baseline/restarted
    exit 0
fi

# The engine's data may be an earlier host's: its containers, their rules in the packet filter and
# the directories that the engine made for their mounts are not part of this one.
if [ "$1" = managed ] && [ -n "$(docker ps -aq)" ]; then
    docker ps -aq | xargs docker rm -f -v > /dev/null
    docker network prune -f > /dev/null
    find /opt /srv -mindepth 1 -delete
    systemctl restart docker
fi

for home in /root /home/operator /home/keeper; do
    install -d -m 0700 "$home/.ssh"
    printf '%s\n' "$LAB_KEY" > "$home/.ssh/authorized_keys"
    chmod 0600 "$home/.ssh/authorized_keys"
    chown -R --reference="$home" "$home/.ssh"
done

mkdir -p /lab/baseline /lab/pristine
rsync -aHAX --relative /./etc /./root /./home /./opt /./srv /./usr/local /./var/spool \
    /./var/lib/systemd /lab/pristine/
cat /etc/resolv.conf > /lab/baseline/resolv.conf
cat /etc/hosts > /lab/baseline/hosts
ls -A /run > /lab/baseline/run
ip -o address show dev eth0 | sed 's/ *valid_lft.*//' > /lab/baseline/address
ip route show > /lab/baseline/route
systemctl list-units --plain --no-legend --state=active --type=service,timer,socket,path \
    | awk '{ print $1 }' | sort > /lab/baseline/units
awk '{ print $5 }' /proc/self/mountinfo | sort > /lab/baseline/mounts
sysctl -n net.ipv4.ip_forward > /lab/baseline/ip_forward
if [ "$1" = managed ]; then
    for tool in iptables ip6tables; do
        $tool-save 2> /dev/null | grep -v '^#' | sed 's/\[[0-9:]*\]/[0:0]/' > "/lab/baseline/$tool"
    done
fi
printf '%s\n' "$boot" > /lab/baseline/boot
touch /lab/baseline/done
echo new
