# Have the engine run with a daemon.json that an earlier script put in place and did not see taken up.
# Arguments: what common.sh takes, the file.
root=${root:?}
alone
[ -e "$root/pending" ] || exit 0
answers && remember
adopt restart "$1"
