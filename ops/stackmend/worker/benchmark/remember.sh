# Replace a file of what was measured by standard input, in one step. Behind connection/walk.sh and
# put.sh. Argument: the file.
private "${1%/*}" && put "$1" || exit 73
