# What this host has of a Compose project, in one reading. Changes nothing.
# Writes sections (connection/frame.sh), those of images by images.sh. Arguments: the project, its
# directory, its state directory, the bytes that a project's file can have, the files that Compose
# would read by itself.
# shellcheck disable=SC2154 # connection/walk.sh sets them
project=$1 directory=$2 state=$3 largest=$4
shift 4

defaults() {
  for name; do [ ! -e "$directory/$name" ] || printf '%s\n' "$name"; done
}

# What services mount from elsewhere may be links, which are followed: "DIGEST  PATH" or "-  PATH".
elsewhere() {
  cd /
  while IFS= read -r path; do
    sum=-
    if [ -f "$path" ]; then
      # Whoever opens a FIFO waits.
      # shellcheck disable=SC2016 # the inner shell expands
      sum=$(timeout 60 sh -c 'exec sha256sum <"$1"' sha256sum "$path" 2>/dev/null) || sum='?'
    fi
    printf '%s  %s\n' "${sum%% *}" "$path"
  done
}
# Of the record's files: where it holds their digests, those alone that differ, and "=COUNT" of all
# that do not.
recorded() {
  if ! reach "$directory"; then
    printf '!%s\n' "$obstacle"
    sed 's/^/?  /' "$state/files"
  elif [ -f "$state/digests" ]; then
    digests "$real" "$largest" <"$state/files" | awk '
      what == "right" { right[$0] = 1; next }
      $0 in right { same++; next }
      { print }
      END { print "=" same + 0 }' what=right "$state/digests" what='' -
  else
    digests "$real" "$largest" <"$state/files"
  fi
}

# locate PID PATH: where a path of a process's root leads, links followed within it, into $at.
locate() {
  at='' further=${2#/} hops=0
  while [ -n "$further" ]; do
    part=${further%%/*}
    case $further in */*) further=${further#*/} ;; *) further='' ;; esac
    case $part in
    '' | .) ;;
    ..) at=${at%/*} ;;
    *)
      if [ -L "/proc/$1/root$at/$part" ]; then
        hops=$((hops + 1))
        [ $hops -le 20 ] && target=$(readlink -- "/proc/$1/root$at/$part") || return 1
        case $target in /*) at='' ;; esac
        further=$target/$further
      else
        at=$at/$part
      fi
      ;;
    esac
  done
}
kind() {
  if [ -f "$1" ]; then echo file
  elif [ -d "$1" ]; then echo directory
  elif [ -e "$1" ]; then echo other
  else echo missing; fi
}
# Of what containers mount from the host ("PID<tab>SOURCE<tab>DESTINATION"), what is there something
# else than on the host: "PID KIND-ON-THE-HOST KIND-IN-THE-CONTAINER DESTINATION". Files of one
# content are not told of.
replaced() {
  while IFS="$tab" read -r pid source destination; do
    locate "$pid" "$destination" || continue
    held=/proc/$pid/root$at
    # shellcheck disable=SC3013 # dash, busybox and bash have it
    if [ "$source" -ef "$held" ]; then continue; fi
    here=$(kind "$source") there=$(kind "$held")
    [ "$there" != missing ] || continue
    # Only what the engine mounted there: a container may mount over it, or show another root.
    [ "$(awk '{
      gsub(/\\040/, " ", $5); gsub(/\\011/, "\t", $5); print $5
    }' "/proc/$pid/mountinfo" 2>/dev/null | grep -cxF -e "$at")" = 1 ] || continue
    # A file too large to be read in time is another one where its inode is.
    if [ "$here $there" = 'file file' ] &&
      [ "$(stat -L -c %s -- "$source" 2>/dev/null)" = "$(stat -L -c %s -- "$held" 2>/dev/null)" ] &&
      [ -z "$(find -L "$source" -maxdepth 0 -size +131072 2>/dev/null)" ]; then
      ours=$(printf '%s\n' "$source" | elsewhere) theirs=$(printf '%s\n' "$held" | elsewhere)
      case ${ours%% *}${theirs%% *} in *'?'* | "${ours%% *}${ours%% *}") continue ;; esac
    fi
    printf '%s %s %s %s\n' "$pid" "$here" "$there" "$destination"
  done
}
tab=$(printf '\t')

# Other projects of ours that have this directory.
sharing() {
  for record in "${state%/*}"/*/applied.json; do
    [ "$record" != "$state/applied.json" ] && [ -f "$record" ] || continue
    if grep -q -F -e "\"directory\":\"$directory\"" "$record"; then
      record=${record%/*}
      printf '%s\n' "${record##*/}"
    fi
  done
}
# What is on the host without the engine's help. Arguments: the files that Compose would read.
recorded_state() {
  section steering steering
  section defaults defaults "$@"
  begin writable
  if [ -d "$state" ]; then [ -w "$state" ]; else [ -w /var/lib ]; fi
  end $?
  [ -f "$state/applied.json" ] && section applied cat "$state/applied.json"
  section sharing sharing
  # Files that a run sent, and has not proven.
  if [ -d "$state/staged" ] || [ -d "$state/staged.new" ]; then section staged true; fi
  [ -d "$state/stale" ] && section stale ls -A "$state/stale"
  [ -f "$state/layer.yaml" ] && section layer head -c 65537 "$state/layer.yaml"
  [ -f "$state/mends" ] && section mends tail -n 200 "$state/mends"
  [ -f "$state/files" ] && section files recorded
  [ -f "$state/outside" ] && section outside elsewhere <"$state/outside"
}
# Runs a command while what stands before it is still read: calls of the engine wait for no other.
beside() {
  late=$("$@" </dev/null)
  cat
  printf '%s\n' "$late"
}
# The hash of Compose's that containers' images bear: who has it from there was not made by Compose.
# An image may be gone, and is then not told of.
label_images() {
  begin "image labels"
  # shellcheck disable=SC2046
  docker image inspect \
    --format '[{{json .ID}},{{json (index .Config.Labels "com.docker.compose.config-hash")}}]' \
    $(printf '%s\n' "$inspected" | sed -n 's/^ *"Image": "\(sha256:[0-9a-f]\{64\}\)",*$/\1/p' | sort -u) \
    2>/dev/null | quoted
  end 0
}
# What runs, and what it has of the host.
describe_processes() {
  # The state letter of each container's first process, or "gone".
  begin processes
  printf '%s\n' "$inspected" | sed -n 's/^ *"Pid": \([1-9][0-9]*\),*$/\1/p' | while read -r pid; do
    letter=$(sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/$pid/status" 2>/dev/null)
    printf '%s %s\n' "$pid" "${letter:-gone}"
  done | quoted
  end 0
  # A label stands deeper in the text than the keys that are looked for here. What is escaped is
  # left out.
  begin mounts
  printf '%s\n' "$inspected" | awk '
    /^    \{$/ { pid = 0 }
    /^            "Pid": [1-9][0-9]*,?$/ { pid = $2 + 0 }
    /^        "Mounts": \[$/ { list = 1 }
    /^        \]/ { list = 0 }
    list && /^            \{$/ { bind = 0; source = "" }
    list && /^                "Type": "bind",?$/ { bind = 1 }
    list && bind && pid && !/\\/ {
      if (!/^                "(Source|Destination)": "\//) next
      value = $0; sub(/^[^:]*: "/, "", value); sub(/",?$/, "", value)
      if ($1 == "\"Source\":") source = value
      else if (source != "") print pid "\t" source "\t" value
    }' | replaced | quoted
  end 0
  # The DNS servers that each asks, as the engine notes them in its resolv.conf, and the host's own,
  # which it gives those that start now. Whoever is root in a container may write there.
  begin resolvers
  # shellcheck disable=SC2046 # paths without blanks
  timeout -k 1 5 grep -H -m 5 -e '^# ExtServers: \[' -e '^# Overrides: \[' -e '^nameserver' \
    /etc/resolv.conf /run/systemd/resolve/resolv.conf $(printf '%s\n' "$inspected" |
      sed -n 's|^        "ResolvConfPath": "\(/[^" ]*/[0-9a-f]\{64\}/resolv.conf\)",*$|\1|p') 2>/dev/null |
    quoted
  end 0
  engine=''
  read -r engine 2>/dev/null </run/docker.pid
  if [ /etc/docker/daemon.json -nt /run/docker.pid ] ||
    ! tr '\000' '\n' <"/proc/${engine:-none}/cmdline" 2>/dev/null |
      awk '/^--?(dns|config-file)(=|$)/ { other = 1 } END { exit other || !NR }'; then
    # It goes on with what it said before, or takes it from elsewhere.
    section daemon false
  elif [ -f /etc/docker/daemon.json ]; then
    named=''
    while IFS= read -r line; do
      case $line in *'"dns"'*) named=1 ;; esac
    done </etc/docker/daemon.json
    [ -z "$named" ] || section daemon head -c 65536 /etc/docker/daemon.json
  fi
}
# Every container's id, networks, names, service and project as JSON: a label may hold whatever an image gives
# it. Then those that are ours or share a network with ours.
containers() {
  rows=$(docker ps -a --no-trunc --format \
    '[{{json .ID}},{{json .Networks}},{{json .Names}},{{json (.Label "com.docker.compose.service")}},{{json (.Label "com.docker.compose.project")}}]' 2>&1 </dev/null)
  listed=$?
  ids=''
  # No value of a row's can end as a row of the project's does: it would have to hold a bare quote.
  [ $listed -ne 0 ] || ids=$(printf '%s\n' "$rows" | awk -F '","' -v end=",\"$project\"]" '
    length($1) == 66 && $1 ~ /^\["[0-9a-f]*$/ {
      id[++count] = substr($1, 3); nets[count] = $2
      own[count] = substr($0, length($0) - length(end) + 1) == end }
    END {
      for (row = 1; row <= count; row++) if (own[row]) {
        n = split(nets[row], list, ","); for (i = 1; i <= n; i++) ours[list[i]] = 1 }
      delete ours["bridge"]; delete ours["host"]; delete ours["none"]; delete ours[""]
      for (row = 1; row <= count; row++) {
        take = own[row]
        n = split(nets[row], list, ",")
        for (i = 1; i <= n; i++) if (list[i] in ours) take = 1
        if (take) print id[row]
      }
    }')
  if [ -n "$ids" ]; then
    # Word splitting is wanted: ids are hexadecimal.
    # shellcheck disable=SC2086
    inspected=$(docker container inspect $ids 2>&1 </dev/null)
    status=$?
    # One that hangs is waited for once (connection/frame.sh).
    [ $status -ne 124 ] || export STACKMEND_HUNG=1
  fi
  cat
  begin names
  printf '%s\n' "$rows" | quoted
  end $listed
  [ -n "$ids" ] || return 0
  begin containers
  printf '%s\n' "$inspected" | quoted
  end "$status"
  describe_processes | beside label_images
}
known_images() {
  [ -f "$state/images" ] || return 0
  set -f
  # Word splitting is wanted: the list holds references alone.
  # shellcheck disable=SC2046
  images $(cat "$state/images")
}

section clock date +%s
if ! command -v docker >/dev/null 2>&1 || unexecutable docker >/dev/null; then
  recorded_state "$@"
  section engine unexecutable docker
  exit 0
fi
recorded_state "$@" |
  containers |
  beside section networks docker network ls --no-trunc --format \
    '[{{json .Name}},{{json .ID}},{{json (.Label "com.docker.compose.project")}},{{json (.Label "com.docker.compose.network")}}]' |
  beside section volumes docker volume ls --format \
    '[{{json .Name}},{{json (.Label "com.docker.compose.project")}},{{json (.Label "com.docker.compose.volume")}}]' |
  beside known_images
