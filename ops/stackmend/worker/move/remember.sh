# Write where a move stands, by standard input, in one step. Argument: the state directory.
umask 077
private "$1" || exit
cat >"$1/move.json.new" || exit
sync "$1/move.json.new" 2>/dev/null
mv -f -- "$1/move.json.new" "$1/move.json" || exit
sync "$1" 2>/dev/null || sync
