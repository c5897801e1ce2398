# What new networks and containers have to fit in on this host. Changes nothing.
# Writes sections (connection/frame.sh). Arguments: paths that have to be there.
# shellcheck disable=SC2046 # ids are hexadecimal
section networks docker network inspect --format '[{{json .Name}},{{json .IPAM.Config}}]' \
  $(docker network ls -q --no-trunc)
section info docker info --format '{{json .}}'
[ -z "${STACKMEND_HUNG:-}" ] || section hung true
section routes cat /proc/net/route
gpus() {
  for device in /sys/bus/pci/devices/*; do
    { read -r vendor <"$device/vendor" && read -r class <"$device/class"; } 2>/dev/null || continue
    case $class in 0x03* | 0x12*) printf 'bus %s\n' "$vendor" ;; esac
  done
  for node in /dev/nvidiactl /dev/nvidia[0-9]* /dev/nvhost-gpu /dev/dxg; do
    [ ! -e "$node" ] || echo driver
  done
  for file in /etc/cdi/* /var/run/cdi/*; do [ ! -e "$file" ] || echo cdi; done
  # The engine looks for it among its programs (moby daemon/nvidia_linux.go).
  for hook in nvidia-container-runtime-hook nvidia-container-runtime; do
    ! (PATH=$PATH:/usr/local/bin:/usr/bin:/bin && command -v "$hook") >/dev/null || echo hook
  done
}
absent() { for path; do [ -e "$path" ] || printf '%s\n' "$path"; done; }
section gpu gpus
section absent absent "$@"
