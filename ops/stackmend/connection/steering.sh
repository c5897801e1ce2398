# shellcheck shell=sh
# What of a host's environment would lead Docker and Compose elsewhere, and is ignored: variables,
# taken out before any command (connection/preamble.py), those that every login has, also where sudo
# takes them out, and the context that the user chose.
steering() {
  for name in ${STACKMEND_IGNORED:-}; do printf 'variable %s\n' "$name"; done
  sed -n -e '/DOCKER_CONFIG\|DOCKER_CONTENT_TRUST/d' \
    -e 's/^\(export \)\{0,1\}\(DOCKER_[A-Z_]*\|COMPOSE_[A-Z_]*\)=.*/variable \2/p' /etc/environment 2>/dev/null
  sed -n 's/.*"currentContext"[[:space:]]*:[[:space:]]*"\([^"]*\)".*/context \1/p' \
    "${DOCKER_CONFIG:-$HOME/.docker}/config.json" 2>/dev/null
}
