# shellcheck shell=sh
# Frames what a script writes into named sections; "mark" is known to whoever sends the script.
# What a section holds is quoted, a bar before each line, so that no line of it can be one of the
# frame's, whoever wrote it and whatever it knows. In between begin and end all must go through
# `quoted`; `section NAME COMMAND...` does all three. Names are the script's own words, never what
# the host says.
# shellcheck disable=SC2154
begin() { printf '\n%s begin %s\n' "$mark" "$1"; }
end() { printf '\n.%s\n%s end\n' "$1" "$mark"; }
quoted() { LC_ALL=C sed 's/^/|/'; }
section() {
  begin "$1"
  shift
  { "$@" 2>&1; printf '\n%s\n' $?; } | LC_ALL=C sed 's/^/|/; $s/^|/./'
  printf '%s end\n' "$mark"
}
# An engine that hangs is waited for once. Whoever finds it so says so to the script's own shell, and
# to the one that reads other facts beside it (connection/fetching.py), which gives it less time when
# it is asked again.
trap 'STACKMEND_HUNG=1; export STACKMEND_HUNG' USR1
if command -v docker >/dev/null 2>&1 && command -v timeout >/dev/null 2>&1; then
  docker() {
    if [ -z "${STACKMEND_HUNG:-}" ]; then
      if engine_failed; then
        echo 'Cannot connect to the Docker daemon: docker.service failed' >&2
        return 1
      fi
      # What these run takes the time that it takes.
      case $1 in exec | compose)
        command docker "$@"
        return
        ;;
      esac
      timeout -k 2 "${STACKMEND_ENGINE_LIMIT:-10}" docker "$@"
      docker_status=$?
      case $docker_status in 124 | 137) ;; *) return $docker_status ;; esac
      # shellcheck disable=SC2086 # one word or none
      kill -USR1 $$ ${STACKMEND_READER:-}
    fi
    echo 'the Docker daemon does not answer within 10 s' >&2
    return 124
  }
fi
