# shellcheck shell=sh
# unexecutable PROGRAM: where PATH has it, if nobody may execute it; only some shells find it then.
unexecutable() (
  IFS=: found=''
  for place in $PATH; do
    [ -f "$place/$1" ] || continue
    [ ! -x "$place/$1" ] || exit 1
    found=${found:-$place/$1}
  done
  [ -n "$found" ] && printf '%s\n' "$found"
)
# Behind a socket that systemd holds open, an engine that fails to start keeps its clients waiting. One
# that was ended by a signal is started again in a moment, and worth waiting for.
engine_failed() {
  # The file has no end of line, for which `read` fails; one that was left may name anything.
  engine_pid='' engine_name=''
  read -r engine_pid 2>/dev/null </run/docker.pid
  read -r engine_name 2>/dev/null <"/proc/${engine_pid:-none}/comm"
  [ "$engine_name" != dockerd ] || return 1
  [ -d /run/systemd/system ] || return 1
  timeout -k 2 5 systemctl is-active -q docker.socket 2>/dev/null || return 1
  # In the order in which systemd prints them.
  # shellcheck disable=SC2046 # words
  set -- $(timeout -k 2 5 systemctl show -p Result,SubState docker.service 2>/dev/null)
  case $* in
    *SubState=failed* | *Result=exit-code*SubState=auto-restart*) ;;
    *) return 1 ;;
  esac
}
