# To write, as root, the files of a host's settings. Behind connection/walk.sh. In their directories
# nobody but root may change anything: nothing of what is done there by name can then be led astray.
# Scripts call these in subshells, where no name of a variable is anybody else's.
# shellcheck disable=SC2154 # connection/walk.sh sets them

# aim PATH: hold the directory in which this file really lies, or is to lie, and have its name there
# in $name. It is a file, or nothing has its name. What is in the way is said on standard error.
aim() {
  aimed=$1 turns=0
  case $1 in
  /*) ;;
  *)
    echo "$1 is no absolute path" >&2
    return 1
    ;;
  esac
  while :; do
    if ! reach "${aimed%/*}"; then
      echo "${obstacle#*  } is in the way of $1: replace it by a directory" >&2
      return 1
    fi
    parent=$real name=${aimed##*/}
    if ! rooted "$parent"; then
      echo "others than root may write to $ground: see what is in it, then chown it to root and chmod go-w" >&2
      return 1
    fi
    (umask 022 && dig "$parent") && hold "$parent" || return 1
    if [ ! -L "./$name" ]; then break; fi
    # Root alone can have put a link here.
    turns=$((turns + 1))
    if [ $turns -gt 20 ] || ! aimed=$(readlink -- "./$name"); then
      echo "the link $parent/$name leads nowhere: replace it by a file" >&2
      return 1
    fi
    case $aimed in /*) ;; *) aimed=$parent/$aimed ;; esac
  done
  if [ -e "./$name" ] && [ ! -f "./$name" ]; then
    echo "$parent/$name is no file: move it elsewhere" >&2
    return 1
  fi
}

# put PATH [FROM]: have this file hold what the file FROM does, with FROM's owner and permissions; or
# what comes on standard input, with those that the file has (a new one is root's, and all may read
# it). It takes its place by one rename, from a name beside it that nobody can foresee.
put() (
  aim "$1" || return 1
  # What a run left that was killed here.
  rm -f -- "./.$name.stackmend".??????????
  beside=$(mktemp "./.$name.stackmend.XXXXXXXXXX") || return 1
  if {
    if [ -n "${2:-}" ]; then cp -p -- "$2" "$beside"
    elif [ -e "./$name" ]; then cp -p -- "./$name" "$beside" && cat >"$beside"
    else chmod 0644 "$beside" && cat >"$beside"
    fi
  } && { sync "$beside" 2>/dev/null || sync; } && mv -f -- "$beside" "./$name"; then return 0; fi
  rm -f -- "$beside"
  return 1
)

# remove PATH: have there be no such file.
remove() (
  aim "$1" && rm -f -- "./$name"
)
