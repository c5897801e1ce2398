# Sockets that hold ports, for probe.sh: binds that are tried, and what the kernel lists.
# shellcheck shell=sh
# shellcheck disable=SC2034,SC2154 # probe.sh begins with it, and shares its variables
try_binds() {
  tool='' output=''
  python=$(command -v python3 || command -v /usr/libexec/platform-python)
  # On macOS python3 may be a mere offer to install it, with a window.
  [ "$system" != darwin ] || python=
  # shellcheck disable=SC2086
  if [ -n "$python" ] && output=$("$python" -I -S -c "$bind_py" $desired 2>&1); then
    tool=python3
  elif has perl && output=$(perl -e "$bind_pl" -- $desired 2>&1); then
    tool=perl
  fi
  section "bind $tool" printf '%s\n' "$output"
}

# Whether the name of a process breaks a row of ss in two: a part begins like no row.
is_broken() { printf '%s\n' "$1" | grep -Evq '^((tcp|udp) +[A-Z0-9-]+ +[0-9]+ +[0-9]+ |$)'; }

# The rows of ss or of /proc/net. Connections say nothing beside a listener, and may be many.
list_sockets() {
  via=ss rows=''
  # shellcheck disable=SC2086
  if ! has ss || ! rows=$(ss -H -tuanpe $filter 2>/dev/null) || is_broken "$rows"; then
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
          for (port = ends[1] + 0; port <= ends[2] + 0; port++) desired[sprintf("%04X", port)] = 1
        }
      }
      FNR > 1 && substr($2, length($2) - 3) in desired {
        print substr(FILENAME, 11), $4, $2, $3, $8, $10
      }' $files)
  fi
  rows=$(printf '%s\n' "$rows" | awk -v via="$via" '
    { row[NR] = $0; kind[NR] = substr($1, 1, 3)
      at = via == "ss" ? $5 : $3; sub(/^.*:/, "", at); key[NR] = kind[NR] at
      quiet[NR] = via == "ss" ? $2 == "LISTEN" || $2 == "UNCONN" : $2 == "0A" || $2 == "07"
      if (quiet[NR]) listens[key[NR]] = 1 }
    END { for (i = 1; i <= NR; i++)
      if (row[i] != "" && (quiet[i] || (!(key[i] in listens) && ++connections[key[i]] <= 20))) print row[i] }')
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
      /^(tcp|udp)/ { desired["socket:[" $6 "]"] = $6 }
      /^\/proc\// { split($0, path, "/"); pid = path[3] }
      NF == 11 && $10 == "->" && $11 in desired && !printed[$11, pid]++ { print desired[$11], pid }')
    section owners printf '%s\n' "$owners"
  fi
}

# What blocks a bind of TCP and is in no list.
find_unlisted() {
  hidden=$(printf '%s\n' "$rows" "$output" | awk -v via="$via" '
    $1 ~ /^tcp/ { at = via == "ss" ? $5 : $3; sub(/^.*:/, "", at); listed[at] = 1 }
    $1 == "EADDRINUSE" && $2 == "tcp" && !((via == "ss" ? $4 : sprintf("%04X", $4)) in listed) {
      if (!printed[$4]++) print $4 "-" $4 }')
  bound=
  [ -n "$hidden" ] || [ -z "$tool" ] || return 0
  # shellcheck disable=SC2086
  if [ -n "$python" ]; then
    bound=$("$python" -I -S -c "$bound_py" "$hidden" 2>/dev/null)
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
