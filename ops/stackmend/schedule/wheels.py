"""The wheels of a host that mends itself: stackmend's own, and those that it was locked with."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import importlib.util
import io
import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

from stackmend import controller_files, get_deploy_directory
from stackmend.errors import StepError
from stackmend.schedule.state import HostSchedule

#: Seconds that pip has to download them.
LIMIT = 600

#: Bytes of one wheel, and files of the package.
MAXIMUM_WHEEL = 64 * 1024**2
MAXIMUM_FILES = 5000

#: Directories of the package that are no part of the program.
_LEFT_OUT = frozenset({"__pycache__"})

_GLIBC = re.compile(r"(?i)g(?:nu )?libc[^0-9]*.*?\b2\.([0-9]{1,3})\b")
_MUSL = re.compile(r"(?i)musl.*?\b1\.([0-9]{1,3})\.")


#: pip downloads for one kind of hosts at a time.
_downloading = threading.Lock()


@lru_cache(maxsize=1)
def make_wheel() -> tuple[str, bytes]:
    """The wheel of this very stackmend, whether it came as one or is a checkout: name and content.

    The same files give the same bytes.
    """
    version = importlib.metadata.version("stackmend")
    info = f"stackmend-{version}.dist-info"
    rows: list[tuple[str, bytes]] = list(_list_package())
    distribution = importlib.metadata.distribution("stackmend")
    for name in ("METADATA", "entry_points.txt"):
        rows.append((f"{info}/{name}", (distribution.read_text(name) or "").encode()))
    tag = "py3-none-any"
    wheel = f"Wheel-Version: 1.0\nGenerator: stackmend\nRoot-Is-Purelib: true\nTag: {tag}\n"
    rows.append((f"{info}/WHEEL", wheel.encode()))
    record = "".join(f"{path},sha256={_hash(data)},{len(data)}\n" for path, data in rows)
    rows.append((f"{info}/RECORD", f"{record}{info}/RECORD,,\n".encode()))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in rows:
            entry = zipfile.ZipInfo(path, (2020, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return f"stackmend-{version}-{tag}.whl", buffer.getvalue()


def _list_package() -> Iterator[tuple[str, bytes]]:
    package = Path(__file__).resolve().parents[1]
    deploys = get_deploy_directory()
    roots = [(package, "stackmend")]
    if not deploys.is_relative_to(package):
        roots.append((deploys, "stackmend/deploy"))
    for root, name in roots:
        found = controller_files.walk_tree(root, _LEFT_OUT, MAXIMUM_FILES)
        for path, entry in sorted((path, entry.is_file()) for path, entry in found):
            if entry and not path.endswith((".pyc", ".so")):
                yield f"{name}/{path}", controller_files.read(root / path, MAXIMUM_WHEEL)


def _hash(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")


@lru_cache(maxsize=2)
def read_requirements(notify: bool = False) -> str:
    """What the program rests on, each with its version and the hashes of its files.

    :param notify: whether with what sends messages.
    """
    names = ("requirements.txt", *(("requirements-notify.txt",) if notify else ()))
    place = files("stackmend.schedule")
    return "".join((place / name).read_text(encoding="utf-8") for name in names)


@lru_cache(maxsize=2)
def find_program(notify: bool = False) -> str:
    """One digest over stackmend and all that it rests on.

    :param notify: as for :func:`read_requirements`.
    """
    total = hashlib.sha256(read_requirements(notify).encode())
    for path, data in _list_package():
        total.update(f"{path} {len(data)}\n".encode() + data)
    return total.hexdigest()[:16]


def find_platforms(state: HostSchedule) -> tuple[str, ...]:
    """The platforms that wheels of a host may be for, by pip's names.

    :param state: what the host has.
    """
    machine = state.machine
    if match := _GLIBC.search(state.library):
        newer = tuple(f"manylinux_2_{minor}_{machine}" for minor in range(int(match[1]), 16, -1))
        old = ("manylinux2014", "manylinux2010", "manylinux1")
        return (*newer, *(f"{name}_{machine}" for name in old), f"linux_{machine}")
    if match := _MUSL.search(state.library):
        return tuple(f"musllinux_1_{minor}_{machine}" for minor in range(int(match[1]), -1, -1))
    return ()


def collect(
    state: HostSchedule, tag: str, directory: Path | None, *, notify: bool = False
) -> dict[str, bytes]:
    """The wheels that a host needs and what pip is to install of them, by their names.

    :param state: what the host has.
    :param tag: what its Python takes, such as ``cp311``.
    :param directory: where they lie on this machine; pip downloads them once without it.
    :param notify: as for :func:`read_requirements`.
    :raises StepError: one is missing, or cannot be downloaded.
    """
    name, wheel = make_wheel()
    if directory is None:
        directory = _download(state, tag, read_requirements(notify))
    found = {name: wheel}
    try:
        paths = sorted(controller_files.expand(directory).glob("*.whl"))
        for path in paths:
            if not path.name.startswith("stackmend-"):
                found[path.name] = controller_files.read(path, MAXIMUM_WHEEL)
    except (controller_files.Unreadable, OSError) as error:
        raise StepError(f"the wheels in {directory} cannot be read: {error}") from None
    if not any(each.startswith("pip-") for each in found):
        place = files("stackmend.schedule")
        more = f" -r {place / 'requirements-notify.txt'}" if notify else ""
        raise StepError(
            f"no wheels in {directory}: fill it with `pip download --only-binary :all: "
            f"--require-hashes -r {place / 'requirements.txt'}{more}` for the host"
        )
    digest = hashlib.sha256(wheel).hexdigest()
    own = f"stackmend=={name.split('-')[1]} --hash=sha256:{digest}\n"
    found["requirements.txt"] = (read_requirements(notify) + own).encode()
    return found


def find_cache(user: str = "") -> Path:
    """Where this machine keeps what pip has downloaded.

    :param user: whose cache it is; that of this run's user by default.
    """
    own = pwd.getpwuid(os.geteuid()).pw_name
    chosen = os.environ.get("XDG_CACHE_HOME") if user in ("", own) else None
    return Path(chosen or f"~{user}/.cache").expanduser() / "stackmend/wheels"


def _download(state: HostSchedule, tag: str, requirements: str) -> Path:
    """The directory of this machine that has the wheels for a kind of hosts."""
    platforms = find_platforms(state)
    if not platforms:
        raise StepError(
            f"no wheels are known for {state.library or 'its C library'} on {state.machine}: name "
            'a directory of wheels as "wheels" in the stack\'s "schedule" section'
        )
    kind = f"{tag}-{platforms[0]}-{hashlib.sha256(requirements.encode()).hexdigest()[:12]}"
    target = find_cache() / kind
    with _downloading:
        if not target.is_dir():
            _fill(target, tag, platforms, requirements)
    return target


def _fill(target: Path, tag: str, platforms: Sequence[str], requirements: str) -> None:
    cache = target.parent
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".") as name:
            partial = Path(name) / "wheels"
            (Path(name) / "requirements.txt").write_text(requirements, encoding="utf-8")
            _run_pip(
                name,
                *("download", "--quiet", "--no-deps", "--require-hashes"),
                *("--only-binary", ":all:", "--implementation", "cp"),
                *("--python-version", f"{tag[2]}.{tag[3:]}", "--dest", str(partial)),
                *(f"--platform={platform}" for platform in platforms),
                *("--requirement", str(Path(name) / "requirements.txt")),
            )
            if not target.exists():
                shutil.move(partial, target)
    except OSError as error:
        raise StepError(f"the wheels cannot be kept in {cache}: {error.strerror}") from None


def _run_pip(scratch: str, *words: str) -> None:
    if importlib.util.find_spec("pip") is None:
        raise StepError(
            f"no pip beside stackmend in {sys.prefix}: install it there, or name a directory of "
            'wheels as "wheels" in the stack\'s "schedule" section'
        )
    command: Sequence[str] = (sys.executable, "-m", "pip", *words)
    try:
        done = subprocess.run(  # noqa: S603 - arguments of our own
            command,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
            # A confined run may have no other place to write to.
            env={**os.environ, "TMPDIR": scratch},
        )
    except subprocess.TimeoutExpired:
        raise StepError(f"pip did not download the wheels within {LIMIT} s") from None
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise StepError(
            "pip cannot download the wheels of the host: "
            + ("; ".join(lines[-3:]) or f"exit status {done.returncode}")
        )
