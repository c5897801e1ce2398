# Tells of images: `images REFERENCE...` writes id and volumes of each as JSON, or "-" where it is not
# there, and the reference. As a section (connection/frame.sh).
images() {
  begin images
  {
    # One call answers for all; only where one is missing is each asked alone.
    shown='[{{json .Id}},{{json .Config.Volumes}}]'
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
