# Cut off what is broken of a redis's append-only file, and start it again; a copy of all of it is kept
# beside it. Argument: the container's id.
id=$1
image=$(docker container inspect --format '{{.Image}}' -- "$id") || exit
place=$(docker container inspect --format '{{.Config.WorkingDir}}' -- "$id") || exit
docker stop "$id" || exit
# Its files are reached as it reaches them, by the programs of its image, and nothing else is.
docker run --rm --interactive --network none --volumes-from "$id" --workdir "${place:-/}" \
  --entrypoint sh "$image" -s "$(date -u +%Y%m%dT%H%M%SZ)" <<'END' || exit
dir=$(sed -n 's/^[[:space:]]*dir[[:space:]]*//p' /etc/redis.conf /etc/redis/redis.conf 2>/dev/null | tail -n 1)
for place in . /data ${dir:+"$dir"}; do
  for file in "$place"/appendonlydir/*.manifest "$place"/appendonly.aof; do
    [ -f "$file" ] || continue
    case $file in
    *.manifest) kept=${file%/*} ;;
    *) kept=$file ;;
    esac
    cp -a "$kept" "$kept.before-repair-$1" || exit
    echo y | redis-check-aof --fix "$file"
    exit
  done
done
echo 'no append-only file is where redis has it by default (appendonlydir, appendonly.aof)' >&2
exit 1
END
docker start "$id"
