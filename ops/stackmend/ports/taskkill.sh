# End a process on the Windows side of a WSL2 machine, if it is still the program that was observed.
# Arguments: the root of the records, the record, the ports, its number, its image.
claim windows "$3"
keep pid "$4"
keep image "$5"
windows() {
  name=$1
  shift
  for path in "$(command -v "$name")" /mnt/c/Windows/System32/"$name" /mnt/c/WINDOWS/system32/"$name"; do
    if [ -n "$path" ] && [ -x "$path" ]; then
      # A Windows program would read the rest of this script.
      "$path" "$@" </dev/null
      return
    fi
  done
  echo "$name is not to be found" >&2
  return 127
}
listed() { windows tasklist.exe /svc /fo csv /nh | tr -d '\000\r'; }
rows=$(listed)
[ -n "$rows" ] || drop 71 "Windows does not say what runs; nothing was ended"
case $5 in
# In the console's code page it is written otherwise than here.
*[!\ -~]*) row=",\"$4\"," ;;
*) row="\"$5\",\"$4\"," ;;
esac
case $rows in
*"$row"*) ;;
*\",\"$4\",*) drop 75 "Windows process $4 is another one by now; nothing was ended" ;;
*) drop 76 "Windows process $4 is gone" ;;
esac
windows taskkill.exe /PID "$4" /F >&2
ended=$?
if [ "$ended" = 0 ]; then
  finished
  exit 0
fi
# 128 means that it is gone as well as that access was denied.
case $(listed) in
'' | *\",\"$4\",*) drop 74 "taskkill.exe could not end Windows process $4" ;;
*) drop 76 "Windows process $4 is gone" ;;
esac
