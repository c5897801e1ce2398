# Write standard input to a file that only root reads, whole or not at all. Argument: the file.
umask 077
private "${1%/*}" || exit
cat >"$1.new" && mv -f -- "$1.new" "$1"
