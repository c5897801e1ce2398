# Print which of some files a container has not. Arguments: the container, the paths.
container=$1
shift
for path; do
  # One that is there is not read to its end.
  error=$({ docker cp -L "$container:$path" - </dev/null | head -c 1 >/dev/null; } 2>&1)
  case $error in *'Could not find the file'* | *'o such file'*) printf '%s\n' "$path" ;; esac
done
