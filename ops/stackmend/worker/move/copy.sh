# Copy a model's file from one container into the store of Ollama in another, on the host itself.
# Prints the digest of its content. Arguments: the container it is in, its path there, the container
# of Ollama.
from=$1 path=$2 to=$3
# What runs in the container of Ollama: its store is where Ollama itself looks for it.
# shellcheck disable=SC2016 # the container's shell expands it
inside='
  models=${OLLAMA_MODELS:-$HOME/.ollama/models}
  part=$models/stackmend-import
  case $1 in
  has) [ -f "$models/blobs/sha256-$2" ] ;;
  drop) rm -rf "$part" ;;
  take)
    rm -rf "$part" && mkdir -p "$part" "$models/blobs" && cat >"$part/model" || exit
    # What arrived must be what was read; the owner is that of the store.
    sum=$(sha256sum <"$part/model")
    if [ "${sum%% *}" != "$2" ]; then
      echo "what arrived is not what was sent" >&2
      exit 1
    fi
    chmod 0644 "$part/model"
    chown "$(stat -c %u:%g "$models/blobs")" "$part/model" 2>/dev/null
    mv "$part/model" "$models/blobs/sha256-$2"
    ;;
  esac'
within() { docker exec -i "$to" sh -c "$inside" sh "$@"; }
# Its content, whatever the link to it is called.
content() { docker cp -L "$from:$path" - | tar -xOf -; }

digest=$(content | sha256sum)
digest=${digest%% *}
case $digest in
e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 | '')
  echo "$path cannot be read, or is empty" >&2
  exit 1
  ;;
esac
if ! within has "$digest" </dev/null; then
  # Nothing of it is left beside the models, however it ends.
  trap 'within drop </dev/null' EXIT
  trap 'exit 1' HUP INT TERM
  content | within take "$digest" || exit
fi
echo "sha256:$digest"
