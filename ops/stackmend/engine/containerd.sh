# Start containerd, and wait until the engine, which tries again after a pause, reaches it.
# Arguments: what common.sh takes.
systemctl start containerd.service || exit 70
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
  case $(limited docker info --format '{{.ContainerdCommit.ID}}' 2>/dev/null) in
    '' | N/A) sleep 1 ;;
    *) exit 0 ;;
  esac
done
echo 'the engine does not reach it' >&2
exit 70
