# The same as bind.py, where a host has no python3.
use strict;
use warnings;
use Socket qw(:DEFAULT inet_pton pack_sockaddr_in6 IPPROTO_IPV6 IPV6_V6ONLY);

for (@ARGV) {
  my ($kind, $address, $ports) = split m{/};
  my $six = index($address, ":") >= 0;
  my $packed = inet_pton($six ? AF_INET6 : AF_INET, $address);
  for my $part (split /,/, $ports) {
    my ($first, $last) = split /-/, $part;
    for my $port ($first .. ($last || $first)) {
      next if !defined $packed and print "EINVAL $kind $address $port\n";
      my $to = $six ? pack_sockaddr_in6($port, $packed) : pack_sockaddr_in($port, $packed);
      my $socket;
      socket($socket, $six ? PF_INET6 : PF_INET, $kind eq "tcp" ? SOCK_STREAM : SOCK_DGRAM, 0)
        and (!$six or setsockopt($socket, IPPROTO_IPV6, IPV6_V6ONLY, pack("i", 1)))
        and ($kind ne "tcp" or setsockopt($socket, SOL_SOCKET, SO_REUSEADDR, pack("i", 1)))
        and bind($socket, $to) and ($kind ne "tcp" or listen($socket, 1))
        or do {
          my ($name) = grep { $!{$_} } qw(EADDRINUSE EADDRNOTAVAIL EACCES EAFNOSUPPORT EINVAL);
          $name ||= "E" . ($! + 0);
          print "$name $kind $address $port\n";
        };
    }
  }
}
print "done\n";
