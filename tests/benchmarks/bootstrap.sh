# What one would type on a new machine of Debian 13, in one go: a user with a key and sudo, no more
# logins by password, the engine with Compose, how its logs are kept. Argument: the public key.
set -eu
useradd --create-home --shell /bin/bash ops
install -d -m 0700 -o ops -g ops /home/ops/.ssh
printf '%s\n' "$1" > /home/ops/.ssh/authorized_keys
chown ops:ops /home/ops/.ssh/authorized_keys
chmod 0600 /home/ops/.ssh/authorized_keys
echo 'ops ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/ops
chmod 0440 /etc/sudoers.d/ops
visudo -cq
echo 'PasswordAuthentication no' > /etc/ssh/sshd_config.d/00-keys.conf
sshd -t
systemctl reload ssh
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -y -q --no-install-recommends docker.io docker-cli docker-compose docker-buildx \
  iptables
mkdir -p /etc/docker
echo '{"log-driver": "json-file", "log-opts": {"max-size": "10m", "max-file": "3"}}' \
  > /etc/docker/daemon.json
systemctl restart docker
docker version
docker compose version
