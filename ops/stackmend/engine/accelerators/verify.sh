# Reach the accelerators from inside a container, and again from the same one after systemd has read
# its units anew: it then loses what it was given behind systemd's back. Print what was seen, and
# record the evidence. Arguments: what common.sh takes, the evidence, the groups of AMD's device
# files, then how containers are given the devices: cdi, runtime, rocm.
evidence=$1 groups=$2
shift 2
alone
image=stackmend/proof:latest name=stackmend-proof
clean() {
  docker rm -f "$name" >/dev/null 2>&1
  docker image rm -f "$image" >/dev/null 2>&1
}
# What a killed proof left.
clean
trap clean EXIT
trap 'exit 1' TERM

# A host without a registry has no image: the host's own shell makes one, with the libraries that it
# and nvidia-smi need. nvidia-smi itself is what the container is to be given.
{
  for tool in /bin/sh sleep nvidia-smi; do
    path=$(command -v "$tool") || continue
    [ "$tool" = nvidia-smi ] || printf '%s\n' "$path"
    ldd "$path" 2>/dev/null | sed -n 's|^.*[[:space:]]\(/[^ ]*\) (0x[0-9a-f]*)$|\1|p'
  done
  # NVIDIA's hook links the driver's libraries only where there is a cache of libraries already.
  [ ! -f /etc/ld.so.cache ] || echo /etc/ld.so.cache
} | sort -u | tar -chf - -T - 2>/dev/null | docker import \
  --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
  - "$image" >/dev/null || {
  echo 'cannot make the image of the proof' >&2
  exit 70
}

print_options() {
  case $1 in
  cdi) echo '--device nvidia.com/gpu=all' ;;
  runtime) echo '--runtime nvidia -e NVIDIA_VISIBLE_DEVICES=all -e NVIDIA_DRIVER_CAPABILITIES=all' ;;
  rocm)
    # As nobody: only the groups let it in.
    printf '%s' '--user 65534:65534 --device /dev/kfd --device /dev/dri'
    for group in $groups; do printf ' --group-add %s' "$group"; done
    ;;
  esac
}
reached() {
  case $1 in
  rocm)
    # shellcheck disable=SC2016 # for the shell in there
    docker exec "$name" sh -c \
      'for node in /dev/kfd /dev/dri/renderD*; do : <>"$node" || exit 1; echo "$node"; done'
    ;;
  *)
    if have nvidia-smi; then
      observed=$(docker exec "$name" nvidia-smi -L 2>&1)
      status=$?
      printf '%s\n' "$observed"
      [ $status -eq 0 ] && printf '%s\n' "$observed" | grep -q '^GPU '
    else
      # shellcheck disable=SC2016 # for the shell in there
      docker exec "$name" sh -c \
        'for node in /dev/nvidia[0-9]*; do : <"$node" || exit 1; echo "$node"; done'
    fi
    ;;
  esac
}
# Containers that were given NVIDIA's devices by its hook would lose them now.
at_risk() {
  ids=$(docker ps -q --no-trunc)
  # shellcheck disable=SC2086 # ids are hexadecimal
  [ -z "$ids" ] || docker container inspect \
    --format '{{.Name}} {{.HostConfig.Runtime}} {{json .HostConfig.DeviceRequests}}' $ids |
    sed -n -e "/^\/$name /d" -e 's/^\/\([^ ]*\) nvidia .*/\1/p' \
      -e 's/^\/\([^ ]*\) .*"gpu".*/\1/p' | sort -u
}

for mode; do
  # shellcheck disable=SC2046 # one word each
  output=$(docker run -d --name "$name" --label stackmend.proof=1 --network none $(print_options "$mode") \
    "$image" sleep 120 2>&1) || {
    printf '%s\n' "$output" | tail -n 3 >&2
    exit 70
  }
  observed=$(reached "$mode" 2>&1) || {
    printf '%s\n' "$observed" | tail -n 3 >&2
    exit 72
  }
  printf '%s\n' "$observed" | sed 's/^/seen /'
  if [ -d /run/systemd/system ]; then
    others=$(at_risk)
    if [ -n "$others" ]; then
      printf 'spared %s\n' "$(printf '%s' "$others" | tr '\n' ' ')"
    else
      systemctl daemon-reload
      observed=$(reached "$mode" 2>&1) || {
        printf '%s\n' "$observed" | tail -n 3 >&2
        exit 76
      }
      echo 'again'
    fi
  fi
  docker rm -f "$name" >/dev/null 2>&1
done
printf '%s\n' "$evidence" >"${root:?}/accelerated.new" || exit 73
mv -f -- "$root/accelerated.new" "$root/accelerated"
