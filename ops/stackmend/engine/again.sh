# Have the engine run with a daemon.json that an interrupted script put in place.
# Arguments: what common.sh takes, the file.
root=${root:?}
alone
[ -e "$root/pending" ] || exit 0
answers && remember
adopt restart "$1"
