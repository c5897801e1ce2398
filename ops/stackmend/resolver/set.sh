# Set the DNS servers of a host; the revert is armed before anything changes.
# Arguments: the mark of this change, seconds until the host reverts it, the script that does so, the
# services that take it up, a line each (as reload reads them); then triples: HOW PATH TEXT for a file to be written,
# "keep" PATH '' for one that a service writes, "connection" UUID 'KEY=VALUE' for a setting of
# NetworkManager's.
# shellcheck disable=SC2154,SC2016 # common.sh sets them; the inner shell expands
mark=$1 seconds=$2 revert=$3 services=$4
shift 4

enter
trap leave EXIT
private "$room/kept" || exit
# An ended run may have left an unconfirmed change on the disk: what was before it counts.
if [ ! -s "$room/armed" ]; then
  rm -rf "$room/before" && mkdir "$room/before" && : >"$room/reload" || exit
fi
# A revert has every service take it up that took up any of what it reverts.
printf '%s\n' "$services" >"$room/services" && cat "$room/services" >>"$room/reload" || exit
stamp=$(date -u +%Y%m%dT%H%M%SZ)
number=0
# save PATH: keep it as it is: its content, or the link that it is, its mode, that it is not there.
save() {
  if grep -qsxF -e "$1" "$room"/before/*.path; then return 0; fi
  while [ -e "$room/before/$number.path" ]; do number=$((number + 1)); done
  printf '%s\n' "$1" >"$room/before/$number.path" || return
  if [ -e "$1" ] || [ -L "$1" ]; then
    cp -d -p -- "$1" "$room/before/$number" || return
    cp -d -p -T -- "$1" "$room/kept/$stamp.$number.${1##*/}" || return
  fi
}
save "$file" || fail 74 "cannot keep $file as it is: nothing is changed"
attributes=$(if [ ! -L "$file" ] && has lsattr; then lsattr -d -- "$file" 2>/dev/null | cut -d ' ' -f 1; fi)
case $attributes in *i*) : >"$room/before/immutable" ;; esac
at=1
for argument; do
  case $at in
  1) how=$argument ;;
  2)
    # What a link leads to is written.
    if [ "$how" = put ]; then
      if [ -L "$argument" ]; then argument=$(readlink -f -- "$argument"); fi
      (aim "$argument") || fail 74 "$argument cannot be written: nothing is changed"
    fi
    if [ "$how" != connection ] && [ "$argument" != "$file" ]; then
      save "$argument" || fail 74 "cannot keep $argument as it is: nothing is changed"
    fi
    ;;
  esac
  at=$((at % 3 + 1))
done
sync "$room/before" 2>/dev/null || sync

printf '%s\n' "$revert" >"$room/revert.sh" || exit
if [ -d /run/systemd/system ] && has systemd-run; then
  put "$unit" <<EOF && mkdir -p "${boot%/*}" && ln -sf "$unit" "$boot" &&
# Written by stackmend: reverts a change of DNS servers that no run has confirmed.
[Unit]
After=network.target systemd-resolved.service systemd-networkd.service NetworkManager.service
[Service]
Type=oneshot
ExecStart=/bin/sh $room/revert.sh
EOF
    systemd-run --quiet --on-active="$seconds" --timer-property=AccuracySec=100ms \
    --unit="stackmend-resolver-$mark" /bin/sh "$room/revert.sh" "$mark"
elif has setsid; then
  setsid sh -c 'sleep "$1"; exec sh "$2" "$3"' revert "$seconds" "$room/revert.sh" "$mark" \
    </dev/null >/dev/null 2>&1 &
else
  fail 69 "the host has neither systemd-run nor setsid: nothing could revert the change"
fi || fail 71 "cannot arm the revert of the change"
printf '%s\n' "$mark" >"$room/armed.new" && mv -f -- "$room/armed.new" "$room/armed" || exit
# A host that loses its power now has to find all of it when it starts.
sync
back() {
  leave
  trap - EXIT
  if sh "$room/revert.sh" "$mark"; then fail "$1" "$2: what was there before is back"; fi
  fail "$1" "$2; reverting it ended with an error: see $file and the services of the resolver there"
}
if [ -e "$room/before/immutable" ]; then chattr -i -- "$file" || back 74 "cannot make $file mutable"; fi
while [ $# -gt 2 ]; do
  case $1 in
  keep) ;;
  connection)
    timeout 30 nmcli connection modify "$2" "${3%%=*}" "${3#*=}" </dev/null ||
      back 74 "NetworkManager does not take ${3%%=*}"
    ;;
  *) printf %s "$3" | write "$2" "$1" || back 74 "cannot write $2" ;;
  esac
  shift 3
done
if [ -e "$room/before/immutable" ]; then chattr +i -- "$file"; fi
reload || back 71 "the change is not taken up"
