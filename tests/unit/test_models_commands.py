"""What the models room runs on a host, and what it makes of files and of a server's errors."""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from pyinfra.api import StringCommand

from stackmend.connection.scripts import make_mark, script
from stackmend.errors import StepError
from stackmend.models import commands
from stackmend.models.client import Watchdog, classify_error
from stackmend.models.errors import Full, TransientError
from stackmend.models.modelfiles import (
    ModelSourceProblem,
    build_request,
    check,
    parse_modelfile,
    read_sources,
)
from stackmend.models.progress import Meter, Tally
from stackmend.models.spec import ModelSpec, ModelsPolicy, ModelsSpec, Name
from stackmend.models.state import Place
from tests.unit.models_store import blob_path

STRANGE = ["plain", "with space", "quo'te", 'dou"ble', "$(touch x)", "new\nline", "-n", "*?[a]"]
CONTENT = b"weights " * 1000
DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


def run(command: StringCommand, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["sh", "-c", command.get_raw_value()], input=stdin, capture_output=True)


@pytest.fixture(params=STRANGE)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    directory = tmp_path / request.param
    (directory / "blobs").mkdir(parents=True)
    return Place(path=str(directory), owner=f"{os.getuid()}:{os.getgid()}")


def test_one_blob_is_deleted_and_no_other(place: Place) -> None:
    other = f"sha256:{'0' * 64}"
    for digest in (DIGEST, other):
        blob_path(place, digest).write_bytes(CONTENT)
    assert run(commands.delete_blob(place, DIGEST)).returncode == 0
    assert not blob_path(place, DIGEST).exists()
    assert blob_path(place, other).exists()


def test_a_download_that_was_begun_is_removed_and_no_other(place: Place) -> None:
    blob, other = blob_path(place, DIGEST), blob_path(place, f"sha256:{'0' * 64}")
    for name in (blob, f"{blob}-partial", f"{blob}-partial-0", f"{other}-partial"):
        Path(name).touch()
    assert run(commands.delete_partials(place, DIGEST)).returncode == 0
    assert {str(path) for path in blob.parent.iterdir()} == {str(blob), f"{other}-partial"}


def test_a_relayed_blob_is_resumed_and_put_in_place_only_with_its_own_content(place: Place) -> None:
    assert run(commands.measure_relayed(place, DIGEST)).stdout.strip() == b"0"
    # Only what was cut off in the middle of a write stands behind what stays.
    assert run(commands.take(place, DIGEST, 0), CONTENT[:3000]).returncode == 0
    assert run(commands.measure_relayed(place, DIGEST)).stdout.strip() == b"3000"
    assert run(commands.take(place, DIGEST, 2000), CONTENT[2000:]).returncode == 0
    blob = blob_path(place, DIGEST)
    # What the server itself downloaded of it is no longer needed.
    for name in (f"{blob}-partial", f"{blob}-partial-0"):
        Path(name).touch()
    accepted = run(commands.accept(place, DIGEST))
    assert accepted.returncode == 0, accepted.stderr
    assert blob.read_bytes() == CONTENT
    assert blob.stat().st_mode & 0o777 == 0o644
    assert run(commands.measure_relayed(place, DIGEST)).stdout.strip() == b"complete"
    assert run(commands.give(place, DIGEST, 7990)).stdout == CONTENT[7990:]
    assert [path.name for path in Path(place.path).iterdir()] == ["blobs"]
    assert list(blob.parent.iterdir()) == [blob]


def test_what_a_relay_has_begun_is_removed_and_no_other(place: Place) -> None:
    other = f"sha256:{'0' * 64}"
    for digest in (DIGEST, other):
        run(commands.take(place, digest, 0), CONTENT[:100])
    assert run(commands.delete_relayed(place, DIGEST)).returncode == 0
    assert run(commands.measure_relayed(place, DIGEST)).stdout.strip() == b"0"
    assert run(commands.measure_relayed(place, other)).stdout.strip() == b"100"
    assert run(commands.delete_relayed(place, other)).returncode == 0
    assert [path.name for path in Path(place.path).iterdir()] == ["blobs"]


def test_a_blob_with_another_content_is_thrown_away(place: Place) -> None:
    run(commands.take(place, DIGEST, 0), CONTENT[:-1] + b"X")
    refused = run(commands.accept(place, DIGEST))
    assert refused.returncode == commands.MISMATCH
    assert b"its content has the digest" in refused.stderr
    assert not blob_path(place, DIGEST).exists()
    assert run(commands.measure_relayed(place, DIGEST)).stdout.strip() == b"0"


def test_a_manifest_lies_where_ollama_looks_for_it(place: Place) -> None:
    name = Name.parse("registry.lan:5000/team/tiny:1b")
    assert run(commands.put_manifest(place, name), b'{"layers": []}').returncode == 0
    path = Path(place.path, "manifests", "registry.lan:5000", "team", "tiny", "1b")
    assert path.read_bytes() == b'{"layers": []}'
    assert run(commands.show_manifest(place, name)).stdout == b'{"layers": []}'
    assert sorted(path.name for path in Path(place.path).iterdir()) == ["blobs", "manifests"]


def test_the_record_is_for_root_alone_and_whole(tmp_path: Path) -> None:
    record = tmp_path / "new dir" / "it's.json"
    assert run(commands.write_record(str(record)), b'{"models": {}}').returncode == 0
    assert record.read_bytes() == b'{"models": {}}'
    assert record.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in record.parent.iterdir()] == ["it's.json"]


def test_inside_a_container_the_same_is_done_through_docker() -> None:
    place = Place(path="/root/.ollama/models", container="a;b")
    command = commands.delete_blob(place, DIGEST).get_raw_value()
    assert command.startswith("docker exec -i 'a;b' sh -c ")


@pytest.mark.parametrize(
    ("message", "kind", "expected"),
    [
        ("pull model manifest: file does not exist", StepError, "has no such model"),
        ("pull model manifest: 412: upgrade", StepError, "needs a newer Ollama"),
        ("write /m/blobs/x: no space left on device", Full, "is full"),
        ("pull model manifest: unauthorized: access denied", StepError, "id_ed25519.pub"),
        ("pull model manifest: 403: denied", StepError, "id_ed25519.pub"),
        ("tls: failed to verify certificate: x509", StepError, "certificate"),
        ("digest mismatch, file must be downloaded again: want a, got b", TransientError, "digest"),
        ("max retries exceeded: unexpected EOF", TransientError, "unexpected EOF"),
        ('Get "https://r/v2/": Proxy Authentication Required', StepError, "the proxy"),
        ("unexpected status code 404 Not Found", StepError, "does not have it"),
        ("pull model manifest: 429: slow down", TransientError, "429"),
        ("context canceled", TransientError, "canceled"),
    ],
)
def test_what_cannot_get_better_is_told_from_what_may_pass(
    message: str, kind: type[Exception], expected: str
) -> None:
    error = classify_error(message)
    assert type(error) is kind
    assert expected in str(error)
    assert getattr(error, "wasted", False) == ("mismatch" in message)


def test_a_blob_that_turned_out_wrong_is_named() -> None:
    message = (
        f"digest mismatch, file must be downloaded again: want {DIGEST}, got sha256:{'0' * 64}"
    )
    error = classify_error(message)
    assert isinstance(error, TransientError)
    assert list(error.lost) == [DIGEST]


def test_bytes_that_came_twice_are_counted_twice() -> None:
    tally = Tally()
    tally.start({"a": 100})
    meter = Meter(tally, {"a": 1000, "b": 20})
    meter.update("a", 400, 1000)
    meter.update("a", 0, 1000)
    meter.update("a", 1000, 1000)
    meter.complete()
    assert tally.received == 300 + 1000 + 20
    assert (meter.present, meter.total) == (1020, 1020)


def test_a_blob_that_turned_out_wrong_is_counted_as_often_as_it_came() -> None:
    """Also one so small that the server never named it."""
    tally = Tally()
    meter = Meter(tally, {"a": 1000, "b": 20})
    meter.update("a", 1000, 1000)
    meter.complete()
    meter.restart("b", 0)
    meter.complete()
    assert tally.received == 1000 + 2 * 20


def test_a_blob_that_two_models_share_is_counted_once() -> None:
    """Each hears of it, a little sooner or later than the other."""
    tally = Tally()
    first, other = (Meter(tally, {"a": 1000}) for _ in range(2))
    first.update("a", 300, 1000)
    other.update("a", 250, 1000)
    first.update("a", 600, 1000)
    other.update("a", 500, 1000)
    first.complete()
    other.complete()
    assert tally.received == 1000
    assert (first.present, other.present) == (1000, 1000)


def test_what_was_there_is_not_counted() -> None:
    tally = Tally()
    tally.start({"a": 1000, "b": 5})
    tally.start({"a": 0})
    meter = Meter(tally, {"a": 1000, "b": 20})
    meter.update("a", 1000, 1000)
    meter.complete()
    assert tally.received == 15


def test_a_size_that_the_server_does_not_say_is_that_of_the_manifest() -> None:
    tally = Tally()
    meter = Meter(tally, {"a": 1000}, guess=True)
    meter.update("a", 0, 0)
    meter.complete()
    assert (tally.received, meter.total) == (1000, 1000)


def test_where_nobody_knows_what_was_there_the_servers_first_word_tells() -> None:
    tally = Tally()
    meter = Meter(tally, {}, guess=True)
    meter.update("there", 1000, 1000)
    meter.update("coming", 10, 500)
    meter.update("coming", 500, 500)
    assert tally.received == 500


def test_a_connection_is_cut_after_silence_and_only_then() -> None:
    cut = threading.Event()
    with Watchdog(0.4, cut.set) as watchdog:
        for _ in range(16):
            watchdog.feed()
            assert not cut.wait(0.05)
        assert cut.wait(5)
    assert watchdog.fired


def test_a_modelfile_becomes_what_the_server_is_asked(tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf").write_bytes(CONTENT)
    (tmp_path / "Modelfile").write_text(
        "# a comment\n"
        "FROM ./tiny.gguf\n"
        'TEMPLATE """{{ .System }}\n'
        '{{ .Prompt }}"""\n'
        "PARAMETER temperature 0.5\n"
        "PARAMETER num_ctx 4096\n"
        'PARAMETER stop "<|end|>"\n'
        "PARAMETER stop two\n"
        "SYSTEM You are brief.\n"
        "MESSAGE user Hello\n"
    )
    found = build_request(ModelSpec(name="tiny", modelfile=tmp_path / "Modelfile"))
    assert found.body == {
        "files": {"tiny.gguf": DIGEST},
        "template": "{{ .System }}\n{{ .Prompt }}",
        "parameters": {"temperature": 0.5, "num_ctx": 4096, "stop": ["<|end|>", "two"]},
        "system": "You are brief.",
        "messages": [{"role": "user", "content": "Hello"}],
    }
    assert found.source.files == {DIGEST: len(CONTENT)}


def test_a_modelfile_may_stand_upon_another_model(tmp_path: Path) -> None:
    assert parse_modelfile("from llama3.2:1b\nsystem hi", tmp_path).body == {
        "from": "llama3.2:1b",
        "system": "hi",
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SYSTEM hi", "has no FROM"),
        ("FROM a\nWHAT is this", "WHAT is no command"),
        ("FROM a\nnonsense", "no line of a Modelfile"),
        ('FROM a\nSYSTEM """open', "is not closed"),
    ],
)
def test_what_is_no_modelfile_is_told(text: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "Modelfile").write_text(text)
    spec = ModelsSpec(wanted=[{"name": "m", "modelfile": str(tmp_path / "Modelfile")}])  # type: ignore[arg-type]
    (source,) = read_sources(spec).values()
    assert expected in source.problem


def test_a_file_that_changed_is_another_and_a_missing_one_is_told(tmp_path: Path) -> None:
    gguf = tmp_path / "m.gguf"
    spec = ModelsSpec(wanted=[{"name": "m", "gguf": str(gguf)}])  # type: ignore[arg-type]
    (missing,) = read_sources(spec).values()
    assert missing.problem == f"{gguf} cannot be read: No such file or directory"
    gguf.write_bytes(CONTENT)
    (first,) = read_sources(spec).values()
    gguf.write_bytes(CONTENT + b"more")
    (second,) = read_sources(spec).values()
    assert first.digest != second.digest


# What a server, or anybody who may write into its store, plants there


@pytest.fixture
def planted(tmp_path: Path) -> tuple[Place, Path]:
    """A store, and a directory that is none of its own."""
    store, foreign = tmp_path / "store", tmp_path / "etc"
    for path in (store, foreign, foreign / "library"):
        path.mkdir()
    (foreign / blob_path(Place(path="x"), DIGEST).name).write_bytes(b"theirs")
    (foreign / "victim").write_bytes(b"precious")
    for path in foreign.rglob("*"):
        if path.is_file():
            path.chmod(0o600)
    return Place(path=str(store), owner=f"{os.getuid()}:{os.getgid()}"), foreign


def picture(directory: Path) -> dict[str, tuple[object, ...]]:
    return {
        str(path): (
            (found := path.lstat()).st_mode,
            found.st_uid,
            found.st_ino,
            found.st_nlink,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in sorted([directory, *directory.rglob("*")])
    }


def link(directory: str, name: str = "") -> Callable[[Path, Path], None]:
    """A part of the store is a link to what is not its own; with a name, only that file in it."""

    def plant(store: Path, foreign: Path) -> None:
        if name:
            (store / directory).mkdir(exist_ok=True, parents=True)
            (store / directory / name).symlink_to(foreign / "victim")
        else:
            (store / directory).parent.mkdir(exist_ok=True, parents=True)
            (store / directory).symlink_to(foreign)

    return plant


FILE = DIGEST.replace(":", "-")
MODEL = Name(host="registry.lan", namespace="library", model="m", tag="1")


@pytest.mark.parametrize(
    ("plant", "command", "stdin"),
    [
        (link("blobs"), lambda place: commands.delete_blob(place, DIGEST), b""),
        (link("blobs"), lambda place: commands.delete_partials(place, DIGEST), b""),
        (link("blobs"), lambda place: commands.accept(place, DIGEST), b""),
        (link("blobs"), lambda place: commands.give(place, DIGEST, 0), b""),
        (link("blobs", FILE), lambda place: commands.give(place, DIGEST, 0), b""),
        (link(".stackmend"), lambda place: commands.take(place, DIGEST, 0), CONTENT),
        (link(".stackmend"), lambda place: commands.delete_relayed(place, DIGEST), b""),
        (link(".stackmend", FILE), lambda place: commands.take(place, DIGEST, 3), CONTENT),
        (link(".stackmend", FILE), lambda place: commands.accept(place, DIGEST), b""),
        (link("manifests"), lambda place: commands.put_manifest(place, MODEL), b"{}"),
        (link("manifests/registry.lan"), lambda place: commands.put_manifest(place, MODEL), b"{}"),
        (
            link("manifests/registry.lan/library/m", "1"),
            lambda place: commands.put_manifest(place, MODEL),
            b"{}",
        ),
        (
            link("manifests/registry.lan/library/m", "1"),
            lambda place: commands.show_manifest(place, MODEL),
            b"",
        ),
    ],
)
def test_links_in_a_store_lead_root_nowhere(
    planted: tuple[Place, Path],
    plant: Callable[[Path, Path], None],
    command: Callable[[Place], StringCommand],
    stdin: bytes,
) -> None:
    place, foreign = planted
    plant(Path(place.path), foreign)
    before = picture(foreign)
    done = run(command(place), stdin)
    assert picture(foreign) == before
    assert b"precious" not in done.stdout
    assert b"theirs" not in done.stdout


def test_a_store_that_its_owner_linked_elsewhere_is_not_followed(
    planted: tuple[Place, Path],
) -> None:
    place, foreign = planted
    store = Path(place.path)
    (foreign / "blobs").mkdir()
    store.rmdir()
    store.parent.chmod(0o777)
    store.symlink_to(foreign)
    before = picture(foreign)
    assert run(commands.take(place, DIGEST, 0), CONTENT).returncode != 0
    assert run(commands.put_manifest(place, MODEL), b"{}").returncode != 0
    assert picture(foreign) == before


def test_what_never_ends_is_not_read(tmp_path: Path) -> None:
    """A store is read through links; one may lead to a file that waits for what never comes."""
    for name in (
        "manifests/registry/library/endless/1b",
        "blobs/sha256-1",
        "blobs/sha256-2-partial-0",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to("/proc/kmsg")
    reading = script("stackmend.models", "store", str(tmp_path), "yes", mark=make_mark())
    command = ["timeout", "20", "sh", "-c", reading.get_raw_value()]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0
    assert "registry/library/endless/1b" in done.stdout


def test_a_relayed_file_is_no_other_inode(planted: tuple[Place, Path]) -> None:
    """A hard link to a foreign file, and a FIFO, are not written to."""
    place, foreign = planted
    half = Path(place.path, ".stackmend")
    half.mkdir()
    (half / FILE).hardlink_to(foreign / "victim")
    before = picture(foreign)
    assert run(commands.take(place, DIGEST, 0), CONTENT).returncode != 0
    assert run(commands.accept(place, DIGEST)).returncode != 0
    assert picture(foreign) == before
    (half / FILE).unlink()
    os.mkfifo(half / FILE)
    assert run(commands.take(place, DIGEST, 0), CONTENT).returncode != 0


def test_models_that_are_made_from_each_other_are_told_before_any_host_is_contacted(
    tmp_path: Path,
) -> None:
    def policy(**bases: str) -> ModelsPolicy:
        for name, base in bases.items():
            (tmp_path / f"{name}.txt").write_text(f"FROM {base}\n")
        wanted = [{"name": name, "modelfile": str(tmp_path / f"{name}.txt")} for name in bases]
        return ModelsPolicy.model_validate({"wanted": wanted})

    # The last one takes up a name of the registry's, as Ollama itself allows.
    check(policy(c="b", b="a", d="d"))
    with pytest.raises(ModelSourceProblem) as raised:
        check(policy(x="a", a="b", b="C:latest", c="A"))
    assert str(raised.value).startswith("models.wanted[1].modelfile: a:latest is made from ")
