# Tells of images: `images REFERENCE...` writes "id|reference|its volumes as JSON", with "-" for the
# id of one that is not there, as a section (connection/frame.sh).
images() {
  begin images
  # One call answers for all; only where one is missing is each asked alone.
  shown='{{.Id}}|{{json .Config.Volumes}}'
  found=$(docker image inspect --format "$shown" "$@" 2>/dev/null) || found=
  for ref; do
    if [ -n "$found" ]; then
      one=${found%%"
"*}
      found=${found#*"
"}
    else
      one=$(docker image inspect --format "$shown" "$ref" 2>/dev/null) || one=-
    fi
    printf '%s|%s|%s\n' "${one%%|*}" "$ref" "${one#*|}"
  done
  end 0
}
