# Who holds the desired ports of this host, in one reading. Changes nothing.
# Writes sections (connection/frame.sh). Arguments: the desired ports ("tcp/0.0.0.0/80,8000-8010
# udp/::/53"), the same as a filter of ss, and as ranges.
# Everything that must be known of many processes is read by one program for all of them.
# shellcheck disable=SC2034 # sockets.sh and its like go before this, and use them
desired=$1 filter=$2 ranges=$3
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:/snap/bin
LC_ALL=C
export PATH LC_ALL
set -f
# A user's own engine may not see the directory that we came to.
cd /
me=$(id -u)
has() { command -v "$1" >/dev/null 2>&1; }
# A program that hangs must not hang the run.
if has timeout; then limit='timeout 8'; else limit=; fi
system=linux
if [ -r /proc/version ]; then
  read -r version </proc/version
  case "$version" in *[Mm]icrosoft*) system=wsl ;; esac
elif [ "$(uname)" = Darwin ]; then
  system=darwin
fi

# Ports that a packet filter takes for Kubernetes before a socket could.
list_rules() {
  for directory in /var/lib/kubelet /etc/kubernetes /var/lib/rancher /var/lib/k0s /var/snap/microk8s; do
    [ -d $directory ] || continue
    begin rules
    {
      ! has iptables-save || $limit iptables-save -t nat
      ! has nft || $limit nft list ruleset
    } 2>/dev/null </dev/null | grep -E 'KUBE-NODEPORTS.*--dport|CNI-(DN|HOSTPORT).*--dports? |(tcp|udp) \. [0-9]+ : goto external-' | quoted
    end 0
    return
  done
}

run_windows() {
  program=$(command -v "$1") || program=/mnt/c/Windows/System32/$1
  shift
  [ -e "$program" ] || { echo; return 127; }
  ${limit:+timeout 10} "$program" "$@" </dev/null 2>/dev/null | od -An -v -tx1 | tr -d ' \n'
  echo
}

observe() {
  exec 3<&0 </dev/null
  begin host
  {
    printf 'system %s\nroot %s\nnow %s\n' $system "$me" "$(date +%s)"
    [ ! -r /proc/uptime ] || { read -r up _ </proc/uptime; printf 'up %s\n' "$up"; }
    for name in python3 perl ss systemctl docker podman; do
      ! has $name || printf 'tool %s\n' $name
    done
  } | quoted
  end 0
  begin settings
  # A setting of the kernel ends after the first read, and a shell would read it byte by byte.
  cat /proc/sys/net/ipv4/ip_local_port_range /proc/sys/net/ipv4/ip_local_reserved_ports 2>/dev/null |
    quoted
  end 0
  try_binds
  guards='' pids='' names='' keepers='' managers=''
  # shellcheck disable=SC2154 # the output of try_binds
  if [ $system = darwin ]; then
    begin lsof
    lsof -nP +c0 -iTCP -iUDP -FpRcuLfdtPTn 2>/dev/null | quoted
    end 0
    begin ps
    TZ=UTC0 ps -axww -o pid= -o ppid= -o uid= -o user= -o lstart= -o comm= 2>/dev/null | quoted
    end 0
    pid=$$
    begin guards
    while [ "${pid:-0}" -gt 0 ]; do
      echo "$pid"
      pid=$(ps -o ppid= -p "$pid" | tr -d ' ')
    done | quoted
    end 0
  elif [ -z "$tool" ] || [ "$output" != 'done' ]; then
    if [ -z "$tool" ]; then
      begin addresses
      { [ ! -e /proc/net/tcp6 ] || echo '::'; cat /proc/net/fib_trie /proc/net/if_inet6; } \
        2>/dev/null | quoted
      end 0
    fi
    list_sockets
    find_unlisted
    family=$(find_family)
    while read -r word first _; do
      case $word in
        guard) guards="$guards $first" ;;
        pid) pids="$pids $first" ;;
        unit) names="$names $first" ;;
        supervisor) keepers="$keepers $first" ;;
        manager | listener)
          case "$managers system " in *" $first "*) ;; *) managers="$managers $first" ;; esac
          ;;
      esac
    done <<EOT
$family
EOT
    inspect_again
    ask_further_engines
    read_processes
    show_units
    ask_supervisors
  fi
  list_rules
  if [ $system = wsl ]; then
    section netstat run_windows netstat.exe -ano
    section tasklist run_windows tasklist.exe /svc /fo csv /nh
    section excluded4tcp run_windows netsh.exe interface ipv4 show excludedportrange protocol=tcp
    section excluded4udp run_windows netsh.exe interface ipv4 show excludedportrange protocol=udp
  fi
  asked=$(cat <&3)
  printf '%s\n' "$asked"
  # shellcheck disable=SC2154 # the mark is that of frame.sh
  case "$asked" in
    *"
$mark begin engine docker
|up
"*) ;;
    *)
      # While the engine is down, its containers may run on under their shims.
      begin shims
      (set +f; printf '%s\n' /proc/[0-9]*/comm | xargs grep -slx containerd-shim /dev/null |
        sed 's/comm$/cmdline/' | xargs grep -slaF moby /dev/null) | quoted
      end 0
      ! grep -Eqs '"live-restore"[[:space:]]*:[[:space:]]*true' /etc/docker/daemon.json ||
        section live true
      ;;
  esac
  section 'done' true
}

ask_engines | observe
