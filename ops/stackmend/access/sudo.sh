# Install sudo by the host's package manager. Arguments: the package manager.
case $1 in
apt-get)
  export DEBIAN_FRONTEND=noninteractive
  # The lists of a new machine may be empty or old.
  apt-get install -y -q --no-install-recommends sudo >/dev/null 2>&1 ||
    { apt-get update -q && apt-get install -y -q --no-install-recommends sudo; }
  ;;
dnf | yum) "$1" install -y -q sudo ;;
apk) apk add -q sudo ;;
zypper) zypper -n -q install sudo ;;
*) fail 69 "stackmend cannot install by $1" ;;
esac
