# adopt HOW CONFIG: have the engine run with what is in the file, by "reload", "restart", or "either";
# where it does not, with the file that $root/pending names (with none, where it names none).
root=${root:?}
reloaded() {
  since=$(date +%s)
  service reload >/dev/null 2>&1 || return 1
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    sleep 1
    # The event that follows once it has read the file.
    limited docker events --filter type=daemon --filter event=reload \
      --since "$since" --until "$(date +%s)" 2>/dev/null | grep -q . && return 0
  done
  return 1
}

restarted() { service restart >/dev/null 2>&1 && comes_up 90; }

adopt() {
  took=
  [ "$1" = restart ] || ! reloaded || took=1
  [ -n "$took" ] || [ "$1" = reload ] || ! restarted || took=1
  # The change is over only once its containers run: another run waits for them.
  if [ -n "$took" ]; then
    bring_back && back=0 || back=74
    proven "$2"
    rm -f "$root/pending"
    exit "$back"
  fi
  reason=$(why 3)
  old=$(cat "$root/pending")
  if [ -n "$old" ]; then put "$2" "$old"
  else remove "$2"
  fi
  service restart >/dev/null 2>&1
  if comes_up 90; then
    bring_back
    rm -f "$root/pending"
    printf '%s\n' "$reason" >&2
    exit 70
  fi
  rm -f "$root/pending"
  printf '%s\n' "$reason" >&2
  why 3 >&2
  exit 71
}
