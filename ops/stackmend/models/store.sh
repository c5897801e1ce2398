# What a directory of models holds, on the host or inside a container. Changes nothing.
# Writes sections (connection/frame.sh). Arguments: the directory, whether contents are hashed
# (yes|no).
models=$1 hashes=$2
LC_ALL=C
export LC_ALL

# A name that holds a newline is none of Ollama's, and would be another row.
odd='*
*'
begin place
if [ ! -e "$models" ]; then
  echo missing
elif [ ! -x "$models" ] || [ ! -r "$models" ]; then
  echo forbidden
else
  for part in manifests blobs; do
    if [ -e "$models/$part" ] && { [ ! -x "$models/$part" ] || [ ! -r "$models/$part" ]; }; then
      echo forbidden
    fi
  done
fi | quoted
end 0

# Before anything was pulled the directory may be missing: the disk is that of what is above it.
above=$models
while [ ! -d "$above" ]; do
  above=${above%/*}
  above=${above:-/}
done
section free df -kP "$above"
[ -d "$models/blobs" ] && above=$models/blobs
section owner stat -L -c '%u:%g' "$above"

# Links are followed: whoever keeps blobs elsewhere links to them. What has no size is not read: a
# link may lead to a file of /proc, which has none and may never end.
if cd "$models/manifests" 2>/dev/null; then
  files() { find -L . -maxdepth 4 -type f ! -path "$odd" "$@"; }
  section manifests files -exec stat -L -c '%Y %n' {} +
  section digests files -size +0 -size -2048 -exec sha256sum {} +
  section contents files -size +0 -size -2048 -exec grep -H '' {} +
fi
if cd "$models/blobs" 2>/dev/null; then
  files() { find -L . -maxdepth 1 -type f ! -path "$odd" "$@"; }
  section blobs files -exec stat -L -c '%s %b %Y %n' {} +
  section parts files -name 'sha256*-partial-*' -size +0 -size -2048 -exec grep -H '' {} +
  # A config is small and says the model's format; templates and licences are as small and do not.
  section configs files -name 'sha256*' -size +0 -size -17 -exec grep -H '"model_format"' {} +
  [ "$hashes" = no ] ||
    section hashes files -name 'sha256*' ! -name '*-partial*' -size +0 -exec sha256sum {} +
fi
section stored true
