# Remove what a relay has begun to bring of one blob. Arguments: its directory, the file's name.
rm -f -- "$1/$2" || exit
rmdir -- "$1" 2>/dev/null || :
