# Drop what a DNS cache holds. Arguments: the cache.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH
case $1 in
systemd-resolved) timeout 20 resolvectl flush-caches ;;
nscd) timeout 20 nscd -i hosts ;;
dnsmasq) pidof dnsmasq | xargs kill -s HUP ;;
unbound) timeout 20 unbound-control flush_zone . >/dev/null && timeout 20 unbound-control flush_negative >/dev/null ;;
windows) ipconfig.exe /flushdns >/dev/null ;;
macos) dscacheutil -flushcache && killall -HUP mDNSResponder ;;
esac
