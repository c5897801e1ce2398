# Remove the partial relay of one blob. Arguments: the store, the file's name.
# shellcheck disable=SC2154 # walk.sh sets them
plain "$2" && reach "$1" || exit
hold "$real/.stackmend" || exit 0
rm -f -- "./$2" || exit
if hold "$real"; then rmdir -- ./.stackmend 2>/dev/null || :; fi
