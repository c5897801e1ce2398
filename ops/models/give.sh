# Write a file to standard output without its first bytes.
# Arguments: the file, how many bytes are left out.
tail -c "+$(($2 + 1))" -- "$1"
