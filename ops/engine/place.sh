# Put a file in place, mode 0644; what was there is kept. Without input it is removed.
# Arguments: what common.sh takes, the file, the stamp of its copy.
file=$1 stamp=$2
root=${root:?}
mkdir -p "$(dirname "$file")" || exit 73
cat >"$file.stackmend-new" && chmod 0644 "$file.stackmend-new" || exit 73
if [ -e "$file" ]; then
  cp -p -- "$file" "$root/kept/$(basename "$file").$stamp" || exit 73
fi
if [ -s "$file.stackmend-new" ]; then mv -f -- "$file.stackmend-new" "$file"
else rm -f -- "$file.stackmend-new" "$file"
fi
