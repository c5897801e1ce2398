# Have security updates installed by the host itself. A file that is changed is kept first.
# Arguments: the package manager, where to keep it.
set -e
manager=$1 kept=$2
keep() {
  [ -e "$1" ] || return 0
  private "$kept"
  cp -p -- "$1" "$kept/${1##*/}.$(date -u +%Y%m%dT%H%M%SZ)"
}
case $manager in
apt)
  # Read behind 20auto-upgrades, which the package brings: the last one decides.
  file=/etc/apt/apt.conf.d/52stackmend-security-updates
  (aim "$file")
  keep "$file"
  printf '%s\n' '// Security updates are installed every day.' \
    'APT::Periodic::Update-Package-Lists "1";' 'APT::Periodic::Unattended-Upgrade "1";' |
    put "$file"
  ;;
dnf)
  file=/etc/dnf/automatic.conf
  (aim "$file")
  keep "$file"
  from=$file
  [ -e "$file" ] || from=/dev/null
  # Both keys take their values in the section that they belong to; all other lines stay.
  new=$(awk '
    function rest() {
      if (inside && !type) print "upgrade_type = security"
      if (inside && !apply) print "apply_updates = yes"
      if (inside) { type = apply = 1; done = 1 }
    }
    /^[ \t]*\[/ { rest(); inside = $0 ~ /^[ \t]*\[commands\]/ }
    inside && /^[ \t]*upgrade_type[ \t]*=/ {
      value = $0; sub(/^[^=]*=[ \t]*/, "", value)
      if (value !~ /^default[ \t]*$/) $0 = "upgrade_type = security"
      type = 1
    }
    inside && /^[ \t]*apply_updates[ \t]*=/ { $0 = "apply_updates = yes"; apply = 1 }
    { print }
    END {
      rest()
      if (!done) print "[commands]\nupgrade_type = security\napply_updates = yes"
    }' "$from")
  printf '%s\n' "$new" | put "$file"
  ;;
esac
