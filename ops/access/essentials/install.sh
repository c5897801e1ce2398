# Install packages, and start services now and with the host. Both lists hold plain names, parted by
# blanks. Arguments: the package manager, the init, the packages, the services.
# shellcheck disable=SC2086
set -e
manager=$1 init=$2 packages=$3 services=$4
if [ -n "$packages" ]; then
  case $manager in
  apt)
    export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
    wait='-o DPkg::Lock::Timeout=300'
    # What was broken off half-way stands in the way of everything that follows.
    dpkg --configure -a >&2
    apt-get -q $wait update >&2
    apt-get -q -y $wait -o Dpkg::Options::=--force-confold \
      install --no-install-recommends $packages >&2
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
