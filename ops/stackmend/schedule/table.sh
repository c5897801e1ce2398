# A user's own table of cron's. Before set.sh and remove.sh.
# read_table USER: that table; one that does not exist is empty, and one that cannot be read is none.
read_table() {
  if refused=$(crontab -l -u "$1" 2>&1 >/dev/null); then
    crontab -l -u "$1"
    return
  fi
  case $refused in
  *'no crontab for'* | *"can't open '$1'"*) return 0 ;;
  esac
  printf '%s\n' "$refused" >&2
  return 1
}

# without_section NAME: standard input without what stands between its two comments; a comment that has
# no other is left, and what stands behind it.
without_section() {
  awk -v first="# begin $1" -v last="# end $1" '
    function give(i) { for (i = 1; i <= held; i++) print line[i]; held = 0 }
    $0 == first { give(); line[held = 1] = $0; next }
    held && $0 == last { held = 0; next }
    held { line[++held] = $0; next }
    { print }
    END { give() }'
}
