# What a host has counted so far, of all that takes time from a server. Changes nothing. Writes
# sections (connection/frame.sh). Behind group.sh. Arguments: the server's processes.
PATH=$PATH:/usr/sbin:/sbin:/usr/lib/wsl/lib
LC_ALL=C
export LC_ALL PATH

section stat head -n 1 /proc/stat
begin memory
{
  grep -E '^(pswpin|oom_kill) ' /proc/vmstat
  sed -n 's/^\(MemTotal\|MemAvailable\): *\([0-9]*\) kB$/\1 \2/p' /proc/meminfo
} 2>/dev/null | quoted
end 0
section load cat /proc/loadavg
begin thermal
cat /sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/core_throttle_count \
  /sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/package_throttle_count 2>/dev/null | quoted
end 0
begin groups
for process; do
  # One line for each group: those that are held back, and, of the process's own alone, what it used.
  depth=0
  group_files "$process" cpu | while IFS= read -r directory; do
    awk -v name="$process.$depth" '
      $1 == "nr_throttled" { times = $2 }
      $1 == "throttled_usec" { held = $2 / 1e6 }
      $1 == "throttled_time" { held = $2 / 1e9 }
      END { printf "%s throttled %.0f %.6f\n", name, times, held }' "$directory/cpu.stat" 2>/dev/null
    depth=$((depth + 1))
  done
  directory=$(group_files "$process" cpuacct | head -n 1)
  if [ -f "$directory/cpuacct.usage" ]; then
    awk -v name="$process" '{ printf "%s used %.6f\n", name, $1 / 1e9 }' "$directory/cpuacct.usage"
  else
    awk -v name="$process" '$1 == "usage_usec" { printf "%s used %.6f\n", name, $2 / 1e6 }' \
      "$directory/cpu.stat" 2>/dev/null
  fi
done | quoted
end 0
if command -v nvidia-smi >/dev/null 2>&1 && command -v timeout >/dev/null 2>&1; then
  # Older drivers know the reasons by another name.
  for named in clocks_event_reasons clocks_throttle_reasons; do
    found=$(timeout -k 2 10 nvidia-smi "--query-gpu=$named.active,temperature.gpu" \
      --format=csv,noheader,nounits 2>/dev/null) && break
    found=''
  done
  section gpus printf '%s\n' "$found"
fi
section complete true
