# shellcheck shell=sh
# What of a host's environment would lead Docker and Compose elsewhere, and is ignored: variables,
# taken out before any command (connection/preamble.py), and the context that the user chose.
steering() {
  for name in ${STACKMEND_IGNORED:-}; do printf 'variable %s\n' "$name"; done
  sed -n 's/.*"currentContext"[[:space:]]*:[[:space:]]*"\([^"]*\)".*/context \1/p' \
    "${DOCKER_CONFIG:-$HOME/.docker}/config.json" 2>/dev/null
}
