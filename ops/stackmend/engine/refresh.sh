# Read the lists of packages anew and print the versions of some: "candidate NAME VERSION" and
# "version NAME VERSION", the newest first, and "unread REASON" for lists that cannot be read.
# Arguments: what common.sh takes, the package manager, the suite (or address) that they are taken
# from, the packages.
manager=$1 target=$2
shift 2
root=${root:?}
alone
log=$root/packages.log
case $manager in
  apt)
    export LC_ALL=C
    lists=$(kept_lists)
    # shellcheck disable=SC2086 # two words, or none
    update_lists() { apt-get update -q $lists -o APT::Update::Error-Mode=any >"$log" 2>&1; }
    # Another apt-get of the host may hold the lists: its own unattended upgrade, on a new machine.
    tries=0
    until update_lists; do
      tries=$((tries + 1))
      if [ "$tries" -ge 120 ] || ! grep -q 'Could not get lock' "$log"; then
        # A source that is not ours may be broken: what counts is what there is then.
        grep '^[EW]:' "$log" | tail -n 3 | sed 's/^..[[:space:]]*/unread /'
        break
      fi
      sleep 5
    done
    # shellcheck disable=SC2086 # no word where there is no suite
    apt-cache $lists ${target:+-t "$target"} policy "$@" | awk '
      /^[^ ]/ { name = $1; sub(/:$/, "", name) }
      $1 == "Candidate:" && $2 != "(none)" { print "candidate", name, $2 }
      # The table of versions, the installed one marked: those that something offers are followed by
      # where, with a priority of its own.
      /^ \*\*\* / || /^     [^ ]/ { version = $1 == "***" ? $2 : $1 }
      /^       +[-0-9]+ / && $2 !~ /dpkg\/status$/ && !seen[name " " version]++ {
        print "version", name, version }'
    ;;
  dnf)
    dnf -q -y makecache >"$log" 2>&1 || { tail -n 3 "$log" >&2; exit 69; }
    dnf -q repoquery --available --qf '%{name} %{epoch}:%{version}-%{release}\n' "$@" 2>>"$log" |
      sed '/^$/d' | sort -u | sort -r -V | awk '
        !seen[$1]++ { print "candidate", $1, $2 }
        { print "version", $1, $2 }'
    ;;
  apk)
    apk update -q ${target:+--repository "$target"} >"$log" 2>&1 || { tail -n 3 "$log" >&2; exit 69; }
    apk policy ${target:+--repository "$target"} "$@" | awk '
      /^[^ ].* policy:$/ { name = $1 }
      /^  [^ ].*:$/ { version = $1; sub(/:$/, "", version)
        if (!seen[name]++) print "candidate", name, version
        print "version", name, version }'
    ;;
esac
