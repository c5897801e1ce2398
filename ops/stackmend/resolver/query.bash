# Ask a DNS server over UDP. Arguments: the server, the question as printf's %b takes it, seconds.
# Prints the answer in hexadecimal. dd makes one datagram of what bash would send line by line.
exec 3<>"/dev/udp/$1/53" || exit 1
printf %b "$2" | dd obs=512 2>/dev/null >&3 || exit 1
timeout "$3" dd bs=4096 count=1 <&3 2>/dev/null | od -An -v -tx1 | tr -d ' \n'
