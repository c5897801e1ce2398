# Remove one file, and no other of that name. Arguments: the store, the file below it.
# shellcheck disable=SC2154 # walk.sh sets them
plain "$2" && reach "$1" || exit
hold "$real/${2%/*}" || exit 0
rm -f -- "./${2##*/}"
