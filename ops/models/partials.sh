# Remove what the server has begun to fetch of one blob. Argument: the blob's place.
rm -f -- "$1-partial" "$1-partial-"*
