# Processes that hold ports, for probe.sh, with their ancestors and our own shell.
# shellcheck shell=sh
# shellcheck disable=SC2034,SC2154 # probe.sh begins with it, and shares its variables
# Every holder and our own shell with all their ancestors: "guard PID", "pid PID", and of those that
# hold something "unit NAME" and "manager UID NAME", "supervisor PID", "listener MANAGER".
find_family() {
  {
    printf '%s\n' "$rows" | awk '{
      while (match($0, /pid=[0-9]+,fd=/)) {
        print substr($0, RSTART + 4, RLENGTH - 8); $0 = substr($0, RSTART + RLENGTH) } }'
    printf '%s\n%s\n' "$owners" "$bound" | awk 'NF > 1 { print $2 }'
  } | awk -v own="$$" '
    function content(file,  text, line) {
      text = ""
      while ((getline line < file) > 0) text = text line "\n"
      close(file)
      return text
    }
    function unit(pid,  text, line, part, name, n, i, m, path, user) {
      n = split(content("/proc/" pid "/cgroup"), line, "\n")
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
      if (name != "") once((user == "" ? "unit " : "manager " user " ") name)
      return user
    }
    function once(line) { if (!printed[line]++) print line }
    function comm(text) {
      sub(/\)[^)]*$/, "", text)
      sub(/^[0-9]+ \(/, "", text)
      return text
    }
    function walk(pid, word,  text, field) {
      while (pid > 0 && !(pid in known)) {
        text = content("/proc/" pid "/stat")
        if (text == "") return
        known[pid] = 1
        once(word " " pid)
        if (comm(text) == "supervisord") once("supervisor " pid)
        sub(/^.*\) /, "", text)
        split(text, field, " ")
        pid = field[2]
      }
    }
    function holds(pid,  user) {
      walk(pid, "pid")
      user = unit(pid)
      if (pid == 1) once("listener system")
      else if (user != "" && comm(content("/proc/" pid "/stat")) == "systemd") once("listener " user)
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
read_processes() {
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
  links=$(ls -dln $paths 2>/dev/null) name=links
  # Where a link leads to is what somebody called it: one with lines of its own would tell of others.
  # With q each has one line, and what cannot be printed is a question mark.
  # shellcheck disable=SC2086
  printable=$(ls -dlnq $paths 2>/dev/null)
  [ -z "$printable" ] ||
    [ "$(printf '%s\n' "$links" | grep -c '')" = "$(printf '%s\n' "$printable" | grep -c '')" ] ||
    links=$printable name='links masked'
  section "$name" printf '%s\n' "$links"
  users=$(printf '%s\n' "$links" | awk '/^d/ && !printed[$3]++ { print $3 }')
  begin users
  # shellcheck disable=SC2086
  if has getent; then
    $limit getent passwd $users </dev/null
  else
    cat /etc/passwd
  fi | awk -F : '{ print $3, $1 }' | quoted
  end 0
}
