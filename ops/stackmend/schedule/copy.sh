# What a host mends itself with: whether it is intact. Before bring.sh, has_program.sh and probe.sh.
# starts ENVIRONMENT: the program in it is complete, and its Python runs it.
starts() { [ -e "$1/complete" ] && timeout 30 "$1/bin/stackmend" --version >/dev/null 2>&1; }

# fingerprint GENERATION: a digest of the settings and files in it, their owners and permissions.
fingerprint() (
  cd -- "$1" 2>/dev/null || exit 1
  {
    find . -name venv -prune -o -name __pycache__ -prune -o ! -path ./intact -type f -exec sha256sum -- {} +
    find . -name venv -prune -o -name __pycache__ -prune -o ! -path ./intact -exec stat -c '%a %u %F %n' -- {} +
  } 2>&1 | LC_ALL=C sort | sha256sum | cut -c 1-64
)
