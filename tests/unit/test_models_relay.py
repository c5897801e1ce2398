"""A model is relayed from one directory to another, over channels of this machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyinfra.api.host import Host

from stackmend.errors import StepError
from stackmend.models.errors import PeerUnavailable, TransientError
from stackmend.models.peers import Peer, relay
from stackmend.models.progress import Meter, Tally, display
from stackmend.models.spec import Name
from stackmend.models.state import Manifest, Place
from stackmend.models.store import parse_layers
from tests.connected import local
from tests.unit.models_store import Store, blob_path, manifest_path
from tests.unit.models_world import UP, state

NAME = Name.parse("tiny")
WEIGHTS = b"weights " * 50_000


@pytest.fixture
def host() -> Iterator[Host]:
    with local() as host:
        yield host


@pytest.fixture
def giver(tmp_path: Path) -> Store:
    store = Store(tmp_path / "giver")
    store.model(NAME.path, WEIGHTS)
    return store


@pytest.fixture
def taker(tmp_path: Path) -> Place:
    (tmp_path / "taker" / "blobs").mkdir(parents=True)
    return Place(path=str(tmp_path / "taker"))


def manifest(giver: Store) -> Manifest:
    raw = (giver.root / "manifests" / NAME.path).read_text()
    layers = parse_layers(json.loads(raw))
    return Manifest(digest=hashlib.sha256(raw.encode()).hexdigest(), layers=layers, raw=raw)


def relayed(host: Host, giver: Store, taker: Place, known: Manifest | None) -> int:
    """Relay it; how many bytes came."""
    there = state(server=UP.model_copy(update={"place": taker}))
    tally = Tally()
    peer = Peer(host, {}, Place(path=str(giver.root)), (NAME,))
    with display(host, "tiny", Meter(tally, {})) as progress:
        relay(peer, host, there, NAME, known, 30, progress)
    return tally.received


def files(place: Place) -> dict[str, bytes]:
    root = Path(place.path)
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("known_before", [True, False])
def test_all_of_it_comes_and_nothing_else(
    host: Host, giver: Store, taker: Place, known_before: bool
) -> None:
    """Also where no registry could tell what it is made of: then the giver's manifest does."""
    known = manifest(giver)
    came = relayed(host, giver, taker, known if known_before else None)
    assert came == known.size
    assert files(taker) == files(Place(path=str(giver.root)))
    assert sorted(path.name for path in Path(taker.path).iterdir()) == ["blobs", "manifests"]


def test_it_goes_on_where_an_earlier_relay_was(host: Host, giver: Store, taker: Place) -> None:
    known = manifest(giver)
    half = Path(taker.path, ".stackmend", known.layers[1].digest.replace(":", "-"))
    half.parent.mkdir()
    half.write_bytes(WEIGHTS[:100_000])
    assert relayed(host, giver, taker, known) == known.size - 100_000
    assert files(taker) == files(Place(path=str(giver.root)))


def test_a_beginning_that_another_host_gave_wrong_is_thrown_away(
    host: Host, giver: Store, taker: Place
) -> None:
    """It is not held against the one who gave the others, who is asked for all of it."""
    known = manifest(giver)
    half = Path(taker.path, ".stackmend", known.layers[1].digest.replace(":", "-"))
    half.parent.mkdir()
    half.write_bytes(b"X" * 100_000)
    with pytest.raises(TransientError) as raised:
        relayed(host, giver, taker, known)
    assert raised.value.wasted
    assert not half.exists()
    assert relayed(host, giver, taker, known) == len(WEIGHTS)
    assert files(taker) == files(Place(path=str(giver.root)))


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ("flipped", "its content has the digest"),
        ("truncated", "gave 1000 of 400000 bytes"),
        ("missing", "No such file"),
        ("unreadable", "Is a directory"),
    ],
)
def test_what_a_host_cannot_give_whole_is_no_blob_of_the_other(
    host: Host, giver: Store, taker: Place, wrong: str, expected: str
) -> None:
    known = manifest(giver)
    blob = giver.path(known.layers[1].digest)
    blob.unlink()
    if wrong == "flipped":
        blob.write_bytes(WEIGHTS[:-1] + b"X")
    elif wrong == "truncated":
        blob.write_bytes(WEIGHTS[:1000])
    elif wrong == "unreadable":
        blob.mkdir()
    with pytest.raises(PeerUnavailable, match=expected):
        relayed(host, giver, taker, known)
    assert not blob_path(taker, known.layers[1].digest).exists()
    assert not manifest_path(taker, NAME).exists()


def test_a_host_that_has_no_such_model_is_told(host: Host, giver: Store, taker: Place) -> None:
    (giver.root / "manifests" / NAME.path).write_text("<html>")
    with pytest.raises(PeerUnavailable, match="is no manifest"):
        relayed(host, giver, taker, None)
    (giver.root / "manifests" / NAME.path).unlink()
    with pytest.raises(PeerUnavailable, match="cannot show its manifest"):
        relayed(host, giver, taker, None)


def test_what_cannot_be_written_is_nobody_elses_fault(
    host: Host, giver: Store, taker: Place
) -> None:
    """Another giver would not help."""
    Path(taker.path, ".stackmend").write_text("in the way")
    with pytest.raises(StepError, match="cannot write"):
        relayed(host, giver, taker, manifest(giver))
