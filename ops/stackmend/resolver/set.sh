# Set the DNS servers of a host; the revert is armed before anything changes.
# Arguments: the mark of this change, seconds until the host reverts it, the script that does so, the
# services that take it up, a line each (as reload reads them); then triples: HOW PATH TEXT for a file to be written,
# "keep" PATH '' for one that a service writes, "connection" UUID 'KEY=VALUE' for a setting of
# NetworkManager's.
# shellcheck disable=SC2154,SC2016 # common.sh sets them; the inner shell expands
mark=$1 seconds=$2 revert=$3 services=$4
shift 4

enter
# Unless a revert is armed, what is left of this run would be taken for what was before another.
end() {
  if [ ! -s "$room/armed" ]; then
    rm -rf -- "$room/before" "$room/armed.new" "$room/revert.sh" "$room/reload" "$room/services"
    disarm
  fi 2>/dev/null
  leave
}
trap end EXIT
# stop STATUS PATH WHAT: end before anything is changed; PATH is where it does not go on.
stop() {
  at=$2
  case $at in /*) ;; *) at=/ ;; esac
  until [ -e "${at:=/}" ]; do at=${at%/*}; done
  why="see what keeps root from writing there (df -h $at, findmnt -T $at)"
  if df -P -k -- "$at" 2>/dev/null | awk 'NR > 1 { free = $4 } END { exit !(NR && free == 0) }'; then
    why="$at is full: see df -h $at and make room there"
  elif df -P -i -- "$at" 2>/dev/null | awk 'NR > 1 { free = $4 } END { exit !(NR && free == 0 && $2 > 0) }'; then
    why="$at has no inode left: see df -i $at and make room there"
  fi
  fail "$1" "$3: nothing is changed; $why"
}
[ -s "$busy/pid" ] || stop 74 "$busy" "cannot note that a change is under way"
private "$room/kept" || stop 73 "$room" "cannot keep what was there before"
# An ended run may have left an unconfirmed change on the disk: what was before it counts.
if [ ! -s "$room/armed" ]; then
  { rm -rf "$room/before" && mkdir "$room/before" && : >"$room/reload"; } ||
    stop 74 "$room" "cannot keep what was there before"
fi
# A revert has every service take it up that took up any of what it reverts.
{ printf '%s\n' "$services" >"$room/services" && cat "$room/services" >>"$room/reload"; } ||
  stop 74 "$room" "cannot note what is to be reverted"
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
save "$file" || stop 74 "$room" "cannot keep $file as it is"
locks=$(if has lsattr; then lsattr -d -- "$(readlink -f -- "$file")" 2>/dev/null | cut -d ' ' -f 1 | tr -cd ia; fi)
if [ -n "$locks" ]; then
  printf '%s\n' "$locks" >"$room/before/immutable" || stop 74 "$room" "cannot keep $file as it is"
fi
at=1
for argument; do
  case $at in
  1) how=$argument ;;
  2)
    # What a link leads to is written.
    if [ "$how" = put ]; then
      target=$(aim "$argument" && printf '%s\n' "$parent/$name") ||
        stop 74 "$argument" "$argument cannot be written"
      argument=$target
    fi
    if [ "$how" != connection ] && [ "$argument" != "$file" ]; then
      save "$argument" || stop 74 "$room" "cannot keep $argument as it is"
    fi
    ;;
  esac
  at=$((at % 3 + 1))
done
sync "$room/before" 2>/dev/null || sync

printf '%s\n' "$revert" >"$room/revert.sh" || stop 74 "$room" "cannot keep what reverts the change"
if [ -d /run/systemd/system ] && has systemd-run; then
  { put "$unit" && mkdir -p "${boot%/*}" && ln -sf "$unit" "$boot"; } <<EOF ||
# Written by stackmend: reverts a change of DNS servers that no run has confirmed.
[Unit]
After=network.target systemd-resolved.service systemd-networkd.service NetworkManager.service
[Service]
Type=oneshot
ExecStart=/bin/sh $room/revert.sh
EOF
    stop 71 "${unit%/*}" "cannot arm the revert of the change"
  systemd-run --quiet --on-active="$seconds" --timer-property=AccuracySec=100ms \
    --unit="stackmend-resolver-$mark" /bin/sh "$room/revert.sh" "$mark" ||
    stop 71 /run/systemd "cannot arm the revert of the change"
elif has setsid; then
  setsid sh -c 'sleep "$1"; exec sh "$2" "$3"' revert "$seconds" "$room/revert.sh" "$mark" \
    </dev/null >/dev/null 2>&1 &
else
  fail 69 "the host has neither systemd-run nor setsid: nothing could revert the change"
fi
{ printf '%s\n' "$mark" >"$room/armed.new" && mv -f -- "$room/armed.new" "$room/armed"; } ||
  stop 74 "$room" "cannot arm the revert of the change"
# A host that loses its power now has to find all of it when it starts.
sync
back() {
  leave
  trap - EXIT
  if sh "$room/revert.sh" "$mark"; then fail "$1" "$2: what was there before is back"; fi
  fail "$1" "$2; reverting it ended with an error: see $file and the services of the resolver there"
}
locked=$(readlink -f -- "$file")
if [ -n "$locks" ]; then chattr "-$locks" -- "$locked" || back 74 "cannot make $file mutable"; fi
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
if [ -n "$locks" ]; then chattr "+$locks" -- "$locked"; fi
reload || back 71 "the change is not taken up"
