#!/bin/sh
# Windows as a WSL2 distribution sees it through interop: netstat.exe, tasklist.exe, netsh.exe and
# taskkill.exe answer from the files in /srv/windows, in the bytes that lie there, and write down in
# /srv/windows/log what they were asked. No Windows: see tests/facts/ports_windows.
home=/srv/windows
name=${0##*/}
# Interop hands the caller's stdin on to the Windows program, which takes it.
cat > /dev/null
printf '%s %s\n' "$name" "$*" >> $home/log
LC_ALL=C
export LC_ALL

usage() {
  printf 'ERROR: Invalid argument/option - %s.\r\nType "%s /?" for usage.\r\n' "$1" "$name" >&2
  exit 1
}

# "PID CONTAINER" a line: what Docker Desktop holds for a container, as long as that runs.
listed() {
  while read -r pid container; do
    [ "$(docker container inspect -f '{{.State.Running}}' "$container" 2>&1)" = true ] ||
      sed -i "/ $pid\r*$/d" $home/netstat
  done < $home/follows
  cat $home/netstat
}

# "PID IMAGE" a line: a number that another program has by the time that it is to be ended, told by
# who asks: the script that ends one names taskkill.exe.
running() {
  if grep -aq taskkill.exe /proc/$PPID/cmdline; then
    while read -r pid image; do
      sed -i "s/^\"[^\"]*\",\"$pid\",/\"$image\",\"$pid\",/" $home/tasklist
    done < $home/reused
  fi
  cat $home/tasklist
}

case "$name $*" in
  'netstat.exe -ano') listed; exit ;;
  'tasklist.exe /svc /fo csv /nh') running; exit ;;
  'netsh.exe interface ipv4 show excludedportrange protocol=tcp') exec cat $home/excluded4tcp ;;
  'netsh.exe interface ipv4 show excludedportrange protocol=udp') exec cat $home/excluded4udp ;;
  'taskkill.exe /PID '*' /F') ;;
  *) usage "'$1'" ;;
esac

pid=$2
case "$pid" in '' | *[!0-9]*) usage "'$pid'" ;; esac
if ! grep -q "^\"[^,]*\",\"$pid\"," $home/tasklist; then
  printf 'ERROR: The process "%s" not found.\r\n' "$pid" >&2
  exit 128
fi
# "PID STATUS" a line: the kernel, and what an administrator has started.
if refused=$(grep "^$pid " $home/refuses); then
  printf 'ERROR: The process with PID %s could not be terminated.\r\n' "$pid" >&2
  printf 'Reason: Access is denied.\r\n' >&2
  exit "${refused#* }"
fi
# "PID NEXT" a line: a service that its manager starts again at once.
if next=$(grep "^$pid " $home/respawns); then
  sed -i "s/\",\"$pid\",\"/\",\"${next#* }\",\"/" $home/tasklist
  sed -i "s/ $pid\(\r*\)$/ ${next#* }\1/" $home/netstat
else
  sed -i "/\",\"$pid\",\"/d" $home/tasklist
  sed -i "/ $pid\r*$/d" $home/netstat
fi
printf 'SUCCESS: The process with PID %s has been terminated.\r\n' "$pid"
