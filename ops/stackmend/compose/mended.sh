# Remember an attempt, by the host's own clock, so that attempts can be counted.
# Arguments: the state directory, what was done, and to what.
umask 077
private "$1" || exit 1
printf '%s %s\n' "$(date +%s)" "$2" >>"$1/mends"
