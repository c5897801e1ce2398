# Who holds the wanted ports of this host, in one reading. Changes nothing.
# Writes sections (connection/frame.sh). Arguments: the wanted ports ("tcp/0.0.0.0/80,8000-8010
# udp/::/53"), the same as a filter of ss, and as ranges.
# Everything that must be known of many processes is read by one program for all of them.
wanted=$1 filter=$2 ranges=$3
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:/snap/bin
LC_ALL=C
export PATH LC_ALL
set -f
# A user's own engine may not see the directory that we came to.
cd /
me=$(id -u)
has() { command -v "$1" >/dev/null 2>&1; }
# A program that hangs must not hang the run.
if has timeout; then limit='timeout 20'; else limit=; fi
system=linux
if [ -r /proc/version ]; then
  read -r version </proc/version
  case "$version" in *[Mm]icrosoft*) system=wsl ;; esac
elif [ "$(uname)" = Darwin ]; then
  system=darwin
fi

login() { { getent passwd "$1" 2>/dev/null || cat /etc/passwd; } | awk -F : -v uid="$1" '$3 == uid { print $1; exit }'; }

# As the user $1 (a number) with the name $2, what the rest says, with that user's own managers.
as() {
  uid=$1 login=$2
  shift 2
  if [ "$me" = "$uid" ]; then
    XDG_RUNTIME_DIR=/run/user/$uid "$@"
  elif has runuser; then
    runuser -u "$login" -- env XDG_RUNTIME_DIR="/run/user/$uid" "$@"
  else
    setpriv --reuid "$uid" --init-groups --reset-env env XDG_RUNTIME_DIR="/run/user/$uid" "$@"
  fi
}

# What an engine runs that concerns the wanted ports. $1: its name here; the rest: its client.
# A container without a network of its own may hold any port of the host. Labels may come from its
# image: those of the images are told as well.
# shellcheck disable=SC2016
shape='[{{json .Image}},{{json .ID}},{{json .Name}},{{json .State.Status}},{{.State.Pid}},{{json .HostConfig.RestartPolicy.Name}},{{json .HostConfig.NetworkMode}},{{json .NetworkSettings.Ports}}'
label='{{json (index .Config.Labels "com.docker.compose'
for name in project service project.working_dir oneoff project.config_files container-number config-hash image; do
  shape="$shape,$label.$name\")}}"
done
shape="$shape,{{json .HostConfig.PortBindings}}]"
ask() {
  engine=$1
  shift
  rows=$("$@" ps --no-trunc --format '{{.ID}}|{{.State}}|{{.Ports}}|{{.Networks}}' 2>&1 </dev/null)
  status=$?
  begin "engine $engine"
  if [ $status -eq 0 ]; then echo up; else printf '%s\n' "$rows"; fi | quoted
  end $status
  [ $status -eq 0 ] || return 0
  ids=$(printf '%s\n' "$rows" | awk -F '|' -v ranges="$ranges" '
    BEGIN { count = split(ranges, range, " ") }
    function wanted(first, last,  i, ends) {
      for (i = 1; i <= count; i++) {
        split(range[i], ends, "-")
        if (first <= ends[2] + 0 && last >= ends[1] + 0) return 1
      }
      return 0
    }
    NF > 3 && $1 ~ /^[0-9a-f]+$/ {
      networks = substr($0, length($1) + length($2) + length($3) + 4)
      # One that is restarted has its ports again before it is listed with them.
      take = networks == "" || networks == "host" || $2 == "restarting"
      n = split($3, published, ", ")
      for (i = 1; i <= n && !take; i++) {
        if (!(at = index(published[i], "->"))) continue
        port = substr(published[i], 1, at - 1)
        sub(/^.*:/, "", port)
        two = split(port, ends, "-")
        take = wanted(ends[1] + 0, ends[two] + 0)
      }
      if (take) print $1
    }')
  [ -n "$ids" ] || return 0
  # shellcheck disable=SC2086
  rows=$("$@" container inspect --format "$shape" $ids 2>&1 </dev/null)
  status=$?
  begin "containers $engine"
  printf '%s\n' "$rows" | quoted
  end $status
  # An image may be gone, and is then not told of.
  begin "images $engine"
  # shellcheck disable=SC2046
  "$@" image inspect --format "[{{json .Id}},$label.project\")}},$label.config-hash\")}}]" \
    $(printf '%s\n' "$rows" | sed -n 's/^\["\([0-9a-fhs:]*\)",.*/\1/p' | sort -u) \
    </dev/null 2>/dev/null | quoted
  end 0
}

engines() {
  has docker || return 0
  # shellcheck disable=SC2086
  ask docker $limit docker
  # shellcheck disable=SC2086
  [ $system != wsl ] ||
    section desktop $limit docker info --format '{{.OperatingSystem}}' </dev/null
}

# A bind is tried with the options that Docker binds with. The module that "socket" wraps loads in
# a fraction of its time.
bind_python='
import errno, sys
try:
    import _socket as socket
except ImportError:
    import socket
for group in sys.argv[1:]:
    kind, address, ports = group.split("/")
    six = ":" in address
    for part in ports.split(","):
        first, _, last = part.partition("-")
        for port in range(int(first), int(last or first) + 1):
            one = None
            try:
                one = socket.socket(
                    socket.AF_INET6 if six else socket.AF_INET,
                    socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM,
                )
                if six:
                    one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                if kind == "tcp":
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                one.bind((address, port))
                if kind == "tcp":
                    one.listen(1)
            except OSError as error:
                name = errno.errorcode.get(error.errno, "E%s" % error.errno)
                print(name, kind, address, port)
            finally:
                if one is not None:
                    one.close()
print("done")
'
# shellcheck disable=SC2016
bind_perl='
use Socket qw(:DEFAULT inet_pton pack_sockaddr_in6 IPPROTO_IPV6 IPV6_V6ONLY);
for (@ARGV) {
  my ($kind, $address, $ports) = split m{/};
  my $six = index($address, ":") >= 0;
  for my $part (split /,/, $ports) {
    my ($first, $last) = split /-/, $part;
    for my $port ($first .. ($last || $first)) {
      my ($one, $packed);
      $packed = inet_pton($six ? AF_INET6 : AF_INET, $address);
      next if !defined $packed and print "EINVAL $kind $address $port\n";
      my $to = $six ? pack_sockaddr_in6($port, $packed) : pack_sockaddr_in($port, $packed);
      socket($one, $six ? PF_INET6 : PF_INET, $kind eq "tcp" ? SOCK_STREAM : SOCK_DGRAM, 0)
        and (!$six or setsockopt($one, IPPROTO_IPV6, IPV6_V6ONLY, pack("i", 1)))
        and ($kind ne "tcp" or setsockopt($one, SOL_SOCKET, SO_REUSEADDR, pack("i", 1)))
        and bind($one, $to) and ($kind ne "tcp" or listen($one, 1))
        or do {
          my ($name) = grep { $!{$_} } qw(EADDRINUSE EADDRNOTAVAIL EACCES EAFNOSUPPORT EINVAL);
          $name ||= "E" . ($! + 0);
          print "$name $kind $address $port\n";
        };
    }
  }
}
print "done\n";
'
# A socket that is bound and does not listen is in no list of the kernel before 6.8: the sockets
# that are in no list are looked at through copies of their descriptors.
bound_python='
import ctypes, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
listed = set()
for name in "tcp tcp6 udp udp6 udplite udplite6 raw raw6 icmp icmp6 unix packet netlink".split():
    try:
        with open("/proc/net/" + name) as table:
            head = table.readline().split()
            for line in table:
                row = line.split()
                if name == "unix":
                    listed.add(row[6])
                elif name in ("packet", "netlink"):
                    listed.add(row[-1])
                else:
                    listed.add(row[9])
    except (OSError, IndexError):
        pass
ports = set()
for part in sys.argv[1].split():
    first, _, last = part.partition("-")
    ports.update(range(int(first), int(last) + 1))
here = os.readlink("/proc/self/ns/net")
for pid in filter(str.isdigit, os.listdir("/proc")):
    base = "/proc/" + pid
    handle = -1
    try:
        if int(pid) == os.getpid() or os.readlink(base + "/ns/net") != here:
            continue
        for number in os.listdir(base + "/fd"):
            link = os.readlink(base + "/fd/" + number)
            if not link.startswith("socket:[") or link[8:-1] in listed:
                continue
            if handle < 0:
                handle = libc.syscall(434, int(pid), 0)
            copy = libc.syscall(438, handle, int(number), 0)
            if copy < 0:
                continue
            with socket.socket(fileno=copy) as one:
                if one.family not in (socket.AF_INET, socket.AF_INET6):
                    continue
                if one.type != socket.SOCK_STREAM:
                    continue
                address, port = one.getsockname()[:2]
                if port in ports:
                    only = one.family == socket.AF_INET6 and one.getsockopt(
                        socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
                    print(link[8:-1], pid, address, port, int(only))
    except (OSError, ValueError):
        continue
    finally:
        if handle >= 0:
            os.close(handle)
'

binds() {
  tool='' said=''
  python=$(command -v python3 || command -v /usr/libexec/platform-python)
  # On macOS python3 may be a mere offer to install it, with a window.
  [ $system != darwin ] || python=
  # shellcheck disable=SC2086
  if [ -n "$python" ] && said=$("$python" -I -S -c "$bind_python" $wanted 2>&1); then
    tool=python3
  elif has perl && said=$(perl -e "$bind_perl" -- $wanted 2>&1); then
    tool=perl
  fi
  section "bind $tool" printf '%s\n' "$said"
}

# Whether the name of a process breaks a row of ss in two: a part begins like no row.
broken() { printf '%s\n' "$1" | grep -Evq '^((tcp|udp) +[A-Z0-9-]+ +[0-9]+ +[0-9]+ |$)'; }

# The rows of ss or of /proc/net. Connections say nothing beside a listener, and may be many.
listed() {
  via=ss rows=''
  # shellcheck disable=SC2086
  if ! has ss || ! rows=$(ss -H -tuanpe $filter 2>/dev/null) || broken "$rows"; then
    via=/proc
    files=
    for file in /proc/net/tcp /proc/net/tcp6 /proc/net/udp /proc/net/udp6; do
      [ ! -r $file ] || files="$files $file"
    done
    # shellcheck disable=SC2086
    rows=$([ -z "$files" ] || awk -v ranges="$ranges" '
      BEGIN {
        count = split(ranges, range, " ")
        for (i = 1; i <= count; i++) {
          split(range[i], ends, "-")
          for (port = ends[1] + 0; port <= ends[2] + 0; port++) wanted[sprintf("%04X", port)] = 1
        }
      }
      FNR > 1 && substr($2, length($2) - 3) in wanted {
        print substr(FILENAME, 11), $4, $2, $3, $8, $10
      }' $files)
  fi
  rows=$(printf '%s\n' "$rows" | awk -v via="$via" '
    { row[NR] = $0; kind[NR] = substr($1, 1, 3)
      at = via == "ss" ? $5 : $3; sub(/^.*:/, "", at); key[NR] = kind[NR] at
      quiet[NR] = via == "ss" ? $2 == "LISTEN" || $2 == "UNCONN" : $2 == "0A" || $2 == "07"
      if (quiet[NR]) listens[key[NR]] = 1 }
    END { for (i = 1; i <= NR; i++)
      if (row[i] != "" && (quiet[i] || (!(key[i] in listens) && ++seen[key[i]] <= 20))) print row[i] }')
  section "sockets $via" printf '%s\n' "$rows"
  owners=
  if [ $via = /proc ]; then
    owners=$({
      printf '%s\n' "$rows"
      # Where a link leads to is whatever its owner likes: with q no newline, and each word counts.
      list=-lnq
      ls $list / >/dev/null 2>&1 || list=-ln
      (set +f; printf '%s\n' /proc/[0-9]*/fd | xargs ls $list /dev/null 2>/dev/null)
    } | awk '
      /^(tcp|udp)/ { wanted["socket:[" $6 "]"] = $6 }
      /^\/proc\// { split($0, path, "/"); pid = path[3] }
      NF == 11 && $10 == "->" && $11 in wanted && !told[$11, pid]++ { print wanted[$11], pid }')
    section owners printf '%s\n' "$owners"
  fi
}

# What blocks a bind of TCP and is in no list.
unlisted() {
  hidden=$(printf '%s\n' "$rows" "$said" | awk -v via="$via" '
    $1 ~ /^tcp/ { at = via == "ss" ? $5 : $3; sub(/^.*:/, "", at); seen[at] = 1 }
    $1 == "EADDRINUSE" && $2 == "tcp" && !((via == "ss" ? $4 : sprintf("%04X", $4)) in seen) {
      if (!told[$4]++) print $4 "-" $4 }')
  bound=
  [ -n "$hidden" ] || [ -z "$tool" ] || return 0
  # shellcheck disable=SC2086
  if [ -n "$python" ]; then
    bound=$("$python" -I -S -c "$bound_python" "$hidden" 2>/dev/null)
  elif [ $via = ss ]; then
    more=$(ss -H -tanpeB $filter 2>/dev/null)
    status=$?
    begin 'sockets ss -B'
    printf '%s\n' "$more" | quoted
    end $status
    rows="$rows
$more"
  fi
  section bound printf '%s\n' "$bound"
}

# Every holder and our own shell with all their ancestors: "guard PID", "pid PID", and of those that
# hold something "unit NAME" and "manager UID NAME", "supervisor PID", "listener MANAGER".
family() {
  {
    printf '%s\n' "$rows" | awk '{
      while (match($0, /pid=[0-9]+,fd=/)) {
        print substr($0, RSTART + 4, RLENGTH - 8); $0 = substr($0, RSTART + RLENGTH) } }'
    printf '%s\n%s\n' "$owners" "$bound" | awk 'NF > 1 { print $2 }'
  } | awk -v own="$$" '
    function whole(file,  text, line) {
      text = ""
      while ((getline line < file) > 0) text = text line "\n"
      close(file)
      return text
    }
    function unit(pid,  text, line, part, name, n, i, m, path, user) {
      n = split(whole("/proc/" pid "/cgroup"), line, "\n")
      path = ""
      for (i = 1; i <= n; i++) {
        if (line[i] ~ /^0::/ && path == "") path = substr(line[i], 4)
        if (match(line[i], /^[0-9]+:name=systemd:/)) path = substr(line[i], RLENGTH + 1)
      }
      m = split(path, part, "/")
      name = ""; user = ""
      for (i = 1; i <= m; i++) {
        if (i < m && part[i] ~ /^user@[0-9]+\.service$/) user = substr(part[i], 6, length(part[i]) - 13)
        else if (part[i] ~ /\.(service|scope)$/) name = part[i]
      }
      if (name != "") tell((user == "" ? "unit " : "manager " user " ") name)
      return user
    }
    function tell(line) { if (!told[line]++) print line }
    function comm(text) {
      sub(/\)[^)]*$/, "", text)
      sub(/^[0-9]+ \(/, "", text)
      return text
    }
    function walk(pid, word,  text, field) {
      while (pid > 0 && !(pid in seen)) {
        text = whole("/proc/" pid "/stat")
        if (text == "") return
        seen[pid] = 1
        tell(word " " pid)
        if (comm(text) == "supervisord") tell("supervisor " pid)
        sub(/^.*\) /, "", text)
        split(text, field, " ")
        pid = field[2]
      }
    }
    function holds(pid,  user) {
      walk(pid, "pid")
      user = unit(pid)
      if (pid == 1) tell("listener system")
      else if (user != "" && comm(whole("/proc/" pid "/stat")) == "systemd") tell("listener " user)
    }
    BEGIN { walk(own, "guard"); walk(1, "guard") }
    /^[0-9]+$/ && !($1 in holder) { holder[$1] = 1; holds($1) }'
}

# Processes, each as its stat, cgroup and cmdline with the mark before each, in hexadecimal: a name or
# an argument may hold any byte. Of our own shell the command line is this very script. One program
# reads all these files; what it reads between them is its own environment, with the mark in it, which
# is shown to nobody else.
hexadecimal() { od -An -v -tx1 | tr -d ' \n'; }
# shellcheck disable=SC2154 # the mark is that of frame.sh
between() { mark=$mark sh -c 'exec cat "$@"' cat "$@" 2>/dev/null | hexadecimal; }
processes() {
  separator=/proc/self/environ
  set --
  known='' paths=''
  for pid in $guards; do
    [ -d "/proc/$pid" ] || continue
    known="$known $pid"
    paths="$paths /proc/$pid /proc/$pid/exe /proc/$pid/cwd"
    set -- "$@" $separator "/proc/$pid/stat" $separator "/proc/$pid/cgroup" $separator /dev/null
  done
  for pid in $pids; do
    case "$known " in *" $pid "*) continue ;; esac
    known="$known $pid"
    paths="$paths /proc/$pid /proc/$pid/exe /proc/$pid/cwd"
    set -- "$@" $separator "/proc/$pid/stat" $separator "/proc/$pid/cgroup" \
      $separator "/proc/$pid/cmdline"
  done
  section guards printf '%s\n' "$guards"
  begin processes
  {
    printf '%s\n' "$known"
    between "$@" | sed "s/$(between $separator)/$(printf '%s\n' "$mark" | hexadecimal)/g"
  } | quoted
  end 0
  # shellcheck disable=SC2086
  links=$(ls -dln $paths 2>/dev/null) told=links
  # Where a link leads to is what somebody called it: one with lines of its own would tell of others.
  # With q each has one line, and what cannot be printed is a question mark.
  # shellcheck disable=SC2086
  masked=$(ls -dlnq $paths 2>/dev/null)
  [ -z "$masked" ] ||
    [ "$(printf '%s\n' "$links" | grep -c '')" = "$(printf '%s\n' "$masked" | grep -c '')" ] ||
    links=$masked told='links masked'
  section "$told" printf '%s\n' "$links"
  users=$(printf '%s\n' "$links" | awk '/^d/ && !told[$3]++ { print $3 }')
  begin users
  # shellcheck disable=SC2086
  if has getent; then
    $limit getent passwd $users </dev/null
  else
    cat /etc/passwd
  fi | awk -F : '{ print $3, $1 }' | quoted
  end 0
}

units() {
  [ -d /run/systemd/system ] && has systemctl || return 0
  what=Id,ActiveState,UnitFileState,Restart,MainPID,TriggeredBy,Triggers,Listen,FragmentPath
  case "$family" in *'listener system'*) names="$names *.socket" ;; esac
  # Word splitting is wanted: the name of a unit holds no space.
  # shellcheck disable=SC2086
  [ -z "$names" ] || section 'units system' $limit systemctl show --property=$what -- $names </dev/null
  for uid in $managers; do
    login=$(login "$uid")
    names=$(printf '%s\n' "$family" | sed -n "s/^manager $uid //p")
    case "$family" in *"listener $uid"*) names="$names *.socket" ;; esac
    # shellcheck disable=SC2086
    section "units $uid" \
      as "$uid" "$login" $limit systemctl --user show --property=$what -- $names </dev/null
  done
}

# The programs of each supervisord that a holder descends from, told by its own client. Anybody may
# call a process so and give it a client and settings of his own: only ours is asked, and what it
# says is started by root.
supervisors() {
  here=$(readlink /proc/self/ns/mnt)
  for pid in $keepers; do
    # shellcheck disable=SC2012
    owner=$(ls -dln "/proc/$pid" 2>/dev/null | awk '{ print $3; exit }')
    if [ "$owner" != "$me" ] || [ "$(readlink "/proc/$pid/ns/mnt")" != "$here" ]; then
      section "supervisor $pid" true
      continue
    fi
    config='' program='' previous=''
    arguments=$(tr '\000' '\n' <"/proc/$pid/cmdline" 2>/dev/null)
    work=$(readlink "/proc/$pid/cwd") || work=/
    while IFS= read -r word; do
      case "$word" in
        */supervisord) program=${word%/*}/supervisorctl ;;
        --configuration=*) config=${word#*=} ;;
      esac
      case "$previous" in -c | --configuration) config=$word ;; esac
      previous=$word
    done <<EOT
$arguments
EOT
    if [ -z "$config" ]; then
      for config in "$work/supervisord.conf" "$work/etc/supervisord.conf" \
        /etc/supervisord.conf /etc/supervisor/supervisord.conf; do
        [ ! -r "$config" ] || break
      done
    fi
    case "$config" in /*) ;; *) config=$work/$config ;; esac
    section "supervisor $pid" client
  done
}

# What the client of one supervisord says of its programs.
client() {
  [ -x "$program" ] || program=$(command -v supervisorctl) || return
  printf '%s\n%s\n' "$program" "$config"
  # What has only just been started is told without its number.
  (cd "$work" 2>/dev/null || cd / || exit; $limit "$program" -c "$config" status </dev/null 2>&1) |
    while read -r name state rest; do
      [ "$state" != STARTING ] || rest="pid $($limit "$program" -c "$config" pid "$name" </dev/null), "
      printf '%s %s %s\n' "$name" "$state" "$rest"
    done
}

# Engines other than the default one: further daemons of Docker, and podman, root's and users' own.
# The words of $limit and of lists are split; /proc shows its owners to ls as well as to find.
# shellcheck disable=SC2086,SC2020,SC2012
further() {
  found=$(set +f; printf '%s\n' /proc/[0-9]*/comm |
    xargs grep -sHx -e dockerd -e conmon /dev/null)
  # The default engine has been asked already.
  default='' here=$(readlink /proc/self/ns/mnt)
  [ ! -r /run/docker.pid ] || read -r default </run/docker.pid
  sockets=' /var/run/docker.sock /run/docker.sock ' people=' ' mute=' '
  for file in $found; do
    pid=${file#/proc/}
    pid=${pid%%/*}
    [ "$pid" != "$default" ] || continue
    owner=$(ls -dln "/proc/$pid" 2>/dev/null | awk '{ print $3 }')
    case "$file" in
      *:dockerd)
        # Anybody may call a process so: where root connects to, root or we have said, and here.
        has docker && { [ "$owner" = 0 ] || [ "$owner" = "$me" ]; } &&
          [ "$(readlink "/proc/$pid/ns/mnt")" = "$here" ] || continue
        said=$(tr '\000' '\n' <"/proc/$pid/cmdline" 2>/dev/null)
        config=$(printf '%s\n' "$said" |
          sed -n '/^--config-file$/{n;p;}; s/^--config-file=//p' | tail -n 1)
        [ ! -f "$config" ] || [ ! -r "$config" ] || said="$said
$(head -c 65536 "$config" | tr '",' '\n\n')"
        paths=$(printf '%s\n' "$said" | sed -n 's/^.*unix:\/\///p')
        [ -n "$paths" ] || [ "$owner" = 0 ] || paths=/run/user/$owner/docker.sock
        for path in $paths; do
          case "$path" in *[!A-Za-z0-9/._@+-]*) continue ;; esac
          case "$sockets" in *" $path "*) continue ;; esac
          sockets="$sockets$path "
          [ ! -S "$path" ] || ask "docker:unix://$path" $limit docker -H "unix://$path"
        done
        ;;
      *:conmon)
        case "$mute" in *" $owner "*) pids="$pids $pid" ;; esac
        case "$people" in *" $owner "*) continue ;; esac
        people="$people$owner " status=1
        if [ "$owner" = 0 ]; then
          ask podman $limit podman
        elif login=$(login "$owner") && [ -n "$login" ]; then
          ask "podman:$login" as "$owner" "$login" $limit podman
        fi
        # What cannot be asked is told by what started its containers.
        [ $status -eq 0 ] || mute="$mute$owner " pids="$pids $pid"
        ;;
    esac
  done
}

# Every container of the default engine, as it is now that its proxies have been seen: one that
# crashes is listed without its ports, or not at all, at one moment or the other.
# shellcheck disable=SC2086
later() {
  has docker || return 0
  for pid in $pids; do
    name=''
    [ ! -r "/proc/$pid/comm" ] || read -r name <"/proc/$pid/comm"
    [ "$name" = docker-proxy ] || continue
    ids=$($limit docker ps --all --quiet --no-trunc </dev/null 2>/dev/null)
    [ -z "$ids" ] || section 'later docker' \
      $limit docker container inspect --format "$shape" $ids </dev/null
    return
  done
}

# Ports that a packet filter takes for Kubernetes before a socket could.
rules() {
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

windows() {
  program=$(command -v "$1") || program=/mnt/c/Windows/System32/$1
  shift
  [ -e "$program" ] || { echo; return 127; }
  ${limit:+timeout 10} "$program" "$@" </dev/null 2>/dev/null | od -An -v -tx1 | tr -d ' \n'
  echo
}

look() {
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
  binds
  guards='' pids='' names='' keepers='' managers=''
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
  elif [ -z "$tool" ] || [ "$said" != 'done' ]; then
    if [ -z "$tool" ]; then
      begin addresses
      { [ ! -e /proc/net/tcp6 ] || echo '::'; cat /proc/net/fib_trie /proc/net/if_inet6; } \
        2>/dev/null | quoted
      end 0
    fi
    listed
    unlisted
    family=$(family)
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
    later
    further
    processes
    units
    supervisors
  fi
  rules
  if [ $system = wsl ]; then
    section netstat windows netstat.exe -ano
    section tasklist windows tasklist.exe /svc /fo csv /nh
    section excluded4tcp windows netsh.exe interface ipv4 show excludedportrange protocol=tcp
    section excluded4udp windows netsh.exe interface ipv4 show excludedportrange protocol=udp
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

engines | look
