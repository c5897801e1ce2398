# Say whether a change of daemon.json can be taken back. Behind walk.sh. Arguments: the directory of
# our state, the file, the stamp of the change.
# Exit statuses: 0 it holds what it held before, 3 it is to be put back, 66 nothing is known of such a
# change, 75 it was changed since.
root=$1 config=$2 old=$1/kept/daemon.json.$3
guarded "$root/kept" && [ -f "$old.set" ] && [ ! -L "$old.set" ] || exit 66
if [ -e "$old" ]; then
  if cmp -s -- "$config" "$old"; then exit 0; fi
elif [ ! -e "$config" ]; then
  exit 0
fi
cmp -s -- "$config" "$old.set" || exit 75
exit 3
