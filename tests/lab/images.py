"""The lab's images: a catalogue, and a builder that rebuilds only what changed.

An image is a directory with a plain Dockerfile. Its outer tag carries the hash of everything that
went into it (files, build arguments, parents, wheels), so an image that exists is up to date.

To add an image, add a line to `CATALOGUE`. ``Image(..., inner=True)`` is also loaded into every
managed host, under the name it has here.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path

from tests.lab.engine import SBIN, LabUnavailable, OuterCommandError, docker, install, outer
from tests.lab.paths import HOME_LABEL, IMAGE_TARS, LABEL, LOCKS, PROJECT, WHEELS, locked

HERE = Path(__file__).parent / "images"
BASE = "lab/base"

#: The images that all others are made from: their suite, and what a hub calls the same.
BASES = {BASE: ("bookworm", "debian:12"), "lab/base-13": ("trixie", "debian:13")}


@dataclass(frozen=True)
class Image:
    """One image of the lab.

    + directory: where its Dockerfile and the files it copies are
    + args: build arguments; a value ``@name`` becomes the reference of that image of the catalogue
        and makes it a parent
    + wheels: requirements whose wheels are put into the context as ``wheels/``, fetched on the
        outer machine, since a build has neither its pip settings nor its certificates
    + inner: loaded into every managed host
    + dockerfile: its name within `directory`
    """

    directory: Path
    args: Mapping[str, str] = field(default_factory=dict)
    wheels: tuple[str, ...] = ()
    inner: bool = False
    dockerfile: str = "Dockerfile"

    @property
    def parents(self) -> list[str]:
        return [value[1:] for value in self.args.values() if value.startswith("@")]


STACK = PROJECT / "deploy" / "stacks" / "ai"


def pinned(*requirements: Path) -> tuple[str, ...]:
    """The `name==version` lines of requirements files, for every Python and platform they name."""
    lines = (line for file in requirements for line in file.read_text().splitlines())
    found = (re.match(r"[A-Za-z0-9._-]+==[^\s;]+", line) for line in lines)
    return tuple(sorted({match[0] for match in found if match}))


CATALOGUE: dict[str, Image] = {
    "bare": Image(HERE / "bare", {"BASE": f"@{BASE}"}),
    "trixie": Image(HERE / "bare", {"BASE": "@lab/base-13"}),
    "managed": Image(HERE / "managed", {"BASE": "@bare"}),
    "names": Image(HERE / "names", {"BASE": "@bare"}),
    "packages": Image(HERE / "packages", {"BASE": "@lab/base-13"}),
    "registry": Image(HERE / "registry", {"BASE": f"@{BASE}"}),
    "lab/box:1": Image(HERE / "box", {"BASE": f"@{BASE}", "VERSION": "1"}, inner=True),
    "lab/box:2": Image(HERE / "box", {"BASE": f"@{BASE}", "VERSION": "2"}, inner=True),
    "lab/redis:7": Image(HERE / "redis", {"BASE": f"@{BASE}"}, inner=True),
    "lab/python:3.11": Image(
        HERE / "python",
        {"BASE": f"@{BASE}"},
        wheels=pinned(STACK / "api/requirements.txt", STACK / "worker/requirements.txt"),
        inner=True,
    ),
    "lab/model:1": Image(
        HERE / "model",
        {"PYTHON_IMAGE": "@lab/python:3.11"},
        wheels=pinned(HERE / "model/requirements.txt", HERE / "model/requirements-build.txt"),
        inner=True,
    ),
    # Loaded by the tests that need it: `host.load_images("lab/legacy:1")`.
    "lab/legacy:1": Image(HERE / "legacy", {"MODEL_IMAGE": "@lab/model:1"}),
    "model-registry": Image(HERE / "model-registry", {"MODEL_IMAGE": "@lab/model:1"}),
    "stackmend/api:lab": Image(
        STACK, {"PYTHON_IMAGE": "@lab/python:3.11"}, inner=True, dockerfile="api/Dockerfile"
    ),
    "stackmend/worker:lab": Image(
        STACK, {"PYTHON_IMAGE": "@lab/python:3.11"}, inner=True, dockerfile="worker/Dockerfile"
    ),
}


def reference(name: str) -> str:
    """The outer engine's reference of an image: its name and the hash of its inputs."""
    slug = name.replace("/", "-").replace(":", "-")
    return f"stackmend-lab/{slug}:{_digest(name)}"


def build(names: Iterable[str]) -> dict[str, str]:
    """Build the named images and their parents where they are missing; return name → reference.

    Raises `LabUnavailable` when the base cannot be had, `OuterCommandError` when a build fails.
    """
    wanted = list(names)
    parents = {name: _parents(name) for name in _closure(wanted)}
    awaited = set().union(*parents.values())
    graph = TopologicalSorter(parents)
    graph.prepare()
    building: dict[Future[None], str] = {}
    with ThreadPoolExecutor(max(2, os.cpu_count() or 2) + 1) as pool:
        while graph.is_active():
            # First what others are made from.
            ready = sorted(graph.get_ready(), key=lambda name: name not in awaited)
            building |= {pool.submit(_build_image, name): name for name in ready}
            for built in wait(building, return_when=FIRST_COMPLETED).done:
                built.result()
                graph.done(building.pop(built))
    return {name: reference(name) for name in wanted}


def inner_names() -> list[str]:
    """The images that every managed host carries."""
    return [BASE, *(name for name, image in CATALOGUE.items() if image.inner)]


def tar(name: str) -> Path:
    """A tar of the image for ``docker load``, written once per content; builds the image first."""
    ref = build([name])[name]
    path = IMAGE_TARS / f"{ref.rpartition('/')[2].replace(':', '-')}.tar"
    if not path.exists():
        IMAGE_TARS.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        docker("save", "-o", str(part), ref, timeout=300)
        part.chmod(0o644)
        part.rename(path)
        for older in IMAGE_TARS.glob(f"{path.name.rpartition('-')[0]}-????????????.tar"):
            if older != path:
                older.unlink(missing_ok=True)
    return path


def _parents(name: str) -> set[str]:
    return set(CATALOGUE[name].parents) if name in CATALOGUE else set()


def _closure(names: Iterable[str]) -> list[str]:
    found: list[str] = []
    queue = list(names)
    while queue:
        name = queue.pop()
        if name not in found:
            found.append(name)
            queue.extend(_parents(name))
    return found


def _digest(name: str) -> str:
    known = hashlib.sha256()
    if name in BASES:
        known.update(BASES[name][0].encode())
        return known.hexdigest()[:12]
    image = CATALOGUE[name]
    for path in _context_files(image.directory):
        mode = path.stat().st_mode & 0o777
        known.update(f"{path.relative_to(image.directory)}\0{mode:o}\0".encode())
        known.update(hashlib.sha256(path.read_bytes()).digest())
    known.update(repr((image.dockerfile, sorted(image.args.items()), image.wheels)).encode())
    for parent in image.parents:
        known.update(_digest(parent).encode())
    return known.hexdigest()[:12]


def _context_files(directory: Path) -> list[Path]:
    return sorted(
        path
        for path in directory.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    )


def _exists(ref: str) -> bool:
    return outer("docker", "image", "inspect", ref, check=False).returncode == 0


def _build_image(name: str) -> None:
    ref = reference(name)
    if _exists(ref):
        return
    with locked(LOCKS / f"image-{ref.rpartition('/')[2]}"):
        if _exists(ref):
            return
        print(f"lab: building {name}", file=sys.stderr, flush=True)
        if name in BASES:
            _build_base(ref, *BASES[name])
        else:
            _build_from_dockerfile(name, ref)
    _remove_older(ref)


def _labels() -> list[str]:
    return ["--label", LABEL, "--label", f"{HOME_LABEL}={PROJECT}"]


def _build_from_dockerfile(name: str, ref: str) -> None:
    image = CATALOGUE[name]
    with tempfile.TemporaryDirectory(prefix="stackmend-lab-") as scratch:
        context = Path(scratch) / "context"
        context.mkdir()
        for path in _context_files(image.directory):
            target = context / path.relative_to(image.directory)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        if image.wheels:
            _fetch_wheels(name, image.wheels, context / "wheels")
        args = [
            part
            for key, value in image.args.items()
            for part in ("--build-arg", f"{key}={_resolved(value)}")
        ]
        modern = outer("docker", "buildx", "version", check=False).returncode == 0
        # The host's network: the bridge of an engine that we started may have no way out.
        outer(
            "docker",
            "build",
            "--network",
            "host",
            *([] if modern else ["--force-rm"]),
            *_labels(),
            *args,
            "-f",
            str(context / image.dockerfile),
            "-t",
            ref,
            str(context),
            timeout=900,
            env=None if modern else {"DOCKER_BUILDKIT": "0"},
        )


def _resolved(value: str) -> str:
    return reference(value[1:]) if value.startswith("@") else value


def _fetch_wheels(name: str, requirements: tuple[str, ...], into: Path) -> None:
    """Download wheels for the image's Python 3.11 with this machine's own pip settings."""
    key = hashlib.sha256(repr(requirements).encode()).hexdigest()[:12]
    cache = WHEELS / key
    if not cache.exists():
        part = WHEELS / f"{key}.{os.getpid()}"
        outer(
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--disable-pip-version-check",
            "--only-binary",
            ":all:",
            "--python-version",
            "3.11",
            "--implementation",
            "cp",
            "--dest",
            str(part),
            *requirements,
            timeout=600,
        )
        part.rename(cache)
    shutil.copytree(cache, into)


def _build_base(ref: str, suite: str, hub: str) -> None:
    """Debian from the hub if it can be reached, else by debootstrap from the apt mirror."""
    try:
        outer("docker", "pull", "-q", hub, timeout=180)
    except OuterCommandError as error:
        _debootstrap(ref, suite, f"no {hub} from a hub, and not root for debootstrap: {error}")
        return
    dockerfile = f"FROM {hub}\nRUN {_TRIM}\n"
    docker("build", *_labels(), "-t", ref, "-", stdin=dockerfile.encode(), timeout=300)


_TRIM = (
    "printf '%s\\n' 'path-exclude /usr/share/doc/*' 'path-exclude /usr/share/man/*'"
    " 'path-exclude /usr/share/locale/*' 'path-exclude /usr/share/info/*'"
    " > /etc/dpkg/dpkg.cfg.d/lab"
    " && printf '%s\\n' 'Dir::Cache::pkgcache \"\";' 'Dir::Cache::srcpkgcache \"\";'"
    " > /etc/apt/apt.conf.d/99lab"
    " && rm -rf /usr/share/doc/* /usr/share/man/* /usr/share/locale/* /usr/share/info/*"
    " /var/cache/apt/archives/*.deb /var/cache/apt/*.bin /var/lib/apt/lists/* /var/log/*.log"
)


def _debootstrap(ref: str, suite: str, why: str) -> None:
    if os.geteuid() != 0:
        raise LabUnavailable(why)
    if shutil.which("debootstrap", path=SBIN) is None:
        install("debootstrap")
    sources = mirrors(suite)
    root = Path(tempfile.mkdtemp(prefix="stackmend-lab-root-", dir="/var/tmp"))
    try:
        outer(
            "debootstrap",
            "--variant=minbase",
            suite,
            str(root),
            *[uri for uri, name in sources if name == suite][:1],
            timeout=900,
        )
        if sources:
            lines = [f"deb {uri} {name} main\n" for uri, name in sources]
            (root / "etc/apt/sources.list").write_text("".join(lines))
        (root / "etc/apt/apt.conf.d/99lab-proxy").write_text(_apt_proxy())
        outer("chroot", str(root), "sh", "-c", _TRIM)
        with tempfile.NamedTemporaryFile(prefix="stackmend-lab-", suffix=".tar") as packed:
            outer("tar", "--numeric-owner", "-C", str(root), "-cf", packed.name, ".", timeout=300)
            changes = [
                "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                'CMD ["/bin/bash"]',
                f"LABEL {LABEL}",
                f"LABEL {HOME_LABEL}={PROJECT}",
            ]
            options = [part for change in changes for part in ("--change", change)]
            docker("import", *options, packed.name, ref, timeout=300)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def mirrors(suite: str) -> list[tuple[str, str]]:
    """(URI, suite) of a Debian in this machine's own apt sources, main archive first.

    A mirror that has the machine's own Debian has the others beside it.
    """
    # apt names its targets only once it has fetched them.
    query = (
        "apt-get",
        "indextargets",
        "--format",
        "$(REPO_URI) $(CODENAME) $(LABEL)",
        "Created-By: Packages",
    )
    listed = outer(*query).stdout.decode()
    if not listed:
        outer("apt-get", "update", "-q", timeout=300)
        listed = outer(*query).stdout.decode()
    own = "bookworm"
    rows: list[tuple[str, str]] = []
    for line in listed.splitlines():
        uri, name, *label = line.split()
        if name.startswith(own) and " ".join(label).startswith("Debian"):
            rows.append((uri, name.replace(own, suite, 1)))
    rows.sort(key=lambda row: row[1] != suite)
    return list(dict.fromkeys(rows))


def _apt_proxy() -> str:
    """The machine's own apt proxy settings, which the images' builds need just as much."""
    dumped = outer("apt-config", "dump", check=False).stdout.decode()
    wanted = ("Acquire::http::Proxy", "Acquire::https::Proxy")
    return "".join(f"{line}\n" for line in dumped.splitlines() if line.startswith(wanted))


def _remove_older(ref: str) -> None:
    """Remove this checkout's superseded builds of the same image; those in use stay."""
    repository = ref.rpartition(":")[0]
    listed = docker(
        "image",
        "ls",
        "--filter",
        f"label={HOME_LABEL}={PROJECT}",
        "--format",
        "{{.Repository}}:{{.Tag}}",
        repository,
    )
    for older in set(listed.split()) - {ref}:
        outer("docker", "image", "rm", older, check=False)
