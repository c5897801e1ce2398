# Tells of images: `images REFERENCE...` writes id, volumes, healthcheck, Compose's project and
# service, environment and exposed ports of each as JSON, or "-" where it is not there, and the
# reference. As a section (connection/frame.sh).
images() {
  begin images
  # One call answers for all; only where one is missing is each asked alone.
  health='{{json .Config.Healthcheck}}'
  label='{{json (index .Config.Labels "com.docker.compose'
  format="[{{json .ID}},{{json .Config.Volumes}},$health,$label.project\")}},$label.service\")}}"
  format="$format,{{json .Config.Env}},{{json .Config.ExposedPorts}}]"
  found=$(docker image inspect --format "$format" -- "$@" 2>/dev/null)
  answered=$?
  {
    if [ $answered -eq 0 ]; then
      # Not by the shell: cutting a long text at a line takes dash the square of its length.
      printf '%s\n' "$found" | awk '
        BEGIN { for (at = 1; at < ARGC; at++) ref[at] = ARGV[at]; ARGC = 1 }
        { print $0 " " ref[NR] }' "$@"
    elif [ $answered -eq 124 ]; then
      # None is gone because an engine that hangs does not tell of it (connection/frame.sh).
      echo 'the Docker daemon does not answer within 10 s'
    else
      for ref; do
        fields=$(docker image inspect --format "$format" -- "$ref" 2>/dev/null) || fields=-
        printf '%s %s\n' "$fields" "$ref"
      done
    fi
  } | quoted
  [ $answered -eq 124 ] || answered=0
  end "$answered"
}
