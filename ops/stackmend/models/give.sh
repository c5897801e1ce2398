# Write a file to standard output without its first bytes.
# Arguments: the store, the file below it, how many bytes are left out.
# shellcheck disable=SC2154 # walk.sh sets them
plain "$2" && reach "$1" || exit
name=${2##*/}
if ! hold "$real/${2%/*}" || ! take_up "$name"; then
  if [ -L "./$name" ]; then why='a link, which is not followed'
  elif [ -d "./$name" ]; then why='Is a directory'
  elif [ -e "./$name" ]; then why='no file of its own'
  else why='No such file'
  fi
  echo "$1/$2: $why" >&2
  exit 1
fi
tail -c "+$(($3 + 1))" </proc/self/fd/3
