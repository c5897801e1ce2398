# What keeps runs from mending this host. Changes nothing. Writes sections (connection/frame.sh).
# Arguments: the directory of what stackmend remembers, the bytes that a file of it can have.
directory=$1 most=$2
LC_ALL=C
export LC_ALL

# A file that there is none of is empty; one that cannot be read says so by its status.
remembered() {
  file=$directory/$1
  if [ -d "$directory" ] && [ ! -x "$directory" ]; then
    echo "Permission denied"
    return 1
  elif [ -L "$file" ]; then
    echo "it is a link"
    return 1
  elif [ ! -e "$file" ]; then
    return 0
  elif [ ! -f "$file" ]; then
    echo "it is no file"
    return 1
  elif [ ! -s "$file" ]; then
    echo "it is empty"
    return 1
  fi
  # One byte more than it can have.
  head -c "$((most + 1))" -- "$file" | tr '\000' '?'
}

section clock date +%s
section pauses remembered pauses.json
section limits remembered limits.json
