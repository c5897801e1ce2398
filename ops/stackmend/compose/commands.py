"""From an action to the command that does it: the only place where values are quoted."""

import gzip
import io
import stat
import tarfile
import zlib
from collections.abc import Iterable, Mapping, Sequence

from pyinfra.api import QuoteString, StringCommand
from pyinfra.api.hiddenvalue import HiddenValue

from stackmend.compose.checkout import MAXIMUM_ARCHIVE
from stackmend.compose.plan.actions import (
    Attach,
    Build,
    Detach,
    Disconnect,
    EngineAction,
    InstallFiles,
    Pull,
    Remove,
    RemoveLeftover,
    RemoveNetwork,
    Rename,
    Repair,
    Restart,
    RestoreFiles,
    Resume,
    SetAside,
    SetPolicy,
    Start,
    Tag,
    Unpause,
)
from stackmend.compose.source import MAXIMUM_BYTES, File, Source
from stackmend.compose.spec import ComposeSpec, GitSource
from stackmend.compose.state import Applied, StackState
from stackmend.connection import script, write_own
from stackmend.paths import STATE_ROOT, is_plain

#: Seconds to wait for a command of an earlier run; a build may take its time.
BUSY_TIMEOUT = 600
#: What is read of one line of a container's log.
LOG_LINE_BYTES = 1024 * 1024

_BUSY = (
    f"{{ flock -w {BUSY_TIMEOUT} 8 || "
    "{ echo 'a command of an earlier run is still at work here' >&2; exit 75; }; }"
)

#: Seconds that a command has beyond that: one that pulls or builds, and any other.
IMAGE_LIMIT = 4 * 3600
LIMIT = 600

#: Seconds that a fetch may take, and for which nothing may come meanwhile; and what goes before
#: what it brings.
FETCH_LIMIT, IDLE_LIMIT = 1800, 120
FETCHING = b"fetching\n"

#: Waits until no command of an earlier run changes the project, as all of
#: :func:`run_exclusively` do.
IDLE = StringCommand("true")

#: Bytes of an archive that decide whether it is packed.
PACKED_SAMPLE = 256 * 1024

#: The digests of the project's files among those that Compose is asked about.
DIGESTS = ".stackmend.wanted"


def locate_state(spec: ComposeSpec) -> str:
    """Where this project's memory lies on the host."""
    return f"{STATE_ROOT}/{spec.project}"


def locate_staging(spec: ComposeSpec) -> str:
    """Where the new files are a tree, for Compose to pull and build from."""
    return f"{locate_state(spec)}/staged/tree"


def run_exclusively(spec: ComposeSpec, command: StringCommand) -> StringCommand:
    """A command that changes the project, and that is known to be at work for as long as it is.

    The lock of a run ends with its controller; a command that it had begun goes on, although nobody
    reads what it writes. All that the command starts holds this second lock with it.
    """
    state = QuoteString(locate_state(spec))
    busy = QuoteString(f"{locate_state(spec)}/busy")
    begin = StringCommand("trap '' HUP PIPE;", "mkdir -p -m 700 --", state, "&& exec 8>>", busy)
    return StringCommand("{", begin, "&&", _BUSY, "&&", command, "; }")


def compose(
    spec: ComposeSpec, files: Sequence[str], *arguments: str, directory: str = ""
) -> StringCommand:
    """A ``docker compose`` command for the project, as one would type it in its directory.

    :param files: what names its files, of :func:`stackmend.compose.source.Source.options`.
    """
    options = (*files, *_list_profiles(spec))
    return StringCommand(
        "cd",
        QuoteString(directory or spec.directory),
        "&&",
        _quote("docker", "compose", "--ansi", "never", "-p", spec.project, *options, *arguments),
    )


def resolve(spec: ComposeSpec, files: Sequence[str], mark: str) -> StringCommand:
    """Let Compose say what the files mean; nothing stays on the host.

    Standard input is the mark of the answer, one line, and then the files as a tar archive.
    """
    arguments = (spec.project, spec.directory, str(MAXIMUM_BYTES), *files, *_list_profiles(spec))
    return script(
        "stackmend.compose",
        "resolve",
        *arguments,
        mark=mark,
        fed=True,
        before=["images"],
        shared=["walk"],
    )


def make_resolve_archive(files: Source, digests: Mapping[str, str]) -> bytes:
    """What :func:`resolve` reads: files, and the digests of those that are to lie on the host."""
    lines = _format_lines(f"{digest}  {path}" for path, digest in sorted(digests.items()))
    return files.make_archive({DIGESTS: File(0o600, lines.encode())})


def read_git(spec: ComposeSpec, source: GitSource, how: str, *arguments: str) -> StringCommand:
    """Print a server's refs (``list``), or the files of a commit as a packed archive (``tree``).

    Standard input is its login: :func:`add_login`.
    """
    scheme = source.url.partition("://")[0] if "://" in source.url else "ssh"
    # A server may send us on to where all is encrypted.
    protocols = "http:https" if scheme == "http" else scheme
    words = (source.url, protocols, source.origin, how, *arguments)
    return _build_script("git", *words)


def read_tree(spec: ComposeSpec, source: GitSource, ref: str, commit: str) -> StringCommand:
    """The same of a commit: kept on the host where it was proven, else fetched.

    :data:`FETCHING` goes before what is fetched.
    """
    kept = f"{locate_state(spec)}/checkout"
    limits = (str(FETCH_LIMIT), str(IDLE_LIMIT))
    words = ("tree", ref, commit, source.path, str(MAXIMUM_ARCHIVE), kept, *limits)
    return read_git(spec, source, *words)


def add_login(source: GitSource, command: StringCommand) -> StringCommand:
    """A command with the user and the password, a line each, as its input."""
    words = (
        # Hidden words go by the input, never as arguments.
        QuoteString(HiddenValue(word) if word in source.secrets else word)  # type: ignore[no-untyped-call]
        for word in source.login or ("", "")
    )
    return StringCommand("printf", "'%s\\n'", *words, "|", command)


def hash_outside(paths: Sequence[str]) -> StringCommand:
    """Print the digest of each path, one a line; "-" where it is no regular file up to 1 MiB."""
    text = (
        'for path; do sum=-; [ -f "$path" ] && sum=$(timeout 60 sh -c "$0" "$path") || sum=-; '
        'printf "%s\\n" "${sum%% *}"; done'
    )
    # Whoever opens a FIFO waits.
    single = '[ "$(wc -c <"$0")" -le 1048576 ] && exec sha256sum <"$0"'
    return StringCommand(
        "sh", "-c", QuoteString(text), QuoteString(single), *map(QuoteString, paths)
    )


def measure_free(spec: ComposeSpec) -> StringCommand:
    """Print "KiB|path" of what is free where images, files and records live."""
    return script("stackmend.compose", "free", spec.directory, shared=["failed", "frame"])


def read_surroundings(paths: Iterable[str], mark: str) -> StringCommand:
    """Print what new networks and containers have to fit in, and which of these paths are absent.

    :param mark: that of the answer's sections.
    """
    return script("stackmend.compose", "surroundings", *paths, mark=mark)


def stage(
    spec: ComposeSpec, files: Source, *, unpacked: bool = False
) -> tuple[StringCommand, bytes]:
    """Take files into the staging directory; the second value is for its standard input.

    :param unpacked: whether Compose is to pull or build from them before they are in place.
    """
    archive = _pack(files)
    # Most of an archive of small files is padding; what is packed already stays as it is.
    sample = archive[:PACKED_SAMPLE]
    how = "packed" if len(zlib.compress(sample, 1)) < 0.7 * len(sample) else ""
    words = (locate_state(spec), how, "unpacked" if unpacked else "", files.digest)
    command = script("stackmend.compose", "stage", *words, shared=["walk"])
    return command, gzip.compress(archive, 1, mtime=0) if how else archive


def _pack(files: Source) -> bytes:
    """Files as the host keeps them: an archive for each directory, and lists of what is in them.

    So each directory's files can be unpacked straight into it, by names without a slash.
    """
    ordered = sorted(files.files.items(), key=lambda pair: pair[0].encode())
    directories: dict[str, dict[str, File]] = {}
    for path, file in ordered:
        parent, slash, name = path.rpartition("/")
        directories.setdefault(slash + parent, {})[name] = file
    parts = {
        "files": _format_lines(f"{file.sha256}  {path}" for path, file in ordered).encode(),
        "modes": _format_lines(f"{stat.S_IFREG | file.mode:x}" for _, file in ordered).encode(),
        "directories": _format_lines(
            f"{number} {len(inside)} {directory}"
            for number, (directory, inside) in enumerate(directories.items())
        ).encode(),
        **{
            f"{number}.tar": Source(inside).make_archive()
            for number, inside in enumerate(directories.values())
        },
    }
    return Source({name: File(0o600, content) for name, content in parts.items()}).make_archive()


def discard_staged(spec: ComposeSpec) -> StringCommand:
    """Remove what was taken into the staging directory."""
    state = locate_state(spec)
    return _quote("rm", "-rf", "--", f"{state}/staged", f"{state}/staged.new")


def install(spec: ComposeSpec, action: InstallFiles, generation: str) -> StringCommand:
    """Put the staged files in place, keeping what was there."""
    return _install(spec, "staged", generation, action.subject, action.removed)


def restore(spec: ComposeSpec, action: RestoreFiles) -> StringCommand:
    """Put back the files that were proven, and remove those that came after."""
    return _install(spec, f"good-{action.source}", "failed", action.subject, action.removed)


def _install(
    spec: ComposeSpec, tree: str, generation: str, directory: str, removed: Sequence[str]
) -> StringCommand:
    arguments = (locate_state(spec), tree, generation, directory, str(MAXIMUM_BYTES), *removed)
    return script("stackmend.compose", "install", *arguments, shared=["walk"])


def mark_stale(spec: ComposeSpec, names: Iterable[str]) -> StringCommand:
    """Record services that run on other files than those in place, until they are recreated."""
    return script("stackmend.compose", "stale", locate_state(spec), "add", *names, shared=["walk"])


def clear_stale(spec: ComposeSpec, names: Iterable[str] = ()) -> StringCommand:
    """Take services off that list; all of them, where none is named."""
    return script("stackmend.compose", "stale", locate_state(spec), "drop", *names, shared=["walk"])


def record(spec: ComposeSpec, digest: str) -> StringCommand:
    """Make the record on standard input the one that counts."""
    arguments = (locate_state(spec), digest, spec.directory, str(MAXIMUM_BYTES))
    return script("stackmend.compose", "remember", *arguments, shared=["walk"])


def make_record_archive(applied: Applied, packed: bytes = b"") -> bytes:
    """The record, and the lists that the probe reads instead of JSON, as a tar archive.

    :param packed: the files of its commit, which the host is to keep.
    """
    images = sorted({service.image for service in applied.services.values() if service.image})
    parts = {
        "applied.json": applied.model_dump_json(),
        "files": _format_lines(applied.files),
        "digests": _format_lines(f"{digest}  {path}" for path, digest in applied.files.items()),
        "outside": _format_lines(path.removeprefix("/") for path in applied.outside),
        "images": _format_lines(images),
    }
    contents = {name: text.encode() for name, text in parts.items()}
    if applied.checkout is not None and packed:
        key = f"{applied.checkout.commit} {applied.checkout.path}\n"
        contents["checkout"] = key.encode() + packed
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in contents.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o600
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def write_layer(spec: ComposeSpec, content: str) -> StringCommand:
    """Make what is on standard input the file that is laid over the project's own; or remove it.

    :param content: the same; empty for no such file.
    """
    return write_own(f"{locate_state(spec)}/layer.yaml", present=bool(content))


def record_mend(spec: ComposeSpec, verb: str, subject: str) -> StringCommand:
    """Record an attempt, by the host's own clock, so that attempts can be counted."""
    line = f"{verb} {subject}"
    return script("stackmend.compose", "mended", locate_state(spec), line, shared=["walk"])


def fetch_image(
    spec: ComposeSpec, files: Sequence[str], action: Pull | Build, directory: str
) -> StringCommand:
    """Have an image on the host: pulled, or built; a foreign one of its name is kept.

    :param directory: where the project's files are.
    """
    # Of a build that fails, its last step says why.
    words = ("build",) if isinstance(action, Build) else ("pull", "--quiet")
    command = compose(spec, files, *words, "--", action.subject, directory=directory)
    if isinstance(action, Build) and action.keep is not None:
        return StringCommand(tag(action.keep), "&&", command)
    return command


def check_mounts(spec: ComposeSpec, paths: Iterable[str]) -> StringCommand | None:
    """Fail where the engine would follow a link on the way to what is mounted.

    :param paths: absolute, of all containers of the project; those outside of its directory are
        their owner's business.
    """
    inside = f"{spec.directory}/"
    below = sorted(
        path.removeprefix(inside) if path != spec.directory else "."
        for path in set(paths)
        if path == spec.directory or (path.startswith(inside) and is_plain(path))
    )
    if not below:
        return None
    return script("stackmend.compose", "within", spec.directory, *below, shared=["walk"])


def _guard(check: StringCommand | None, *commands: StringCommand) -> StringCommand:
    """The commands, each only where the check passes before it."""
    before = () if check is None else (check, "&&")
    first, *others = commands
    words = [*before, first, *(word for other in others for word in ("&&", *before, other))]
    return StringCommand(*words)


def build_up(
    spec: ComposeSpec,
    files: Sequence[str],
    names: Iterable[str],
    *,
    recreate: bool,
    mounted: Iterable[str] = (),
) -> StringCommand:
    """Create what is missing of these services and nothing else.

    :param recreate: whether all their containers are replaced.
    :param mounted: what services of the project mount from the host. Where a link stands in the way
        to it afterwards, these are stopped.
    """
    names = tuple(names)
    check = check_mounts(spec, mounted)
    never = ("--no-build", "--pull", "never")
    # COMPOSE_REMOVE_ORPHANS, in a project's .env too, would end whatever else bears our labels.
    kept = ("--remove-orphans=false",)
    # `up --no-deps` alone would forget depends_on before it compares: Compose 2.26 then takes every
    # dependant for changed, ours as well as those that somebody started by hand. `create` keeps
    # what they depend on as it is, and starts nothing.
    made = _guard(
        check,
        compose(
            spec, files, "create", *never, *(["--force-recreate"] if recreate else []), "--", *names
        ),
        compose(
            spec, files, "up", "--detach", "--no-deps", "--no-recreate", *kept, *never, "--", *names
        ),
    )
    if check is None:
        return StringCommand(made, "&&", clear_stale(spec, names))
    stop = compose(spec, files, "stop", "--", *names)
    return StringCommand(
        *(made, "&&", "{", check, "||", "{", stop, ">/dev/null 2>&1;", "false;", "};", "}"),
        *("&&", clear_stale(spec, names)),
    )


def act(spec: ComposeSpec, action: EngineAction, state: StackState) -> StringCommand:
    """The command of an action that is done to one container or network."""
    match action:
        case SetAside(container=id_):
            return _build_script("aside", spec.project, id_, f"{id_}-set-aside")
        case Disconnect(container=id_, network=network) | Detach(container=id_, network=network):
            return _quote("docker", "network", "disconnect", network, id_)
        case Attach(container=id_, network=network):
            options = [word for alias in action.aliases for word in ("--alias", alias)]
            options += ["--ip", action.address] if action.address else []
            connect = _quote("docker", "network", "connect", *options, network, id_)
            # Attached with other names it has to be let go first; detached, this says so.
            attached = any(
                container.id == id_ and network in container.endpoints
                for container in state.containers
            )
            if not attached:
                return connect
            return StringCommand(
                _quote("docker", "network", "disconnect", network, id_), "&&", connect
            )
        case Unpause(container=id_):
            return _quote("docker", "unpause", id_)
        case Resume(container=id_):
            return _quote("docker", "kill", "--signal=CONT", id_)
        case SetPolicy(container=id_, policy=policy):
            return _quote("docker", "update", f"--restart={policy}", id_)
        case Start(container=id_) | Restart(container=id_):
            return _guard(_check_container_mounts(spec, state), _quote("docker", action.verb, id_))
        case Repair(container=id_):
            return _build_script("repair", id_)
        case Remove(container=id_) | RemoveLeftover(container=id_):
            return remove(id_)
        case Rename(container=id_, name=name):
            return _quote("docker", "rename", id_, name)
        case RemoveNetwork(subject=network):
            ends = [
                ["docker", "network", "disconnect", "--force", network, container.id]
                for container in state.containers
                if network in container.endpoints
            ]
            return _join(*ends, ["docker", "network", "rm", network])


def _check_container_mounts(spec: ComposeSpec, state: StackState) -> StringCommand | None:
    list_mounts = (
        mount
        for container in state.containers
        for mount in (container.shape.get("volumes") or {}).values()
    )
    return check_mounts(spec, (str(m["source"]) for m in list_mounts if m.get("type") == "bind"))


def tag(named: Tag) -> StringCommand:
    """Give an image a name, whatever has it now."""
    return _quote("docker", "tag", named.image_id, named.name)


def remove(container: str) -> StringCommand:
    """End one container; its volumes are kept."""
    return _join(["docker", "stop", container], ["docker", "rm", container])


def read_logs(container: str, lines: int, since: float = 0) -> StringCommand:
    """The last lines a container wrote; of a line a megabyte at most.

    :param since: seconds since the epoch before which they do not count.
    """
    begin = ("--since", f"{since:.6f}") if since > 0 else ()
    command = _quote("docker", "logs", "--tail", str(lines), *begin, container)
    return StringCommand(command, "2>&1", "|", _quote("cut", "-b", f"1-{LOG_LINE_BYTES}"))


def read_ends(container: str) -> StringCommand:
    """Print how a container ended of late, `die "CODE"` or `oom` a line, the last one last."""
    return _quote(
        *("docker", "events", "--since", "15m", "--until", "0s"),
        *("--filter", f"container={container}", "--filter", "event=die", "--filter", "event=oom"),
        *("--format", '{{.Action}} {{json (index .Actor.Attributes "exitCode")}}'),
    )


def _build_script(name: str, *arguments: str) -> StringCommand:
    return script("stackmend.compose", name, *arguments)


def _list_profiles(spec: ComposeSpec) -> list[str]:
    return [word for profile in spec.profiles for word in ("--profile", profile)]


def _quote(*words: str) -> StringCommand:
    return StringCommand(*(QuoteString(word) for word in words))


def _join(*commands: Sequence[str]) -> StringCommand:
    joined: list[object] = []
    for command in commands:
        joined += ["&&", _quote(*command)] if joined else [_quote(*command)]
    return StringCommand(*joined)


def _format_lines(items: Iterable[str] | Mapping[str, str]) -> str:
    return "".join(f"{item}\n" for item in items)
