# Write standard input into a file behind its first bytes; what stood behind them is cut off.
# Arguments: the directory, the file's name, how many bytes stay.
umask 077
mkdir -p -- "$1" || exit
dd if=/dev/null of="$1/$2" bs=1 seek="$3" 2>/dev/null || exit
cat >>"$1/$2"
