# Copy a model's file from one container into the store of Ollama in another, on the host itself.
# Prints the digest of its content. Arguments: the container it is in, its path there, the container
# of Ollama.
from=$1 path=$2 to=$3
name=${path##*/}
# What runs in the container of Ollama: its store is where Ollama itself looks for it.
# shellcheck disable=SC2016 # the container's shell expands it
inside='
  models=${OLLAMA_MODELS:-$HOME/.ollama/models}
  part=$models/stackmend-import
  case $1 in
  has) [ -f "$models/blobs/sha256-$2" ] ;;
  make) rm -rf "$part" && mkdir -p "$part" "$models/blobs" && echo "$part" ;;
  take)
    # What arrived must be what was read; the owner is that of the store.
    sum=$(sha256sum <"$part/$3")
    if [ "${sum%% *}" != "$2" ]; then
      rm -rf "$part"
      echo "what arrived of $3 is not what was sent" >&2
      exit 1
    fi
    chmod 0644 "$part/$3"
    chown "$(stat -c %u:%g "$models/blobs")" "$part/$3" 2>/dev/null
    mv "$part/$3" "$models/blobs/sha256-$2" && rm -rf "$part"
    ;;
  esac'
within() { docker exec "$to" sh -c "$inside" sh "$@"; }

digest=$(docker cp -L "$from:$path" - | tar -xOf - | sha256sum)
digest=${digest%% *}
case $digest in
e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 | '')
  echo "$path cannot be read, or is empty" >&2
  exit 1
  ;;
esac
if ! within has "$digest"; then
  into=$(within make) || exit
  docker cp -L "$from:$path" - | docker cp - "$to:$into" || exit
  within take "$digest" "$name" || exit
fi
echo "sha256:$digest"
