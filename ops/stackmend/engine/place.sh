# Write a file, a new one with mode 0644, and keep the one before. Without input, remove it.
# Arguments: what common.sh takes, the file, the stamp of its copy.
file=$1 stamp=$2
root=${root:?}
work=$(mktemp -d "$root/place.XXXXXXXXXX") || exit 73
trap 'rm -rf "$work"' EXIT
trap 'exit 1' TERM
cat >"$work/new" && (aim "$file") || exit 73
if [ -e "$file" ]; then
  cp -p -- "$file" "$root/kept/${file##*/}.$stamp" || exit 73
fi
if [ -s "$work/new" ]; then put "$file" <"$work/new"; else remove "$file"; fi || exit 73
