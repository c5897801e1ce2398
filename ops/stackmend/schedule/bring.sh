# Bring a program and settings to this host, from the tar archive on standard input: prepared beside
# what runs, proven by a run that changes nothing, and then switched to in one step. Arguments: where
# this host keeps them, the digests of both and of the program, and the Python to run it with.
home=$1 generation=$2 program=$3 python=$4
umask 077
private "$home" && cd "$home" && mkdir -p programs generations || exit 73
rm -rf generations/.partial && mkdir generations/.partial && tar -xf - -C generations/.partial --no-same-owner || exit 73
part=$home/generations/.partial venv=$home/programs/$program
output=$home/.output
trap 'rm -rf "$part" "$output"' EXIT
trap 'exit 1' TERM
# fail WHAT STATUS: the end of what was written is the reason.
fail() {
  tail -n 5 "$output" | cut -c 1-500 >&2
  echo "$1" >&2
  exit "$2"
}
# flush: have all that was written here on the disk.
flush() { sync -f "$home" 2>/dev/null || sync; }
if [ -d "$part/wheels" ]; then
  # What a run left that was killed here.
  rm -rf "$venv"
  "$python" -IS -m venv --without-pip "$venv" >"$output" 2>&1 || fail "$python makes no environment" 70
  set -- "$part"/wheels/pip-*.whl
  "$venv/bin/python" -I "$1/pip" install --quiet --no-index --no-deps --require-hashes --no-compile \
    --disable-pip-version-check --no-cache-dir --find-links "$part/wheels" \
    --requirement "$part/wheels/requirements.txt" >"$output" 2>&1 || fail 'the wheels cannot be installed' 70
  "$venv/bin/python" -I -m compileall -q -j 0 "$venv/lib" >/dev/null 2>&1
  rm -rf "$part/wheels"
  version=$("$venv/bin/stackmend" --version 2>"$output") || fail 'stackmend does not start' 70
  case $version in 'stackmend, version '* | 'stackmend '*) ;; *) fail 'stackmend does not start' 70 ;; esac
  # Also after a power cut it is complete where it says so.
  flush
  : >"$venv/complete"
fi
[ -e "$venv/complete" ] || exit 74
mv "$part/fleet" "$part/new" && ln -s "../../programs/$program" "$part/new/venv" || exit 73
rm -rf "generations/$generation" && mv "$part/new" "generations/$generation" || exit 73
inventory=$home/generations/$generation/inventory.py
cd / || exit 73
STACKMEND_REPORTS=$part/reports timeout 300 "$venv/bin/stackmend" reconcile "$inventory" --dry >"$output" 2>&1 </dev/null
status=$?
# Where another run is at work it has read its settings all the same.
case $status in 0 | 4 | 10) ;; *) rm -rf "$home/generations/$generation"; fail "stackmend looked at this host by itself and ended with $status" 65 ;; esac
cd "$home" || exit 73
flush
before=$(readlink current)
rm -f .current && ln -s "generations/$generation" .current && mv -T -f .current current || exit 73
flush
# What ran until now may still run: it goes the next time.
for each in generations/*; do
  case $each in "generations/$generation" | "$before") ;; *) rm -rf "$each" ;; esac
done
for each in programs/*; do
  for kept in generations/*/venv; do
    case $(readlink "$kept") in */"${each##*/}") continue 2 ;; esac
  done
  rm -rf "$each"
done
exit 0
