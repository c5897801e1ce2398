# What lies in a directory of models, on the host or inside a container. Changes nothing.
# Writes sections (connection/frame.sh). Arguments: the directory, whether contents are hashed
# (yes|no).
models=$1 hashes=$2
LC_ALL=C
export LC_ALL

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
fi
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

# Links are followed: whoever keeps blobs elsewhere links to them.
if cd "$models/manifests" 2>/dev/null; then
  section manifests find -L . -type f -exec stat -L -c '%Y %n' {} +
  section digests find -L . -type f -exec sha256sum {} +
  section contents find -L . -type f -exec grep -H '' {} +
fi
if cd "$models/blobs" 2>/dev/null; then
  section blobs find -L . -type f -exec stat -L -c '%s %b %Y %n' {} +
  section parts find . -type f -name 'sha256*-partial-*' -exec grep -H '' {} +
  # A config is small and says the model's format; templates and licences are as small and do not.
  section configs find -L . -type f -name 'sha256*' -size -17 -exec grep -H '"model_format"' {} +
  [ "$hashes" = no ] ||
    section hashes find -L . -type f -name 'sha256*' ! -name '*-partial*' -exec sha256sum {} +
fi
section stored true
