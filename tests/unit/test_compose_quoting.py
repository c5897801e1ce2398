"""Every value of the caller's arrives as it is in a real shell, and never runs."""

from __future__ import annotations

import hashlib
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pyinfra.api import StringCommand

from stackmend.compose import commands
from stackmend.compose.plan.actions import (
    Attach,
    Build,
    Detach,
    Disconnect,
    InstallFiles,
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
from stackmend.compose.source import File, Source
from stackmend.compose.spec import ComposeSpec
from stackmend.compose.state import Applied, AppliedService, Container, Endpoint, Engine, StackState

#: What a shell, an option parser or a careless format would trip over.
NASTY = (
    "'",
    '"',
    "`id`",
    "$(touch pwned)",
    "$HOME",
    "${HOME}",
    "\\",
    "\\n",
    "\n",
    "\r\n",
    "\t",
    ";touch pwned;",
    "&& touch pwned",
    "| touch pwned",
    "> pwned",
    "-rf",
    "--help",
    "*",
    "~",
    "#",
    "!",
    "%s%n",
    "äöü",
    "日本語",
    "\U0001f525",
    "\u202e",
    " ",
    "a b",
    "{a,b}",
    "[a-z]",
    "=",
    "\x01",
    "\x7f",
    "'\"'\"'",
    "EOF",
)
text = st.lists(
    st.one_of(
        st.sampled_from(NASTY),
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8),
    ),
    min_size=1,
    max_size=4,
).map("".join)
words = text.filter(bool)
names_of_files = words.filter(lambda name: "/" not in name and name not in (".", ".."))

# A shell for each example: what fails is shown as it came, which is short already.
quick = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a ``docker`` that writes down how many words it was given, and these."""
    place = tmp_path_factory.mktemp("host")
    tools = place / "bin"
    tools.mkdir()
    (tools / "docker").write_text('#!/bin/sh\nprintf "%s\\0" $# "$@" >>"$SAID"\n')
    (tools / "docker").chmod(0o755)
    return place


def spec(place: Path, **changes: object) -> ComposeSpec:
    return ComposeSpec.model_validate(
        {"project": "shop", "source": ".", "directory": str(place / "project"), **changes}
    )


def given_to_docker(place: Path, command: StringCommand, stdin: bytes = b"") -> list[list[str]]:
    """Run a command in a real sh; what each call of docker got, word by word."""
    work = place / "work"
    work.mkdir(exist_ok=True)
    said = place / "said"
    said.write_bytes(b"")
    done = subprocess.run(
        ["sh", "-c", command.get_raw_value()],
        cwd=work,
        env={"PATH": f"{place}/bin:/usr/bin:/bin", "SAID": str(said), "HOME": "/nowhere"},
        input=stdin,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list(work.iterdir()) == [], "something ran that should not have"
    left = said.read_bytes().decode("utf-8", "surrogateescape").split("\0")[:-1]
    calls = []
    while left:
        count = int(left[0])
        calls.append(left[1 : count + 1])
        left = left[count + 1 :]
    return calls


@pytest.fixture
def directory(place: Path) -> Path:
    (place / "project").mkdir(exist_ok=True)
    return place / "project"


FILES = ("--env-file", "/dev/null", "--file", "compose.yaml")
COMPOSE = ["compose", "--ansi", "never", "-p", "shop", *FILES]


@quick
@given(names=st.lists(names_of_files, min_size=1, max_size=3))
def test_up(place: Path, directory: Path, names: list[str]) -> None:
    for recreate in (False, True):
        calls = given_to_docker(
            place, commands.build_up(spec(place), FILES, names, recreate=recreate)
        )
        assert calls[-1][len(COMPOSE)] == "up"
        assert recreate == any("--force-recreate" in call[: -len(names)] for call in calls)
        for call in calls:
            assert call[: len(COMPOSE)] == COMPOSE
            assert call[-len(names) - 1 :] == ["--", *names]


@quick
@given(image=words, ref=words, service=words)
def test_build_keeps_what_is_not_ours(
    place: Path, directory: Path, image: str, ref: str, service: str
) -> None:
    (place / "staged").mkdir(exist_ok=True)
    keep = Tag(image_id=image, name=ref)
    action = Build(subject=service, cause="", keep=keep)
    command = commands.fetch_image(spec(place), FILES, action, str(place / "staged"))
    calls = given_to_docker(place, command)
    assert calls == [
        ["tag", image, ref],
        [*COMPOSE, "build", "--", service],
    ]


@quick
@given(name=words.filter(lambda name: "/" not in name and len(name.encode()) < 200))
def test_directory_with_any_name(place: Path, name: str) -> None:
    parent = place / "directories"
    parent.mkdir(exist_ok=True)
    home = parent / name
    if "\n" in name or name in (".", ".."):
        return
    home.mkdir(exist_ok=True)
    # Settings take no control characters; quoting does.
    anywhere = spec(place).model_copy(update={"directory": str(home)})
    command = commands.build_up(anywhere, FILES, ["web"], recreate=False)
    (place / "bin" / "docker").write_text('#!/bin/sh\nprintf "1\\0%s\\0" "$(pwd)" >>"$SAID"\n')
    try:
        assert {tuple(call) for call in given_to_docker(place, command)} == {(str(home),)}
    finally:
        (place / "bin" / "docker").write_text('#!/bin/sh\nprintf "%s\\0" $# "$@" >>"$SAID"\n')


@quick
@given(ref=words, image=words)
def test_tag(place: Path, ref: str, image: str) -> None:
    assert given_to_docker(place, commands.tag(Tag(image_id=image, name=ref))) == [
        ["tag", image, ref]
    ]


@quick
@given(container=words)
def test_logs_and_ends(place: Path, container: str) -> None:
    assert given_to_docker(place, commands.read_logs(container, 5)) == [
        ["logs", "--tail", "5", container]
    ]
    (call,) = given_to_docker(place, commands.read_ends(container))
    assert call[:5] == ["events", "--since", "15m", "--until", "0s"]
    assert f"container={container}" in call


ONE = {"status": "running", "image": "x", "image_id": "sha256:1"}
EMPTY = StackState(now=0, engine=Engine(status="up"))


def act(kind: Any, state: StackState = EMPTY, **fields: Any) -> StringCommand:
    action = kind(subject="web", cause="", **fields)
    return commands.act(spec(Path("/nowhere")), action, state)


ACTS: dict[type, Callable[[str, str], list[list[str]]]] = {
    Disconnect: lambda id_, network: [["network", "disconnect", network, id_]],
    Detach: lambda id_, network: [["network", "disconnect", network, id_]],
    Unpause: lambda id_, network: [["unpause", id_]],
    Resume: lambda id_, network: [["kill", "--signal=CONT", id_]],
    SetPolicy: lambda id_, policy: [["update", f"--restart={policy}", id_]],
    Start: lambda id_, network: [["start", id_]],
    Restart: lambda id_, network: [["restart", id_]],
    Remove: lambda id_, network: [["stop", id_], ["rm", id_]],
    RemoveLeftover: lambda id_, network: [["stop", id_], ["rm", id_]],
    Rename: lambda id_, name: [["rename", id_, name]],
}


@pytest.mark.parametrize("kind", ACTS)
@quick
@given(one=words, other=words)
def test_act_on_one_container(place: Path, kind: Any, one: str, other: str) -> None:
    second = {key: other for key in ("network", "name", "policy") if key in kind.model_fields}
    command = act(kind, container=one, **second)
    assert given_to_docker(place, command) == ACTS[kind](one, other)


@quick
@given(one=words, network=words, address=words, aliases=st.lists(words, max_size=2))
def test_attach(place: Path, one: str, network: str, address: str, aliases: list[str]) -> None:
    expected = ["network", "connect"]
    for alias in aliases:
        expected += ["--alias", alias]
    expected += ["--ip", address, network, one]
    fields: dict[str, Any] = {
        "container": one,
        "network": network,
        "address": address,
        "aliases": tuple(aliases),
    }
    assert given_to_docker(place, act(Attach, **fields)) == [expected]
    there = Container.model_validate(
        {"id": one, "name": "web", **ONE, "endpoints": {network: Endpoint(network_id="1")}}
    )
    state = EMPTY.model_copy(update={"containers": (there,)})
    assert given_to_docker(place, act(Attach, state, **fields)) == [
        ["network", "disconnect", network, one],
        expected,
    ]


#: What a container is, as the engine shows it, and how it is kept.
ASIDE = {
    "true true": ["commit", "create", "stop"],
    "true false": ["commit", "create", "stop"],
    "false true": ["update", "stop", "commit", "create", "rm"],
    "false false": ["update", "stop", "rename"],
}


@pytest.mark.parametrize("shown", ASIDE)
@quick
@given(one=words)
def test_set_aside(place: Path, shown: str, one: str) -> None:
    docker = place / "bin" / "docker"
    plain = docker.read_text()
    asks = '[ "$1 $2" = "container inspect" ] && [ "${4#*set-aside}" = "$4" ]'
    docker.write_text(f'{plain}{asks} && echo "id7 {shown}"\n[ "$1" != commit ] || echo image7\n')
    try:
        asked, *calls = given_to_docker(place, act(SetAside, container=one))
    finally:
        docker.write_text(plain)
    assert asked[-2:] == ["--", one]
    calls = [call for call in calls if call[:2] != ["container", "inspect"]]
    assert [call[0] for call in calls] == ASIDE[shown]
    for call in calls:
        if call[0] == "create":
            assert call[1:3] == ["--name", f"{one}-set-aside"]
            assert call[-3:] == ["--volumes-from", "id7", "image7"]
        elif call[0] == "rename":
            assert call[1:] == ["id7", f"{one}-set-aside"]
        else:
            assert call[-1] == "id7"


@quick
@given(one=words)
def test_repair(place: Path, one: str) -> None:
    docker = place / "bin" / "docker"
    plain = docker.read_text()
    docker.write_text(f'{plain}case "$4" in *Image*) echo image7 ;; *Dir*) echo "/a b" ;; esac\n')
    try:
        calls = given_to_docker(place, act(Repair, container=one))
    finally:
        docker.write_text(plain)
    image, directory, stop, run, start = calls
    assert image[-2:] == directory[-2:] == ["--", one]
    assert (stop, start) == (["stop", one], ["start", one])
    assert run[run.index("--volumes-from") + 1] == one
    assert run[run.index("--workdir") + 1] == "/a b"
    assert run[run.index("--entrypoint") + 1 :][:3] == ["sh", "image7", "-s"]


def test_every_verb_is_tested() -> None:
    known = get_args(get_type_hints(commands.act)["action"])
    assert set(known) == {*ACTS, Attach, RemoveNetwork, Repair, SetAside}


@quick
@given(one=words, network=words)
def test_remove_network(place: Path, one: str, network: str) -> None:
    there = Container.model_validate(
        {"id": one, "name": "web", **ONE, "endpoints": {network: Endpoint(network_id="1")}}
    )
    state = EMPTY.model_copy(update={"containers": (there,)})
    action = RemoveNetwork(subject=network, cause="")
    assert given_to_docker(place, commands.act(spec(place), action, state)) == [
        ["network", "disconnect", "--force", network, one],
        ["network", "rm", network],
    ]


@quick
@given(names=st.lists(words.filter(lambda n: "/" not in n and len(n.encode()) < 200), max_size=3))
def test_outside(place: Path, names: list[str]) -> None:
    import hashlib

    folder = place / "outside"
    folder.mkdir(exist_ok=True)
    paths = []
    for name in names:
        if name not in (".", ".."):
            (folder / name).write_bytes(name.encode())
            paths.append(str(folder / name))
    command = commands.hash_outside([*paths, str(folder / "-missing")])
    done = subprocess.run(
        ["sh", "-c", command.get_raw_value()], capture_output=True, check=True, cwd=place
    )
    desired = [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths]
    assert done.stdout.decode().split("\n") == [*desired, "-", ""]


# The scripts that move files, with a state directory of this test's own


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(commands, "STATE_ROOT", str(tmp_path / "memory of it's own"))
    return tmp_path / "memory of it's own" / "shop"


paths = st.lists(
    words.filter(
        lambda name: (
            "/" not in name
            and "\n" not in name
            and name not in (".", "..")
            and len(name.encode()) < 100
        )
    ),
    min_size=1,
    max_size=3,
).map("/".join)


def source(files: dict[str, bytes]) -> Source:
    return Source({name: File(0o644, content) for name, content in files.items()})


def sh(command: StringCommand, stdin: bytes = b"") -> None:
    done = subprocess.run(
        ["sh", "-c", command.get_raw_value()], input=stdin, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")


def tree(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


def no_file_is_a_directory(files: dict[str, bytes]) -> bool:
    return not any(
        other.startswith(f"{path}/") or other == path
        for path in files
        for other in files
        if other is not path
    )


contents = st.dictionaries(paths, st.binary(max_size=20), min_size=1, max_size=4).filter(
    no_file_is_a_directory
)


@pytest.mark.slow
@quick
@given(first=contents, second=contents, home=words)
def test_files_of_any_name_are_staged_and_installed(
    memory: Path, tmp_path: Path, first: dict[str, bytes], second: dict[str, bytes], home: str
) -> None:
    import shutil

    if not no_file_is_a_directory({**first, **second}):
        return
    for left in (tmp_path / "place", memory):
        shutil.rmtree(left, ignore_errors=True)
    name = home.replace("/", "_").replace("\n", "_")[:40]
    directory = tmp_path / "place" / (f"{name}." if set(name) <= {"."} else name)
    desired = spec(tmp_path).model_copy(update={"directory": str(directory)})
    sh(*commands.stage(desired, source(first), unpacked=True))
    assert tree(Path(commands.locate_staging(desired))) == first
    install = InstallFiles(subject=str(directory), cause="")
    sh(commands.install(desired, install, "1"))
    assert tree(directory) == first
    sh(*commands.stage(desired, source(second)))
    gone = tuple(path for path in first if path not in second)
    sh(commands.install(desired, install.model_copy(update={"removed": gone}), "2"))
    assert tree(directory) == second
    # What was overwritten or removed is kept as it was.
    kept = tree(memory / "replaced" / "2")
    assert kept == {path: old for path, old in first.items() if second.get(path) != old}
    applied = Applied(
        project="shop",
        directory='/opt/it\'s "$(id)" -x',
        source=source(second).digest,
        files={},
        config={},
        services={"web": AppliedService(image="x\n$(id)", image_id="1", shape={})},
        applied_at=0,
    )
    sh(commands.record(desired, applied.source), commands.make_record_archive(applied))
    assert (memory / f"good-{applied.source}/files").read_bytes() == b"".join(
        f"{hashlib.sha256(content).hexdigest()}  {path}\n".encode()
        for path, content in sorted(second.items(), key=lambda pair: pair[0].encode())
    )
    # From there they come back.
    shutil.rmtree(directory)
    back = RestoreFiles(subject=str(directory), cause="", source=applied.source)
    sh(commands.restore(desired, back))
    assert tree(directory) == second
    assert Applied.model_validate_json((memory / "applied.json").read_text()) == applied


@quick
@given(subject=words.filter(lambda text: "\n" not in text))
def test_attempts_are_remembered(memory: Path, subject: str) -> None:
    (memory / "mends").unlink(missing_ok=True)
    sh(commands.record_mend(spec(Path("/nowhere")), "restart", subject))
    line = (memory / "mends").read_bytes().decode()
    assert line.endswith(f" restart {subject}\n")
    assert line.split(" ", 1)[0].isdigit()


def test_shell_words_of_a_whole_command_are_readable() -> None:
    """What `-v` prints is what one would type."""
    command = commands.build_up(spec(Path("/x")), FILES, ["web"], recreate=False).get_raw_value()
    assert shlex.split(command)[:3] == ["cd", "/x/project", "&&"]
