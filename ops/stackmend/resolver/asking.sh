# What the scripts begin with that ask DNS servers.
# shellcheck disable=SC2154 # query.bash is laid before it, as $query_bash
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
LC_ALL=C
export PATH LC_ALL
cd /
has() { command -v "$1" >/dev/null 2>&1; }
# ask LABEL SERVER QUESTION: print LABEL and the answer, or nothing. A packet may be lost: twice; what
# comes only then is "late".
ask() {
  late=''
  for seconds in 1 2; do
    answer=$(bash -c "$query_bash" query "$2" "$3" "$seconds" 2>/dev/null)
    if [ -n "$answer" ]; then
      printf '%s %s%s\n' "$1" "$answer" "$late"
      return
    fi
    late=' late'
  done
}
# resolve_name NAME: print it with the addresses that the host's own resolver has for it, if it has any.
resolve_name() {
  printf '%s %s\n' "$1" "$(timeout 8 getent ahosts "$1" 2>/dev/null | awk '{ print $1 }' | sort -u | head -n 16 | tr '\n' ' ')"
}
