# Tells of images: `images REFERENCE...` writes id, volumes and Compose's project and service of each as
# JSON, or "-" where it is not there, and the reference. As a section (connection/frame.sh).
images() {
  begin images
  {
    # One call answers for all; only where one is missing is each asked alone.
    label='{{json (index .Config.Labels "com.docker.compose'
    shown="[{{json .ID}},{{json .Config.Volumes}},$label.project\")}},$label.service\")}}]"
    found=$(docker image inspect --format "$shown" -- "$@" 2>/dev/null) || found=
    for ref; do
      if [ -n "$found" ]; then
        one=${found%%"
"*}
        found=${found#*"
"}
      else
        one=$(docker image inspect --format "$shown" -- "$ref" 2>/dev/null) || one=-
      fi
      printf '%s %s\n' "$one" "$ref"
    done
  } | quoted
  end 0
}
