# Which accelerators this host has, and how far containers can have them. Changes nothing.
# Writes sections (connection/frame.sh).
found=$(for device in /sys/bus/pci/devices/*; do
  read -r vendor <"$device/vendor" || continue
  case $vendor in 0x10de | 0x1002) ;; *) continue ;; esac
  read -r class <"$device/class" || continue
  read -r model <"$device/device" || continue
  # Display controllers and processing accelerators; a card's sound and USB functions are neither.
  case $class in 0x03* | 0x12*) ;; *) continue ;; esac
  driver=$(readlink "$device/driver")
  printf '%s %s %s %s %s\n' "${device##*/}" "$vendor" "$model" "$class" "${driver##*/}"
done 2>/dev/null)
section pci printf '%s\n' "$found"
if [ -z "$found" ]; then
  section whole true
  exit 0
fi

# Numbers and not names of groups: a container knows the host's groups by number alone.
begin nodes
for node in /dev/nvidia[0-9]* /dev/nvidiactl /dev/nvidia-uvm /dev/kfd /dev/dri/renderD*; do
  [ -c "$node" ] && stat -c '%n %g %a' "$node"
done | quoted
end 0
[ -f /var/lib/stackmend/engine/accelerated ] &&
  section proof cat /var/lib/stackmend/engine/accelerated
case $found in
*" 0x10de "*) ;;
*)
  section whole true
  exit 0
  ;;
esac

begin driver
{ cat /sys/module/nvidia/version ||
  sed -n 's/^NVRM version:.*  \([0-9][0-9.]*\)  .*/\1/p' /proc/driver/nvidia/version; } 2>/dev/null | quoted
end 0
begin tools
for tool in nvidia-smi nvidia-ctk nvidia-container-runtime; do
  path=$(command -v "$tool") && printf '%s %s\n' "$tool" "$path"
done | quoted
end 0
begin package
if command -v dpkg-query >/dev/null 2>&1; then
  # shellcheck disable=SC2016
  dpkg-query -W -f '${db:Status-Status} ${Version}\n' nvidia-container-toolkit 2>/dev/null
elif command -v rpm >/dev/null 2>&1; then
  rpm -q --qf 'installed %{VERSION}-%{RELEASE}\n' nvidia-container-toolkit 2>/dev/null |
    grep '^installed '
fi | quoted
end 0
# In the order in which the engine takes them: of two files that name the same device the last wins.
number=0
for file in /etc/cdi/*.yaml /etc/cdi/*.json /var/run/cdi/*.yaml /var/run/cdi/*.json; do
  grep -q 'nvidia\.com/gpu' "$file" 2>/dev/null || continue
  number=$((number + 1))
  begin "cdi $number"
  # The path comes last: a name may have lines of its own.
  { sed -n -e 's/.*\.so\.\([0-9][0-9]*\.[0-9.]*[0-9]\).*/version \1/p' \
    -e 's|.*\(/dev/nvidia[0-9][0-9]*\).*|device \1|p' "$file" | sort -u; printf 'path %s\n' "$file"; } | quoted
  end 0
done
section whole true
