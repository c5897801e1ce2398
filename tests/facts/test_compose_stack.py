"""What the state of a Compose project says, read from what real hosts printed."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyinfra.api import FactProcessError

from stackmend.compose.facts import DEFAULTS, ComposeStack, NoCompose, parse_declared
from stackmend.compose.state import Container, StackState
from stackmend.connection import make_mark
from tests.marks import MARK, asked, framed

FIXTURES = Path(__file__).parent / "compose.facts.ComposeStack"


def printed(name: str) -> list[str]:
    fixture = yaml.safe_load((FIXTURES / f"{name}.yaml").read_text(encoding="utf-8"))
    return str(fixture["output"]).split("\n")


def process(lines: list[str]) -> StackState:
    return asked(ComposeStack, "shop", "/opt/shop").process(lines)


def read(name: str) -> StackState:
    return process(printed(name))


def one(state: StackState, service: str) -> Container:
    (container,) = state.list_containers(service)
    return container


# The command


@pytest.mark.parametrize("text", ["shop", "-x", "a b", "'; id; '", "$(id)", 'ä\n"b"'])
def test_the_command_quotes_what_it_is_given(text: str) -> None:
    words = shlex.split(ComposeStack().command(text, f"/opt/{text}").get_raw_value())
    assert words[:6] == ["printf", r"%s\n", MARK, "|", "sh", "-c"]
    assert words[7:] == [
        "probe",
        text,
        f"/opt/{text}",
        f"/var/lib/stackmend/{text}",
        str(64 * 1024**2),
        *DEFAULTS,
    ]


def test_each_reading_has_a_mark_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    fact = ComposeStack()
    asked = [shlex.split(fact.command("a", "/opt/a").get_raw_value())[2] for _ in range(3)]
    assert len({*asked, make_mark(), MARK}) == 5
    assert all(len(mark) == len(MARK) for mark in asked)


# States


def test_healthy() -> None:
    state = read("healthy")
    assert (state.engine.status, state.writable) == ("up", True)
    assert {one.service: (one.status, one.health) for one in state.containers} == {
        "redis": ("running", "healthy"),
        "web": ("running", None),
        "migrate": ("exited", None),
    }
    assert {one.process in ("S", "R") for one in state.containers if one.running} == {True}
    assert one(state, "migrate").process is None
    assert state.neighbours == ()
    assert state.applied is not None
    assert set(state.applied.services) == {"redis", "web", "migrate"}
    assert state.files == state.applied.files
    assert set(state.files) == {"compose.yaml", "web.conf", ".dockerignore"}
    assert state.outside == state.applied.outside
    assert set(state.outside) == {"/etc/hostname"}
    assert {ref: image.id for ref, image in state.images.items()} == {
        service.image: service.image_id for service in state.applied.services.values()
    }
    for name, service in state.applied.services.items():
        assert one(state, name).shape == service.shape


def test_the_shape_is_what_was_declared() -> None:
    state = read("healthy")
    shape = one(state, "web").shape
    assert shape["environment"]["GREETING"] == 'good "morning"\nto $you'
    assert shape["ports"] == ["127.0.0.1:8080->80/tcp"]
    assert (shape["mem_limit"], shape["cpus"], shape["restart"]) == (64 << 20, 0.5, "always")
    assert shape["volumes"]["/etc/web.conf"] == {
        "type": "bind",
        "source": "/opt/shop/web.conf",
        "read_only": True,
    }
    assert shape["networks"] == {"shop_default": {"aliases": ["web"], "address": ""}}
    assert one(state, "redis").shape["volumes"]["/data"]["source"] == "shop_data"
    assert one(state, "migrate").shape["network_mode"] == "service:redis"
    # Nothing of it is another one's name or number: replicas are alike.
    assert not {key for key in shape["labels"] if "number" in key or "hash" in key}


def test_what_was_replaced_beneath_mounts() -> None:
    lines = printed("healthy")
    name, pid = "", ""
    for line in lines:
        if found := re.match(r'\| +"Pid": ([1-9]\d*)', line):
            pid = found[1]
        elif found := re.match(r'\| +"Name": "/(.*)"', line):
            name, pid = (found[1], pid) if "web" in found[1] else (name, pid)
            if name:
                break
    told = [
        f"{pid} file file /etc/web.conf",
        f"{pid} directory directory /a b",
        f"{pid} missing other /run/socket",
        f"{pid} directory file /etc/was file",
        f"{pid} file missing /gone",
        f"{pid} link file /odd",
        "0 file file /nobody",
        "x file file /nobody",
    ]
    at = next(index for index, line in enumerate(lines) if line == f"{MARK} begin networks")
    state = process([*lines[:at], *framed({"mounts": (0, told)}), *lines[at:]])
    assert one(state, "web").replaced == {
        "/etc/web.conf": "file",
        "/a b": "directory",
        "/run/socket": "missing",
        "/etc/was file": "kind",
    }
    assert one(state, "redis").replaced == {}
    assert one(read("healthy"), "web").replaced == {}


def test_files_changed() -> None:
    state = read("files_changed")
    assert state.applied is not None
    assert state.files[".dockerignore"] is None
    assert state.files["web.conf"] not in (None, state.applied.files["web.conf"])
    assert state.files["compose.yaml"] == state.applied.files["compose.yaml"]
    assert state.outside["/etc/hostname"] not in (None, state.applied.outside["/etc/hostname"])


def test_stopped_and_paused() -> None:
    state = read("stopped_and_paused")
    assert one(state, "web").status == "exited"
    assert one(state, "redis").status == "paused"
    assert not one(state, "redis").running


def test_created() -> None:
    state = read("created_without_its_port")
    web = one(state, "web")
    assert (web.status, web.started_at) == ("created", 0)
    assert "port is already allocated" in web.error
    assert state.names["squatter"] == ""
    assert state.neighbours == ()


def test_services_of_other_projects_are_known_whatever_their_containers_are_called() -> None:
    state = read("neighbours_and_a_moved_tag")
    assert state.elsewhere == ("apart", "intruder")
    lines = [
        line.replace('"apart","",""', '"apart","db","peer"')
        for line in printed("neighbours_and_a_moved_tag")
    ]
    assert process(lines).elsewhere == ("apart", "db", "intruder")


def test_hung_detached_and_updated() -> None:
    state = read("hung_detached_and_updated")
    assert one(state, "web").process == "T"
    redis = one(state, "redis")
    assert redis.endpoints == {}
    assert "networks" not in redis.shape
    assert redis.shape["restart"] == "no"


def test_unhealthy() -> None:
    redis = one(read("unhealthy"), "redis")
    assert redis.health == "unhealthy"
    assert "redis-cli" in redis.health_output


def test_restart_loop() -> None:
    web = one(read("restart_loop"), "web")
    assert web.status == "restarting"
    assert web.restart_count >= 3
    assert web.exit_code == 3


def test_missing() -> None:
    state = read("missing")
    assert state.list_containers("web") == ()
    assert one(state, "redis").running


def test_neighbours_and_a_moved_tag() -> None:
    state = read("neighbours_and_a_moved_tag")
    # It shares our network, and says that it is redis; "apart" is nobody's business.
    (intruder,) = state.neighbours
    assert intruder.name == "intruder"
    assert "redis" in intruder.endpoints["shop_default"].aliases
    assert {"apart", "guest", "intruder"} <= set(state.names)
    assert one(state, "guest").working_dir == ""
    assert state.applied is not None
    assert state.images["lab/box:1"].id != state.applied.services["web"].image_id


def test_record_unreadable_and_image_gone() -> None:
    state = read("record_unreadable_image_gone")
    assert state.applied is None
    assert state.applied_problem == "the record of the last apply cannot be read"
    assert set(state.images) == {"lab/redis:7"}
    assert [(mend.at, mend.action, mend.service) for mend in state.mends] == [
        (1_800_000_000, "restart", "web"),
        (1_800_000_060, "rollback", "0123abc"),
    ]


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        ("not_installed", "absent", "docker is not installed"),
        ("engine_stopped", "stopped", "Cannot connect to the Docker daemon"),
        ("forbidden", "forbidden", "permission denied"),
    ],
)
def test_no_engine(name: str, status: str, reason: str) -> None:
    state = read(name)
    assert state.engine.status == status
    assert reason in state.engine.reason
    assert state.containers == ()
    assert state.writable is (status != "forbidden")


def test_what_is_remembered_is_read_without_an_engine_too() -> None:
    state = read("engine_stopped")
    assert len(state.mends) == 2
    assert state.files


def test_nothing_there_is_told_apart_from_nothing_known() -> None:
    state = read("nothing_there")
    assert state.engine.status == "up"
    assert (state.containers, state.names, state.applied) == ((), {}, None)
    assert "bridge" in state.networks


# What is not a whole answer


@pytest.mark.parametrize(
    "name", ["healthy", "missing", "nothing_there", "neighbours_and_a_moved_tag"]
)
def test_an_answer_that_was_cut_off_is_never_taken_for_a_host_with_less(name: str) -> None:
    lines = printed(name)
    whole = process(lines)
    last = max(index for index, line in enumerate(lines) if line.startswith(MARK))
    for length in range(1, last + 1):
        with pytest.raises(FactProcessError):
            process(lines[:length])
    for length in range(last + 1, len(lines) + 1):
        assert process(lines[:length]) == whole


@pytest.mark.parametrize(
    "output", [[""], ["sh: 1: not found"], ["", f"{MARK} begin clock", "|1", "", f"{MARK} end"]]
)
def test_what_is_not_a_probes_answer(output: list[str]) -> None:
    with pytest.raises(FactProcessError):
        process(output)


def section(lines: list[str], name: str) -> tuple[int, int]:
    first = lines.index(f"{MARK} begin {name}")
    last = lines.index(f"{MARK} end", first)
    return first, last


@pytest.mark.parametrize("name", ["containers", "networks"])
def test_an_engine_that_stops_in_between_has_no_fewer_containers(name: str) -> None:
    lines = printed("healthy")
    first, last = section(lines, name)
    said = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock."
    state = process([*lines[: first + 1], f"|{said}", "", ".1", f"{MARK} end", *lines[last + 1 :]])
    assert state.engine.status == "stopped"


def test_a_container_that_ends_while_it_is_looked_at_is_no_problem() -> None:
    lines = printed("healthy")
    first, last = section(lines, "containers")
    shown = json.loads("\n".join(line[1:] for line in lines[first + 1 : last - 2]))
    gone = shown.pop()
    state = process(
        [
            *lines[: first + 1],
            *(f"|{line}" for line in json.dumps(shown, indent=4).split("\n")),
            f"|Error response from daemon: No such container: {gone['Id']}",
            "",
            ".1",
            f"{MARK} end",
            *lines[last + 1 :],
        ]
    )
    assert {one.id for one in state.containers} == {one["Id"] for one in shown}


@pytest.mark.parametrize(
    "warning",
    [
        "WARNING: Error loading config file: /root/.docker/config.json: permission denied",
        "[DEPRECATION NOTICE] something will go away",
        "{not json",
    ],
)
def test_warnings_of_the_client_are_not_data(warning: str) -> None:
    lines = printed("healthy")
    whole = process(lines)
    for name in ("names", "containers", "networks"):
        first, _ = section(lines, name)
        lines.insert(first + 1, f"|{warning}")
    assert process(lines) == whole


def test_a_fact_can_be_printed() -> None:
    assert json.loads(json.dumps(read("healthy").to_json()))["engine"] == {
        "status": "up",
        "reason": "",
    }


# What Compose makes of the files


def resolved(**changes: Any) -> list[str]:
    parts: dict[str, tuple[int, list[str]] | None] = {
        "unpacked": (0, ["/dev/shm/stackmend.abc"]),
        "config": (
            0,
            json.dumps(
                {
                    "name": "shop",
                    "services": {
                        "web": {
                            "image": "lab/box:1",
                            "environment": {"A": "$$HOME and $$$$"},
                            "volumes": [
                                {"type": "bind", "source": "/dev/shm/stackmend.abc/web.conf"},
                                {"type": "bind", "source": "/dev/shm/stackmend.abcdef"},
                            ],
                        }
                    },
                },
                indent=2,
            ).split("\n"),
        ),
        "problem": (0, ['level=warning msg="The \\"X\\" variable is not set."']),
        "differs": (0, ["web.conf", "a b"]),
        "hashes": (0, ["web 0123"]),
        "images": (
            0,
            [
                '["sha256:1",null,null,null,null,["A=b=c","D"],{"80/tcp":{}}] lab/box:1',
                "- lab/none:1",
            ],
        ),
        **changes,
    }
    return framed(parts)


def test_declared() -> None:
    declared = parse_declared(resolved(), MARK, "/opt/shop")
    web = declared.services["web"]
    assert web["environment"] == {"A": "$HOME and $$"}
    assert [mount["source"] for mount in web["volumes"]] == [
        "/opt/shop/web.conf",
        "/dev/shm/stackmend.abcdef",
    ]
    assert declared.differs == ("web.conf", "a b")
    assert declared.hashes == {"web": "0123"}
    assert {ref: image.id for ref, image in declared.images.items()} == {"lab/box:1": "sha256:1"}
    assert declared.images["lab/box:1"].env == {"A": "b=c", "D": ""}
    assert declared.images["lab/box:1"].ports == ("80/tcp",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unpacked": None}, "the host did not take the project's files"),
        (
            {"unpacked": (2, ["/w", "tar: No space left"])},
            "could not unpack .*: tar: No space left",
        ),
        ({"unpacked": (0, [""])}, "could not unpack"),
        ({"config": None}, "did not run docker compose to its end"),
        ({"differs": None}, "did not run docker compose to its end"),
        ({"images": None}, "did not run docker compose to its end"),
        ({"config": (15, []), "problem": (0, [])}, "failed without a word"),
        (
            {
                "config": (15, []),
                "problem": (0, ["yaml: /dev/shm/stackmend.abc/compose.yaml: line 3"]),
                "compose": (0, ["2.26.1"]),
                "differs": None,
                "images": None,
            },
            "^yaml: /opt/shop/compose.yaml: line 3$",
        ),
    ],
)
def test_what_compose_could_not_say(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_declared(resolved(**changes), MARK, "/opt/shop")


def test_no_compose_is_told_from_files_that_it_refuses() -> None:
    said = ["docker: 'compose' is not a docker command."]
    without = resolved(config=(125, []), compose=(1, said), differs=None, images=None)
    with pytest.raises(NoCompose, match="'compose' is not a docker command"):
        parse_declared(without, MARK, "/opt/shop")
