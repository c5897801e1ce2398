# Remove the partial download of one blob. Arguments: the store, the blob's name.
# shellcheck disable=SC2154 # walk.sh sets them
plain "$2" && reach "$1" || exit
hold "$real/blobs" || exit 0
rm -f -- "./$2-partial" "./$2-partial-"*
