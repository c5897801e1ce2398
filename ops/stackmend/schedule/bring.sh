# Bring a program and settings to this host, from the tar archive on standard input: prepared beside
# what runs, proven by a run that changes nothing, and then switched to in one step. Behind
# schedule/copy.sh. Arguments: where this host keeps them, the digests of both and of the program, the
# Python to run it with, and the words that begin a run as the timer does, `env` as the last.
home=$1 generation=$2 program=$3 python=$4
shift 4
umask 077
private "$home" && cd "$home" && mkdir -p programs generations || exit 73
rm -rf generations/.partial && mkdir generations/.partial && tar -xf - -C generations/.partial --no-same-owner || exit 73
part=$home/generations/.partial output=$home/.output made='' new=''
# What is no part of what this host runs goes, whatever ends this.
trap 'rm -rf "$part" "$output" ${made:+"$made"} ${new:+"$new"}' EXIT
trap 'exit 1' TERM
# fail WHAT STATUS: the end of what was written is the reason.
fail() {
  tail -n 5 "$output" | cut -c 1-500 >&2
  echo "$1" >&2
  exit "$2"
}
# flush: have all that was written here on the disk.
flush() { sync -f "$home" 2>/dev/null || sync; }
# unused PATH: into $free, the path with a number that nothing has. What runs keeps its own.
unused() {
  number=0
  while [ -e "$1.$number" ] || [ -L "$1.$number" ]; do number=$((number + 1)); done
  free=$1.$number
}
venv=''
if [ -d "$part/wheels" ]; then
  unused "$home/programs/$program"
  venv=$free made=$free
  "$python" -IS -m venv --without-pip "$venv" >"$output" 2>&1 || fail "$python makes no environment" 70
  for pip in "$part"/wheels/pip-*.whl; do break; done
  # It checks the others, and nothing has checked it but this.
  sum=$(sha256sum <"$pip" | cut -c 1-64)
  grep -q -e "--hash=sha256:$sum" "$part/wheels/requirements.txt" || fail 'pip is not the one of the lock' 70
  "$venv/bin/python" -I "$pip/pip" install --quiet --no-index --no-deps --require-hashes --no-compile \
    --disable-pip-version-check --no-cache-dir --find-links "$part/wheels" \
    --requirement "$part/wheels/requirements.txt" >"$output" 2>&1 || fail 'the wheels cannot be installed' 70
  "$venv/bin/python" -I -m compileall -q -j 0 "$venv/lib" >/dev/null 2>&1
  rm -rf "$part/wheels"
  version=$("$venv/bin/stackmend" --version 2>"$output") || fail 'stackmend does not start' 70
  case $version in 'stackmend, version '* | 'stackmend '*) ;; *) fail 'stackmend does not start' 70 ;; esac
  # Also after a power cut it is complete where it says so.
  flush
  : >"$venv/complete"
else
  for each in "$home/programs/$program".*; do
    if starts "$each"; then venv=$each; fi
  done
fi
[ -n "$venv" ] || exit 74
unused "$home/generations/$generation"
mv "$part/fleet" "$part/new" && ln -s "../../programs/${venv##*/}" "$part/new/venv" || exit 73
new=$free
mv "$part/new" "$new" && fingerprint "$new" >"$new/intact" || exit 73
cd / || exit 73
timeout 360 "$@" STACKMEND_REPORTS="$part/reports" "$venv/bin/stackmend" reconcile "$new/inventory.py" --dry >"$output" 2>&1 </dev/null
status=$?
# Where another run is at work it has read its settings all the same.
case $status in 0 | 4 | 10) ;; *) fail "stackmend looked at this host by itself and ended with $status" 65 ;; esac
cd "$home" || exit 73
flush
before=$(readlink current)
rm -f .current && ln -s "generations/${new##*/}" .current || exit 73
# From here on it is what this host runs, whenever this is ended.
made='' new=''
mv -T -f .current current || exit 73
flush
# How the copy before has ended says nothing of this one.
if [ -d /run/systemd/system ]; then systemctl reset-failed "${home##*/}.service" 2>/dev/null; fi
# What ran until now may still run: it goes the next time.
after=$(readlink current)
for each in generations/*; do
  case $each in "$after" | "$before") ;; *) rm -rf "$each" ;; esac
done
for each in programs/*; do
  for kept in generations/*/venv; do
    case $(readlink "$kept") in */"${each##*/}") continue 2 ;; esac
  done
  rm -rf "$each"
done
exit 0
