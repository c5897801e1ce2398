# Install packages: fetch all before anything stops, remove only what is named, and start the
# containers that ran. Arguments: what common.sh takes, the package manager, the suite
# (or address) that they are taken from, "snap" where that is to be switched off, "engine" where the
# packages are an engine, the daemon.json that is on standard input and that a new engine is to start
# with (or nothing), the packages, "--", those that make room.
manager=$1 target=$2 snap=$3 engine=$4 config=$5
shift 5
root=${root:?}
alone
[ -z "$config" ] || cat >"$root/daemon.json" || exit 73
trap 'rm -f "$root/lists.bin" "$root/daemon.json"' EXIT
log=$root/packages.log
install='' removing='' room=
for word; do
  if [ "$word" = -- ]; then room=1
  elif [ -n "$room" ]; then removing="$removing $word"
  else install="$install $word"
  fi
done
placed=''
failed() {
  [ -z "$placed" ] || rm -f -- "$config" "$root/pending"
  grep -e '^E:' -e '^dpkg: error' -e '^Error' -e '^ERROR' "$log" | tail -n 5 >&2
  [ -s "$log" ] && tail -n 5 "$log" >&2
  exit "$1"
}

# Names and versions hold no blanks.
# shellcheck disable=SC2086
case $manager in
  apt)
    export DEBIAN_FRONTEND=noninteractive LC_ALL=C NEEDRESTART_SUSPEND=1
    minus='' lists=$(kept_lists)
    for name in $removing; do minus="$minus $name-"; done
    apt() {
      # shellcheck disable=SC2086 # two words, or none
      apt-get -y -q $lists -o DPkg::Lock::Timeout=600 -o Dpkg::Options::=--force-confdef \
        -o Dpkg::Options::=--force-confold --no-install-recommends ${target:+-t "$target"} "$@" 9>&-
    }
    # What a killed apt-get left.
    if [ -n "$(dpkg --audit 2>/dev/null)" ]; then
      tries=0
      until dpkg --configure -a >"$log" 2>&1; do
        tries=$((tries + 1))
        if [ "$tries" -ge 120 ] || ! grep -q 'lock' "$log"; then break; fi
        sleep 5
      done
    fi
    # apt fetches all before it touches anything, and removes nothing unless it is told to.
    if [ -z "$removing" ]; then minus=--no-remove
    else
      apt -s install $install $minus >"$log" 2>&1 || failed 69
      others=$(sed -n 's/^Remv \([^ ]*\).*/\1/p' "$log" | sed 's/:.*//' | sort -u |
        while read -r name; do
          case " $removing " in *" $name "*) ;; *) printf '%s ' "$name" ;; esac
        done)
      if [ -n "$others" ]; then
        echo "it would remove $others" >&2
        exit 67
      fi
    fi
    [ "$snap" != snap ] || apt --download-only install $install $minus >"$log" 2>&1 || failed 69
    ;;
  dnf)
    dnf -q -y --downloadonly ${removing:+--allowerasing} install $install >"$log" 2>&1 || failed 69
    ;;
esac
[ "$engine" != engine ] || remember
if [ "$snap" = snap ]; then snap disable docker >"$log" 2>&1 || failed 70; fi
# What podman-docker puts in the engine's place.
case $removing in
  *podman-docker*) [ ! -L /run/docker.sock ] || rm -f /run/docker.sock ;;
esac
# The package starts the engine: with its settings, once is enough. dockerd, which could check them,
# is not here yet; "pending" says that no engine was seen to run with them.
if [ -n "$config" ] && [ -s "$root/daemon.json" ] && [ ! -e "$config" ] && [ ! -L "$config" ]; then
  placed=1
  : >"$root/pending" || exit 73
  sync "$root" 2>/dev/null || sync
  put "$config" <"$root/daemon.json" || { rm -f -- "$root/pending"; exit 73; }
fi
# shellcheck disable=SC2086
case $manager in
  apt) apt install $install $minus >"$log" 2>&1 || failed 70 ;;
  dnf)
    # rpm itself removes nothing but what is named, and nothing that others need.
    [ -z "$removing" ] || rpm -e $removing >"$log" 2>&1 || failed 70
    dnf -q -y install $install >"$log" 2>&1 || failed 70
    ;;
  apk) apk add -q ${target:+--repository "$target"} $install >"$log" 2>&1 || failed 70 ;;
esac
[ "$engine" = engine ] || exit 0
enabled
answers || service start >/dev/null 2>&1
if comes_up 90; then
  # It runs with the file.
  [ -z "$config" ] || { proven "$config"; rm -f "$root/pending"; }
else
  without "$config" || { why >&2; exit 71; }
fi
bring_back || exit 74
