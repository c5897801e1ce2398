# Write what CDI knows of NVIDIA's devices, and keep the file before.
# Arguments: what common.sh takes, the file, the stamp of its copy.
path=$1 stamp=$2
alone
work=$(mktemp -d) || exit 73
trap 'rm -rf "$work"' EXIT
trap 'exit 1' TERM
# Its name tells the format, and engines must never see a partial file.
nvidia-ctk cdi generate --output="$work/${path##*/}" >"$work/log" 2>&1 || {
  tail -n 5 "$work/log" >&2
  exit 70
}
(aim "$path") || exit 73
if [ -e "$path" ]; then cp -p -- "$path" "${root:?}/kept/${path##*/}.$stamp" || exit 73; fi
put "$path" <"$work/${path##*/}" || exit 73
