# The control groups of a process, for the scripts behind it.

# group_files PROCESS CONTROLLER: the directories of the control groups that hold a process, its own
# first, for one controller; in the only hierarchy there is, or in that of the controller.
group_files() {
  path=$(awk -F : -v name="$2" '
    $2 ~ "(^|,)" name "(,|$)" { own = $3 }
    $1 == 0 { unified = $3 }
    END { print length(own) ? own : unified }' "/proc/$1/cgroup" 2>/dev/null)
  root=/sys/fs/cgroup
  # A directory that nothing is mounted on may have the name of two controllers.
  for named in "$root" "$root/$2" "$root/$2,cpuacct" "$root/cpu,$2"; do
    if [ -f "$named/cgroup.procs" ]; then
      root=$named
      break
    fi
  done
  # Where the hierarchy begins in a group of its own, that is its root.
  case $path/ in */../*) path='' ;; esac
  [ -d "$root$path" ] || path=''
  while :; do
    printf '%s\n' "$root${path%/}"
    case $path in
    /?*) path=${path%/*} ;;
    *) break ;;
    esac
  done
}
