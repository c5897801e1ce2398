# What DNS servers answer to this host. Changes nothing.
# Writes sections (connection/frame.sh). Arguments: how many servers, the servers; then for each
# name: the name, and the questions for its IPv4 and its IPv6 addresses.
count=$1
shift
servers=''
while [ "$count" -gt 0 ]; do
  servers="$servers $1"
  count=$((count - 1))
  shift
done
if ! has bash || ! has od || ! has dd || ! has timeout; then
  section missing true
  exit
fi
begin answers
{
  while [ $# -gt 2 ]; do
    for server in $servers; do
      ask "$server $1 4" "$server" "$2" &
      ask "$server $1 6" "$server" "$3" &
    done
    shift 3
  done
  wait
} | quoted
end 0
section whole true
