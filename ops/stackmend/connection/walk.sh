# To work, as root, below a directory that others may change at any moment.
#
# What is written is written without a race, because nothing is done by a path. A directory is
# entered, and then asked where it is: getcwd(2) tells of the directory that is held, so where that
# is the very path that was asked for, no link led there. From then on all names are without a slash
# and looked up in the directory held, by calls that follow none: mkdir, open with O_EXCL, rename,
# unlink. What others rename or link meanwhile makes them fail, and never leads them elsewhere. A
# second directory is held by a descriptor, and never reached by "..": whoever moves the first one
# says what that is.
# `env pwd`, because a shell may work out a path by itself and not ask the kernel.
# shellcheck disable=SC2034 # the scripts behind it use them
LC_ALL=C
export LC_ALL
# These make cd and tar do something else.
unset CDPATH TAR_OPTIONS
newline='
'

# hold PATH: enter the directory that lies at this path, which has no links.
hold() {
  if cd -P -- "$1" 2>/dev/null && [ "$(env pwd -P && echo .)" = "$1$newline." ]; then return 0; fi
  cd /
  return 1
}

# dig PATH: hold the directory at this path, which has no links; what is missing of it is made.
dig() {
  hold "${1:-/}" && return 0
  # Another run may make it at this very moment.
  [ -n "$1" ] && dig "${1%/*}" && mkdir -p -- "./${1##*/}" && hold "$1"
}

# plain PATH: it leads to something below the directory that it starts in.
plain() {
  case /$1/ in
  *//* | */./* | */../* | *"$newline"*) return 1 ;;
  esac
}

# guarded PATH: in this directory nobody but root (or who we are) can change anything, and in no
# directory above it can anybody else put another one in its place.
guarded() {
  above=$1
  set --
  while [ -n "$above" ]; do
    set -- "$above" "$@"
    above=${above%/*}
  done
  stat -c '%u %A' -- / "$@" 2>/dev/null | awk -v me="$(id -u)" -v count="$(($# + 1))" '
    {
      open = substr($2, 6, 1) substr($2, 9, 1) ~ /w/
      # With the sticky bit only an owner takes away what is there.
      if ($2 !~ /^d/ || ($1 != 0 && $1 != me) || (open && $2 !~ /[tT]$/)) bad = 1
    }
    END { exit bad || open || NR != count }'
}

# rooted PATH: what there is of this path is guarded.
rooted() {
  ground=$1
  until [ -d "${ground:-/}" ]; do ground=${ground%/*}; done
  guarded "$ground"
}

# reach PATH: where this directory really lies, into $real; the last parts may be missing. A link is
# followed where root alone can have put it there; for anything else $obstacle is "KIND  PATH".
reach() {
  real='' further=${1#/} hops=0 obstacle=''
  while [ -n "$further" ]; do
    part=${further%%/*}
    case $further in */*) further=${further#*/} ;; *) further='' ;; esac
    case $part in
    '' | .) continue ;;
    ..)
      real=${real%/*}
      continue
      ;;
    esac
    if hold "$real/$part" || ! hold "${real:-/}"; then
      real=$real/$part
    elif [ -L "./$part" ]; then
      hops=$((hops + 1))
      if [ $hops -gt 20 ] || ! guarded "$real" || ! target=$(readlink -- "./$part"); then
        obstacle="link  $real/$part"
        return 1
      fi
      case $target in /*) real='' ;; esac
      further=$target/$further
    elif [ -d "./$part" ] && [ ! -x "./$part" ]; then
      obstacle="closed  $real/$part"
      return 1
    elif [ -e "./$part" ] && ! hold "$real/$part"; then
      # No directory that another run has made meanwhile.
      obstacle="other  $real/$part"
      return 1
    else
      real=$real/$part
    fi
  done
}

# private DIRECTORY: have this directory, in which nobody but root (or who we are) changes anything.
private() (
  if guarded "$1"; then return 0; fi
  if reach "$1" && ! rooted "$real"; then
    echo "others than root may write to $1: see what is in it, then chown it to root and chmod go-w" >&2
  elif [ -z "$obstacle" ] && refused=$( (umask 077 && dig "$real") 2>&1); then
    return 0
  else
    case $obstacle in
    closed*) obstacle="Permission denied at ${obstacle#*  }" ;;
    ?*) obstacle="${obstacle#*  } is in the way" ;;
    *) obstacle="${refused##*: }; make its directory writable, then run again" ;;
    esac
    echo "$1 cannot be made: $obstacle" >&2
  fi
  return 1
)

# take_up NAME: open this file of the held directory as descriptor 3, for reading; it is then
# /proc/self/fd/3, whatever its name comes to mean.
take_up() {
  if [ ! -f "./$1" ] || [ -L "./$1" ]; then return 1; fi
  # Whoever opens a FIFO waits, and one may take the file's place at this very moment.
  (
    trap 'kill $!; exit' TERM
    sleep 20 &
    wait $!
    kill -s ALRM $$
  ) </dev/null >/dev/null 2>&1 &
  waiting=$!
  exec 3<"./$1" || return 1
  kill "$waiting"
  case $(stat -L -c '%F %h' /proc/self/fd/3) in
  regular*\ 1) ;;
  *) return 1 ;;
  esac
  [ "$(readlink /proc/self/fd/3)" = "$(env pwd -P)/$1" ]
}

# nest PATH: hold a new directory $beside in the one that descriptor 4 holds, which lies at PATH. Its
# name is none that anybody can foresee; where somebody has another one there by now, this fails.
nest() {
  beside=$(mktemp -d /proc/self/fd/4/.stackmend.XXXXXXXXXX) || return 1
  beside=${beside##*/}
  hold "$1/$beside" && ours && empty . && return 0
  echo "$1/$beside is not as it was made a moment ago: only root's own (mode 0700) serves" >&2
  return 1
}
# ours: nobody but root (or who we are) can have made the held directory; $inode tells it from others.
ours() {
  inode=$(stat -c '%u %a %d:%i' .) || return 1
  case $inode in
  "$(id -u) 700 "* | "$(id -u) 2700 "*) inode=${inode##* } ;;
  *) return 1 ;;
  esac
}

# renamer: into $renaming, as a script for `sh -c`, what renames its arguments from the held directory
# into the one that descriptor 4 holds. It never copies: mv does where a rename is refused (another
# file system, another project of a quota), by names that others may change meanwhile. $renames is its
# tool; ln knows files alone.
renamer() {
  # shellcheck disable=SC2016 # the inner shell expands
  if mv --no-copy --version >/dev/null 2>&1; then
    renames=mv renaming='exec mv --no-copy -f -- "$@" /proc/self/fd/4/'
  elif command -v python3 >/dev/null 2>&1; then
    renames=python3 renaming='exec python3 -IS -c "
import os, sys
for name in sys.argv[1:]:
    try:
        os.rename(name, \"/proc/self/fd/4/\" + name)
    except OSError as error:
        sys.exit(name + \": \" + error.strerror)
" "$@"'
  elif command -v perl >/dev/null 2>&1; then
    renames=perl renaming='exec perl -e "
for (@ARGV) { rename(\$_, \"/proc/self/fd/4/\$_\") or die \"\$_: \$!\\n\" }
" -- "$@"'
  else
    renames=ln renaming='ln -f -- "$@" /proc/self/fd/4/ && rm -f -- "$@"'
  fi
}
# place NAME...: rename these so, over what has their names there.
place() { renamer && sh -c "$renaming" place "$@"; }

# lay FROM NAME: put the file NAME of a directory that is root's alone into the held one, with its
# owner and permissions, in the place of what has that name. It waits beside it in a directory that
# holds nothing else. Wherever that is moved meanwhile, descriptor 4 is where the file goes.
lay() {
  exec 4<. && laid=$(env pwd -P) || return 1
  for beside in .stackmend.??????????; do
    # What a run left that was killed here; another's has other files in it, and stays.
    if hold "$laid/$beside" && ours; then
      rm -f -- "./$2"
      rmdir -- "/proc/self/fd/4/$beside" 2>/dev/null
    fi
  done
  nest "$laid" || return 1
  # Every tar opens with O_EXCL, and takes an owner without following a link.
  (umask 0 && (cd -P -- "$1" && exec tar -cf - --numeric-owner -- "./$2") |
    tar -xf - -m --no-same-permissions --numeric-owner) && place "./$2"
  status=$?
  rm -f -- "./$2"
  rmdir -- "/proc/self/fd/4/$beside"
  hold "$laid" && return $status
}

# survey DIRECTORY BYTES: of each path below it (on standard input, one a line) whether it is a file that
# can be read: "f  PATH"; "?  PATH" for one that cannot, "-  PATH" for none. Before them comes, once
# each, what is in the way: "!KIND  PATH", of the kinds link, directory, other, odd, and large for a
# file of more bytes: it takes no time, however large a sparse one says it is.
survey() {
  paths=$(cat)
  # Of many, most often all are files.
  if [ ${#paths} -gt 8000 ] && all_files "$1" "$2"; then
    printf '%s\n' "$paths" | sed 's/^/f  /'
  elif [ -n "$paths" ]; then
    found=$(printf '%s\n' "$paths" | each_alone "$1")
    printf '%s\n' "$found" | each "$1" stat -c '%s %n' -- 2>/dev/null | most=$2 awk '
      { size = $1; sub(/^[0-9]* /, "") }
      size > ENVIRON["most"] + 0 { print "f  " substr($0, 3) }' | {
      large=$(cat)
      if [ -z "$large" ]; then
        printf '%s\n' "$found"
      else
        printf '%s\n=\n%s\n' "$large" "$found" | awk '
          !behind { if (/^=/) behind = 1; else large[$0] = 1; next }
          $0 in large { print "!large" substr($0, 2); $0 = "?" substr($0, 2) }
          { print }'
      fi
    }
  fi
}
all_files() {
  types=$(printf '%s\n' "$paths" | awk '
    { if ($0 ~ /^\/|\/\/|\/$/ || "/" $0 "/" ~ /\/\.\.?\//) exit 1
      file[NR] = $0; path = $0
      while (match(path, /\/[^\/]*$/)) {
        path = substr(path, 1, RSTART - 1)
        if (path in seen) break
        seen[path] = 1; print "./" path }
    }
    END { for (i = 1; i <= NR; i++) print "./" file[i] }' | tr '\n' '\0' | (
    cd -P -- "$1" 2>/dev/null && timeout 60 xargs -0 -r stat -c '%f %s' -- 2>/dev/null
  )) || return 1
  # Directories, and behind them as many files as were asked for.
  printf '%s\n=\n%s\n' "$types" "$paths" | most=$2 awk '
    behind { want++; next }
    /^=/ { behind = 1; next }
    /^4/ && !have { next }
    /^8/ && $2 <= ENVIRON["most"] + 0 { have++; next }
    { bad = 1; exit }
    END { exit bad || have != want }'
}
each_alone() {
  last=. absent='' excluded=$newline
  while IFS= read -r path; do
    if ! plain "$path"; then
      bar odd "$path"
      continue
    fi
    case $path in */*) parent=${path%/*} ;; *) parent=. ;; esac
    if [ "$parent" != "$last" ]; then
      last=$parent absent='' at='' deeper=$parent/
      [ "$parent" != . ] || deeper=''
      while [ -n "$deeper" ]; do
        at=${at:+$at/}${deeper%%/*} deeper=${deeper#*/}
        if [ -L "$1/$at" ]; then
          bar link "$at"
          absent='?'
        elif [ ! -e "$1/$at" ]; then
          absent=-
        elif [ ! -d "$1/$at" ]; then
          bar other "$at"
          absent='?'
        else
          continue
        fi
        break
      done
    fi
    is=$absent
    if [ -n "$is" ]; then
      :
    elif [ -L "$1/$path" ]; then
      bar link "$path"
    elif [ -f "$1/$path" ]; then
      if [ -r "$1/$path" ]; then is=f; fi
    elif [ ! -e "$1/$path" ]; then
      is=-
    elif [ ! -d "$1/$path" ]; then
      bar other "$path"
    elif empty "$1/$path"; then
      # Docker makes such a directory of a file that it is to mount and does not find.
      is=-
    else
      bar directory "$path"
    fi
    printf '%s  %s\n' "${is:-?}" "$path"
  done
}
bar() {
  case $excluded in
  *"$newline$2$newline"*) ;;
  *)
    excluded=$excluded$2$newline
    printf '!%s  %s\n' "$1" "$2"
    ;;
  esac
}
empty() {
  for entry in "$1"/* "$1"/.[!.]* "$1"/..?*; do
    if [ -e "$entry" ] || [ -L "$entry" ]; then return 1; fi
  done
}

# each DIRECTORY COMMAND...: run a command on the files that a survey of it found.
each() {
  surveyed=$1
  shift
  sed -n 's|^f  |./|p' | tr '\n' '\0' | (
    cd -P -- "$surveyed" 2>/dev/null || exit 0
    timeout 60 xargs -0 -r "$@"
  )
}

# digests DIRECTORY BYTES: a survey of it, with the SHA-256 of each file in the place of "f".
digests() {
  observed=$(survey "$1" "$2")
  sums=$(printf '%s\n' "$observed" | each "$1" sha256sum -- 2>/dev/null)
  # By position: what stands behind a digest is not always the name.
  printf '%s\n=\n%s\n' "$sums" "$observed" | awk '
    !/./ { next }
    !behind { if (/^=/) behind = 1; else { sub(/^\\/, ""); sum[++had] = substr($0, 1, 64) }; next }
    { line[++count] = /^f  / ? sum[++used] substr($0, 2) : $0 }
    END { if (used != had) exit 1; for (i = 1; i <= count; i++) print line[i] }' && return
  # A file went while it was read.
  printf '%s\n' "$observed" | while IFS= read -r line; do
    case $line in
    f\ *)
      sum=$(timeout 60 sha256sum -- "$1/${line#f  }" 2>/dev/null)
      sum=${sum#\\}
      line="$(printf %.64s "${sum:-?}")${line#f}"
      ;;
    esac
    printf '%s\n' "$line"
  done
}
