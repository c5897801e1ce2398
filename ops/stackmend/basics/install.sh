# Install packages, and start services now and with the host. Both lists hold plain names, parted by
# blanks. Arguments: the package manager, the init, the packages, the services.
# shellcheck disable=SC2086
set -e
manager=$1 init=$2 packages=$3 services=$4

# A new machine may be busy with an upgrade of its own, which holds apt's locks.
wait_for_lock() {
  tries=0
  until output=$("$@" 2>&1); do
    tries=$((tries + 1))
    case $output in *lock*) ;; *) tries=60 ;; esac
    if [ "$tries" -ge 60 ]; then
      printf '%s\n' "$output" | tail -n 5 >&2
      return 1
    fi
    sleep 5
  done
}

if [ -n "$packages" ]; then
  case $manager in
  apt)
    export DEBIAN_FRONTEND=noninteractive LC_ALL=C NEEDRESTART_SUSPEND=1
    # What was broken off half-way stands in the way of everything that follows.
    wait_for_lock dpkg --configure -a
    wait_for_lock apt-get -q update
    wait_for_lock apt-get -q -y -o Dpkg::Options::=--force-confold \
      install --no-install-recommends $packages
    ;;
  dnf) dnf -q -y install $packages >&2 ;;
  apk) apk add -q $packages >&2 ;;
  esac
fi
[ -n "$services" ] || exit 0
case $init in
systemd)
  systemctl daemon-reload
  # A service that failed a moment ago is started all the same.
  systemctl reset-failed $services 2>/dev/null || :
  systemctl enable --now $services >&2
  ;;
openrc)
  for service in $services; do
    rc-update add "$service" default >&2
    rc-service "$service" start >&2
  done
  ;;
esac
