# Revert a change of servers, unless a run has confirmed it. Arguments: its mark; none for whichever
# it is.
# shellcheck disable=SC2034,SC2154 # common.sh sets and reads them
# Its timer is spent: it waits for as long as it takes.
timeout=100000
enter
trap leave EXIT
mark=${1:-$(cat "$room/armed" 2>/dev/null)}
if [ -z "$mark" ] || [ "$(cat "$room/armed" 2>/dev/null)" != "$mark" ]; then exit 0; fi
status=0
locks=$(cat "$room/before/immutable" 2>/dev/null)
if [ -n "$locks" ]; then chattr "-$locks" -- "$(readlink -f -- "$file")" 2>/dev/null; fi
for record in "$room"/before/*.path; do
  read -r path <"$record" || continue
  saved=${record%.path}
  if [ -L "$saved" ]; then
    # The link itself, and not what it leads to now.
    if [ "$(readlink -- "$path")" != "$(readlink -- "$saved")" ]; then
      (
        aim "${path%/*}/stackmend.${path##*/}" && rm -f -- "./$name" &&
          cp -d -p -T -- "$saved" "./$name" && mv -f -T -- "./$name" "./${path##*/}"
      ) || status=$?
    fi
  elif [ ! -e "$saved" ]; then
    if [ -e "$path" ] || [ -L "$path" ]; then remove "$path" || status=$?; fi
  elif [ "$path" = "$file" ] && mounted; then
    cmp -s -- "$saved" "$path" || cat -- "$saved" >"$path" || status=$?
  elif [ -L "$path" ]; then
    write "$path" replace <"$saved" && put "$path" "$saved" || status=$?
  elif ! cmp -s -- "$saved" "$path"; then
    put "$path" "$saved" || status=$?
  fi
done
# The change is reverted once the files are back: services that are away now read them when they start.
taken=0
for _ in 1 2 3 4; do
  reload revert && taken=0 && break
  taken=$?
  sleep 2
done
if [ -n "$locks" ]; then chattr "+$locks" -- "$(readlink -f -- "$file")"; fi
# What services wrote themselves while they took it up counts from here on.
if [ $status = 0 ]; then
  rm -rf "$room/before" "$room/armed"
  disarm
fi
[ $status != 0 ] || exit $taken
exit $status
