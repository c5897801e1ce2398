# What every script of this room that changes something begins with. A record is a directory that is
# readable by root alone; it is there before anything is ended.
# Exit statuses: 71 it cannot be recorded, 73 the record's name is taken, 74 the stop failed,
# 75 it is something else by now and was left alone, 76 it was gone already, 77 it would not end,
# 78 ending it would lose a volume.
# Arguments that all of them have first: the root of the records, the record.
root=$1 dir=$1/$2 manager=system engine=docker
fail() {
  status=$1
  shift
  printf '%s\n' "$*" >&2
  exit "$status"
}
claim() {
  umask 077
  private "$root" || exit 71
  if ! mkdir -- "$dir" 2>/dev/null; then
    [ -d "$dir" ] && fail 73 "$dir is there already"
    fail 71 "$dir cannot be made"
  fi
  keep kind "$1"
  keep ports "$2"
  prune
}
# The last 20 records stay, and beyond that those of the last 30 days in up to 1 MiB; the one that is
# being made stays whatever the clock says.
prune() {
  count=0 size=0
  for path in "$root"/[0-9]*Z-[0-9]*; do printf '%s\n' "${path##*/}"; done |
    sed -n '/^[0-9]\{8\}T[0-9]\{6\}Z-[0-9][0-9]*$/p' | sort -t - -k 1,1r -k 2,2nr |
    while IFS= read -r name; do
      path=$root/$name
      if [ ! -d "$path" ] || [ -L "$path" ] || [ "$path" = "$dir" ]; then continue; fi
      count=$((count + 1))
      [ $count -ge 20 ] || continue
      used=$(du -sk "$path" | cut -f 1)
      size=$((size + ${used:-0}))
      old=$(find "$path" -prune -mtime +30)
      if [ $size -gt 1024 ] || [ -n "$old" ]; then rm -rf -- "$path"; fi
    done 2>/dev/null
}
keep() { printf '%s' "$2" >"$dir/$1" || fail 71 "$dir/$1 cannot be written"; }
drop() {
  rm -rf -- "$dir"
  status=$1
  shift
  fail "$status" "$@"
}
finished() { : >"$dir/done"; }
as_user() {
  user=$1
  shift
  cd / || return
  uid=$(id -u -- "$user") || return
  home=$(awk -F: -v user="$user" '$1 == user { print $6 }' /etc/passwd)
  [ -n "$home" ] || home=$(getent passwd "$user" | cut -d: -f6)
  set -- env "HOME=$home" "USER=$user" "XDG_RUNTIME_DIR=/run/user/$uid" \
    "DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/$uid/bus" "$@"
  if [ "$(id -u)" = "$uid" ]; then
    "$@"
  elif command -v runuser >/dev/null; then
    runuser -u "$user" -- "$@"
  elif command -v sudo >/dev/null; then
    sudo -n -u "$user" -- "$@"
  else
    echo "neither runuser nor sudo is there to act as $user" >&2
    return 1
  fi
}
units() {
  if [ "$manager" = system ]; then
    systemctl "$@"
  else
    as_user "$manager" systemctl --user "$@"
  fi
}
property() {
  value=$(units show -p "$1" -- "$2") || return
  printf '%s' "${value#*=}"
}
engine() {
  case $engine in
  docker) docker "$@" ;;
  docker:*) docker -H "${engine#docker:}" "$@" ;;
  podman) podman "$@" ;;
  podman:*) as_user "${engine#podman:}" podman "$@" ;;
  *) fail 71 "$engine is no engine that is known" ;;
  esac
}
# The words of a file in which each ends with a NUL, quoted for the shell byte by byte.
words() {
  od -A n -v -t u1 "$1" | LC_ALL=C awk '
    { for (i = 1; i <= NF; i++) {
        if (!open) { printf "\047"; open = 1 }
        if ($i == 0) { printf "\047 "; open = 0 }
        else if ($i == 39) printf "\047\\\047\047"
        else printf "%c", $i + 0
    } }
    END { if (open) printf "\047" }'
}
