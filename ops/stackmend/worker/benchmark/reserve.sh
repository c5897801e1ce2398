# Whether files of what is measured can be written: as many bytes as they may come to are written
# beside the first, and taken away again. Behind connection/walk.sh. Arguments: bytes, the files.
bytes=$1
shift
umask 077
private "${1%/*}" || exit 73
for file; do
  if [ -e "$file" ] && [ ! -f "$file" ]; then
    echo "$file is no file: move it elsewhere" >&2
    exit 73
  fi
done
# What is left of it by a run that is killed is written over by whoever writes the file.
head -c "$bytes" /dev/zero >"$1.new"
status=$?
rm -f -- "$1.new"
exit $status
