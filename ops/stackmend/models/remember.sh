# Replace a file that only root reads by standard input, in one step. Argument: the file.
umask 077
private "${1%/*}" || exit
cat >"$1.new" && mv -f -- "$1.new" "$1"
