# Ask a DNS server over UDP, and over TCP where it says that its answer is cut short. Arguments: the
# server, the question as printf's %b takes it (five characters a byte), seconds. Prints the answer in
# hexadecimal. dd makes one datagram of what bash would send line by line.
exec 3<>"/dev/udp/$1/53" || exit 1
printf %b "$2" | dd obs=512 2>/dev/null >&3 || exit 1
answer=$(timeout "$3" dd bs=4096 count=1 <&3 2>/dev/null | od -An -v -tx1 | tr -d ' \n')
case ${answer:5:1} in
  [2367abef])
    # It may keep the connection open behind its answer, whose length comes first.
    # shellcheck disable=SC2016,SC2086 # the inner bash expands; two words
    whole=$(timeout "$3" bash -c 'exec 4<>"/dev/tcp/$1/53" || exit 1
      printf %b "$2" | dd obs=65535 2>/dev/null >&4 || exit 1
      length=$(dd bs=1 count=2 <&4 2>/dev/null | od -An -v -tu1)
      set -- $length
      [ $# = 2 ] && head -c $(($1 * 256 + $2)) <&4' query "$1" \
      "$(printf '\\0%03o\\0%03o' $((${#2} / 5 / 256)) $((${#2} / 5 % 256)))$2" 2>/dev/null |
      od -An -v -tx1 | tr -d ' \n')
    answer=${whole:-$answer}
    ;;
esac
printf %s "$answer"
