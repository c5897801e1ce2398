# Remove one file. Argument: the file.
rm -f -- "$1"
