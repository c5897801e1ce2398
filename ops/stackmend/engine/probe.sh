# What this host has of container engines, in one reading. Changes nothing.
# Writes sections (connection/frame.sh). Arguments: where what we remember lies, the packages to look
# for, the keyrings to show.
root=$1 packages=$2 keyrings=$3

have() { command -v "$1" >/dev/null 2>&1; }
limited() { if have timeout; then timeout -k 2 20 "$@"; else "$@"; fi; }

if have dpkg-query && have apt-get; then
  manager=apt architecture=$(dpkg --print-architecture)
elif have apk; then
  manager=apk architecture=$(apk --print-arch)
elif have dnf && have rpm; then
  manager=dnf architecture=$(uname -m)
else
  manager='' architecture=$(uname -m)
fi
begin host
{
  printf 'system %s\n' "$(uname -s)"
  printf 'root %s\n' "$(id -u)"
  printf 'manager %s\narchitecture %s\n' "$manager" "$architecture"
  [ "$(cat /sys/module/apparmor/parameters/enabled 2>/dev/null)" = Y ] && echo 'apparmor 1'
} | quoted
end 0
for file in /etc/os-release /usr/lib/os-release; do
  [ -f "$file" ] && { section release cat "$file"; break; }
done

# One line each: its name, its version, and whether it is installed to the end.
begin packages
# Names hold no blanks.
# shellcheck disable=SC2086
case $manager in
  apt) dpkg-query -W -f '${Package} ${Version} ${db:Status-Status}\n' $packages 2>/dev/null ;;
  dnf) rpm -q --qf '%{NAME} %{EPOCHNUM}:%{VERSION}-%{RELEASE} installed\n' $packages 2>/dev/null |
    grep ' installed$' ;;
  apk) for name in $packages; do
    apk info -e -v "$name" 2>/dev/null | sed "s/^$name-\(.*\)/$name \1 installed/"
  done ;;
esac | quoted
end 0

owner() {
  case $manager in
    apt) dpkg-query -S "$1" 2>/dev/null | sed -n '1s/[:,].*//p' ;;
    dnf) rpm -qf --qf '%{NAME}' "$1" 2>/dev/null || : ;;
    apk) apk info -W -q "$1" 2>/dev/null | sed 's/-[0-9].*//' ;;
  esac
}
begin programs
{
  for name in docker dockerd containerd; do
    path=$(unset -f docker; PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:/snap/bin command -v "$name") || continue
    real=$(readlink -f "$path")
    package=$(owner "$real")
    # Where /usr is merged, a package may name a file by its path before.
    [ -n "$package" ] || package=$(owner "${real#/usr}")
    printf '%s|%s|%s|%s\n' "$name" "$path" "$real" "$package"
  done
  [ -e /snap/docker/current ] && [ -e /snap/bin/docker ] && echo 'snap|/snap/bin/docker||'
} | quoted
end 0

# Engines of the host's own namespace: those inside containers are none of its business. Three lines
# each: its number and whose it is, its unit, its arguments in hexadecimal. Anybody may call a process
# so, and give it arguments of any bytes.
begin daemons
own=$(readlink /proc/self/ns/pid)
for process in /proc/[0-9]*; do
  read -r comm <"$process/comm" || continue
  [ "$comm" = dockerd ] || continue
  [ "$(readlink "$process/ns/pid")" = "$own" ] || continue
  unit=$(sed -n 's|.*/\([^/]*\.service\).*|\1|p' "$process/cgroup" | sed -n 1p)
  uid=$(sed -n 's/^Uid:[[:space:]]*\([0-9]*\).*/\1/p' "$process/status")
  printf '%s %s\n%s\n' "${process#/proc/}" "$uid" "$unit"
  head -c 65536 "$process/cmdline" | od -An -v -tx1 | tr -d ' \n'
  echo
done 2>/dev/null | quoted
end 0

if [ -d /run/systemd/system ]; then
  section systemd systemctl show docker.service \
    -p LoadState,ActiveState,UnitFileState,FragmentPath,DropInPaths,ExecStart,Environment,EnvironmentFiles
  begin environment
  systemctl show docker.service -p EnvironmentFiles --value 2>/dev/null |
    sed -n 's/ (ignore_errors=.*)$//p' | while IFS= read -r file; do
    [ -f "$file" ] && sed 's/^/='"$(printf %s "$file" | sed 's/[&/\\]/\\&/g')"' /' "$file"
  done | quoted
  end 0
elif have rc-service; then
  begin openrc
  {
    rc-service docker status 2>&1 | sed 's/^/status /'
    rc-update show default 2>/dev/null | grep -w docker | sed 's/^/enabled /'
    [ -e /etc/init.d/docker ] && echo 'load loaded'
  } | quoted
  end 0
elif have service && [ -e /etc/init.d/docker ]; then
  section sysv service docker status
fi

begin origins
for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources \
  /etc/apt/preferences.d/stackmend-* /etc/yum.repos.d/*.repo; do
  [ -f "$file" ] || continue
  case $file in
    */stackmend-*) ;;
    *) grep -q -i -e docker "$file" || continue ;;
  esac
  sed 's|^|'"$file"'	|' "$file"
done | quoted
end 0
# shellcheck disable=SC2086 # paths of ours hold no blanks
for file in $keyrings; do
  [ -f "$file" ] && section "key $file" base64 "$file"
done

config=$(systemctl show docker.service -p ExecStart --value 2>/dev/null |
  sed -n 's/.* --config-file[= ]\(\/[^ ;]*\).*/\1/p')
config=${config:-/etc/docker/daemon.json}
begin config
{
  printf 'path %s\n' "$config"
  if [ -L "$config" ]; then printf 'real %s\n' "$(readlink -f "$config" || readlink "$config")"; fi
  if [ -d "$config" ]; then echo directory
  elif [ -f "$config" ]; then echo file
  elif [ -e "$config" ]; then echo other
  else echo missing
  fi
} | quoted
end 0
[ -f "$config" ] && section text cat "$config"
# Whether dockerd reads it, and the one to put back where it does not. What the engine was last seen to
# run with needs no asking.
if [ -f "$config" ] && ! cmp -s "$config" "$root/kept/proven.json"; then
  validated() {
    PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin limited dockerd --validate --config-file "$1" 2>&1
  }
  case $(PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin limited dockerd --help 2>/dev/null) in
    *--validate*)
      section refused validated "$config"
      # shellcheck disable=SC2046 # paths of ours hold no blanks
      set -- $(find "$root/kept" -name 'daemon.json.*Z' 2>/dev/null | sort -r | head -n 5)
      for file in "$root/kept/proven.json" "$@"; do
        if [ -f "$file" ] && validated "$file" >/dev/null; then
          section "copy $file" cat "$file"
          break
        fi
      done
      ;;
  esac
fi
# After the file: a script that changes it says so before, and takes that back last.
[ -e "$root/pending" ] && section pending true
[ -s "$root/left" ] && section left cat "$root/left"
[ -e "$root/restarted" ] && section restarted true

ids=''
if unexecutable docker >/dev/null; then
  section unexecutable unexecutable docker
elif have docker; then
  section versions docker version --format '{{.Client.Version}}|{{with .Server}}{{.Version}}{{end}}'
  # Some versions of it ask the engine, and would wait for one that hangs.
  [ -n "${STACKMEND_HUNG:-}" ] || section compose limited docker compose version --short
  begin containers
  ids=$(docker ps -q --no-trunc 2>/dev/null)
  # shellcheck disable=SC2086
  [ -z "$ids" ] || docker container inspect \
    --format '[{{json .Id}},{{json .Name}},{{json .HostConfig.AutoRemove}}]' $ids 2>/dev/null | quoted
  end 0
fi
section steering steering

# What keeps an engine from starting that is not up; one that fails is started again and again.
if [ -d /run/systemd/system ] && ! systemctl is-active -q docker.service; then
  pid=$(cat /run/docker.pid 2>/dev/null)
  case $pid in
    '' | *[!0-9]*) ;;
    *) [ ! -r "/proc/$pid/comm" ] || section pidfile printf '%s ' "$pid" "$(cat "/proc/$pid/comm")" ;;
  esac
  # What it said when it last failed to start: it may be starting again.
  begin database
  journalctl -u docker.service -n 400 --no-pager -o cat 2>/dev/null |
    awk '
      /^Starting / { before = block; block = ""; over = 0 }
      { block = block $0 "\n" }
      /Main process exited/ { over = 1 }
      END { printf "%s", over ? block : before }' |
    grep -e 'error obtaining controller instance' -e 'libnetwork/datastore' | head -n 1 | quoted
  end 0
fi
if [ -n "${STACKMEND_HUNG:-}" ] && have ctr && have timeout; then
  timeout -k 1 4 ctr version >/dev/null 2>&1 || section silent echo containerd
fi
if [ -d /run/systemd/system ]; then
  section containerd systemctl show containerd.service -p LoadState,ActiveState
fi

# What an engine that answers made in the kernel: bridges, their addresses and ports, rules.
[ -n "$ids" ] && [ "$(id -u)" = 0 ] || { section 'done' true; exit 0; }
networks=$(docker network ls -q --no-trunc --filter driver=bridge 2>/dev/null)
begin endpoints
# shellcheck disable=SC2086 # ids
docker container inspect \
  --format '[{{json .Name}},{{json .State.Pid}},{{json .NetworkSettings.Ports}},{{json .NetworkSettings.Networks}}]' \
  $ids 2>/dev/null | quoted
end 0
section addresses ip -o -4 address show
section links ip -o link show
section forwarding cat /proc/sys/net/ipv4/ip_forward
if have iptables-save && saved=$(limited iptables-save -c 2>/dev/null); then
  begin rules
  printf '%s\n' "$saved" |
    grep -e '^\*' -e DOCKER -e '-A FORWARD ' -e MASQUERADE -e DNAT | head -n 5000 | quoted
  end 0
  # An engine may bring its own iptables, of the other kind.
  begin others
  for variant in iptables-nft-save iptables-legacy-save; do
    have "$variant" || continue
    limited "$variant" 2>/dev/null | grep -e '^\*' -e DOCKER -e '-A FORWARD ' -e MASQUERADE -e DNAT |
      head -n 5000
  done | quoted
  end 0
fi
# After the rules: what came or went meanwhile is not said to miss any.
begin networks
# shellcheck disable=SC2086 # ids
[ -z "$networks" ] || docker network inspect --format \
  '[{{json .Name}},{{json .Id}},{{json .Internal}},{{json .Options}},{{json .IPAM.Config}},{{json .Containers}}]' \
  $networks 2>/dev/null | quoted
end 0
# Ports that are on no bridge, and whose: both ends of such a pair name the number of the other.
if have nsenter && ip -o link show type veth 2>/dev/null | grep -v ' master ' | grep -q ': veth'; then
  begin ends
  # shellcheck disable=SC2086 # ids
  for pid in $(docker container inspect --format '{{.State.Pid}}' $ids 2>/dev/null); do
    [ "$pid" -gt 0 ] || continue
    nsenter -t "$pid" -n ip -o link show 2>/dev/null | sed "s/^/$pid link /"
    nsenter -t "$pid" -n ip -o -4 address show 2>/dev/null | sed "s/^/$pid address /"
  done | quoted
  end 0
fi
section 'done' true
