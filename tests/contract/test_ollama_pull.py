"""What stackmend relies on of Ollama's pull, asked of every server there is (see `conftest.py`)."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.contract.servers import GREEDY, SAID, USER, Server
from tests.lab.model_registry import ModelRegistry, Pushed

SIZE = 1_500_000


@pytest.fixture(autouse=True)
def calm(remote: ModelRegistry) -> Iterator[None]:
    """Each test begins with a registry at which nothing goes wrong, and an empty log."""
    remote.clear()
    remote.clear_log()
    yield
    remote.clear()


def pull(server: Server, name: str, **more: Any) -> list[dict[str, Any]]:
    """The lines of a pull by plain HTTP."""
    asked = {"model": f"{server.registry}/{name}", "insecure": True}
    return server.lines("/api/pull", **asked, **more)


def kinds(lines: list[dict[str, Any]]) -> list[str]:
    """The different statuses of a pull, in order."""
    return list(dict.fromkeys(str(line.get("status", line.get("error"))) for line in lines))


def blob(server: Server, digest: str) -> bytes:
    return server.read(f"blobs/{digest.replace(':', '-')}")


def partials(server: Server) -> list[str]:
    return [name for name in server.shell("ls blobs").decode().split() if "-partial" in name]


def content(remote: ModelRegistry, model: Pushed) -> list[tuple[str, int, int]]:
    """Of each request for a model's weights: its range, the status, the bytes sent."""
    return [
        (request.range, request.status, request.sent)
        for request in remote.log()
        if request.on == "storage" and request.path.endswith(model.weights.digest)
    ]


def test_a_pull(server: Server, remote: ModelRegistry) -> None:
    pushed = remote.push("team/pulled:1b", SIZE, seed=1)
    lines = pull(server, pushed.name)
    name = f"{server.registry}/{pushed.name}"
    assert lines[0] == {"status": "pulling manifest"}
    assert [line["status"] for line in lines[-3:]] == [
        "verifying sha256 digest",
        "writing manifest",
        "success",
    ]
    for line in lines:
        if "digest" in line:
            assert line["status"] == f"pulling {line['digest'][7:19]}"
            assert line["total"] in {layer.size for layer in pushed.layers}
            assert line.get("completed", 0) <= line["total"]
    model = server.listed("/api/tags")[name]
    assert (model["digest"], model["size"]) == (pushed.digest, pushed.size)
    # The registry's very bytes are kept.
    assert server.read(f"manifests/{name.replace(':1b', '/1b')}").decode() == pushed.manifest
    for layer in pushed.layers:
        assert f"sha256:{hashlib.sha256(blob(server, layer.digest)).hexdigest()}" == layer.digest
    said = server.answer("/api/chat", model=name, messages=USER, options=GREEDY, stream=False)
    assert said["message"]["content"] == SAID
    assert partials(server) == []
    assert '"/api/pull"' in server.logged()

    first = remote.log()[0]
    assert (first.method, first.on, first.model) == ("GET", "manifest", pushed.name)
    asked = [(request.method, request.status) for request in remote.log() if request.on == "blob"]
    assert asked.count(("HEAD", 200)) == asked.count(("GET", 307)) == len(asked) / 2
    assert content(remote, pushed) == [(f"bytes=0-{SIZE - 1}", 206, SIZE)]


def test_a_pull_of_what_is_there(server: Server, remote: ModelRegistry) -> None:
    pushed = remote.push("team/there:1b", SIZE, seed=2)
    name = f"{server.registry}/{pushed.name}"
    assert kinds(pull(server, pushed.name))[-1] == "success"
    before = server.listed("/api/tags")[name]
    remote.clear_log()
    time.sleep(0.01)
    lines = pull(server, pushed.name)
    assert kinds(lines)[-1] == "success"
    assert {line["digest"]: line["completed"] for line in lines if "digest" in line} == {
        layer.digest: layer.size for layer in pushed.layers
    }
    assert [request.on for request in remote.log()] == ["manifest"]
    after = server.listed("/api/tags")[name]
    assert after["digest"] == before["digest"]
    # The manifest is written again all the same.
    assert after["modified_at"] != before["modified_at"]


def test_a_pull_that_is_not_streamed(server: Server, remote: ModelRegistry) -> None:
    pushed = remote.push("team/whole:1b", SIZE, seed=3)
    asked = {"model": f"{server.registry}/{pushed.name}", "insecure": True, "stream": False}
    response = server.post("/api/pull", **asked)
    assert (response.status_code, response.json()) == (200, {"status": "success"})
    response = server.post("/api/pull", **{**asked, "model": f"{server.registry}/team/nothing"})
    assert response.status_code == 500
    assert response.json() == {"error": "pull model manifest: file does not exist"}


def test_a_model_that_the_registry_lacks(server: Server) -> None:
    assert pull(server, "team/nothing:1b") == [
        {"status": "pulling manifest"},
        {"error": "pull model manifest: file does not exist"},
    ]


@pytest.mark.parametrize("name", ["a b", "a/b/c/d", "x:y:z/", "reg.lan/my.team/model"])
def test_a_bad_name(server: Server, name: str) -> None:
    response = server.post("/api/pull", model=name)
    assert response.status_code == 400
    assert response.json() == {"error": "invalid model name"}


def test_a_tag_that_moved(server: Server, remote: ModelRegistry) -> None:
    old = remote.push("team/moving:1b", SIZE, seed=4)
    assert kinds(pull(server, old.name))[-1] == "success"
    new = remote.push("team/moving:1b", SIZE, seed=5)
    assert new.digest != old.digest
    assert kinds(pull(server, new.name))[-2:] == ["removing unused layers", "success"]
    assert server.listed("/api/tags")[f"{server.registry}/{new.name}"]["digest"] == new.digest
    assert old.weights.digest.replace(":", "-") not in server.shell("ls blobs").decode()


def test_a_connection_that_is_cut(server: Server, remote: ModelRegistry) -> None:
    pushed = remote.push("team/cut:1b", SIZE, seed=6)
    for at in (400_000, 1_100_000):
        remote.fault(pushed.name, "cut", at=at)
    assert kinds(pull(server, pushed.name))[-1] == "success"
    end = SIZE - 1
    assert content(remote, pushed) == [
        (f"bytes=0-{end}", 206, 400_000),
        (f"bytes=400000-{end}", 206, 700_000),
        (f"bytes=1100000-{end}", 206, SIZE - 1_100_000),
    ]


def test_a_connection_that_is_reset(server: Server, remote: ModelRegistry) -> None:
    """What the request had brought is fetched again, unless it came by way of Docker's proxy of
    published ports, which makes of a reset an end."""
    pushed = remote.push("team/reset:1b", SIZE, seed=7)
    remote.fault(pushed.name, "reset", at=600_000)
    assert kinds(pull(server, pushed.name))[-1] == "success"
    (first, status, _), (second, _, _) = content(remote, pushed)
    assert (first, status) == (f"bytes=0-{SIZE - 1}", 206)
    again = (f"bytes=600000-{SIZE - 1}",) if server.registry == remote.outer else ()
    assert second in (first, *again)


def test_content_that_is_not_what_it_should_be(server: Server, remote: ModelRegistry) -> None:
    pushed = remote.push("team/wrong:1b", SIZE, seed=8)
    digest = pushed.weights.digest
    remote.fault(pushed.name, "mismatch", at=700_000)
    *_, verifying, last = pull(server, pushed.name)
    assert verifying == {"status": "verifying sha256 digest"}
    wrong = f"digest mismatch, file must be downloaded again: want {digest}, got sha256:"
    assert last["error"].startswith(wrong)
    assert digest.replace(":", "-") not in server.shell("ls blobs").decode()
    assert kinds(pull(server, pushed.name))[-1] == "success"


@pytest.mark.parametrize("status", [412, 429, 500])
def test_a_manifest_that_is_refused(server: Server, remote: ModelRegistry, status: int) -> None:
    pushed = remote.push("team/refused:1b", SIZE, seed=9)
    remote.fault(pushed.name, "status", status=status, body="not now", on="manifest")
    assert kinds(pull(server, pushed.name)) == [
        "pulling manifest",
        f"pull model manifest: {status}: not now",
    ]


def test_content_that_is_refused(server: Server, remote: ModelRegistry) -> None:
    pushed = remote.push("team/busy:1b", SIZE, seed=10)
    remote.fault(pushed.name, "status", status=503, on="blob")  # the HEAD that asks for its size
    assert kinds(pull(server, pushed.name))[-1] == "503: "
    remote.clear_log()
    # Where the content is, is asked again and again; the content itself after a second.
    remote.fault(pushed.weights.digest, "status", status=429, body="later", on="storage")
    assert kinds(pull(server, pushed.name))[-1] == "success"
    assert [entry[1] for entry in content(remote, pushed)] == [429, 206]


def test_a_caller_that_leaves_ends_the_pull_and_the_next_goes_on(
    server: Server, remote: ModelRegistry
) -> None:
    pushed = remote.push("team/left:1b", SIZE, seed=11)
    remote.fault(pushed.name, "stall", at=900_000)
    asked = {"model": f"{server.registry}/{pushed.name}", "insecure": True}
    with server.client.stream("POST", "/api/pull", json=asked) as response:
        for line in response.iter_lines():
            if json.loads(line).get("completed") == 900_000:
                break
    weights = pushed.weights.digest.replace(":", "-")
    deadline = time.monotonic() + 30
    while True:
        # It is empty for the moment in which Ollama writes it.
        state = json.loads(server.read(f"blobs/{weights}-partial-0") or "{}")
        if state.get("Completed") or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    assert state == {"N": 0, "Offset": 0, "Size": SIZE, "Completed": 900_000}
    assert partials(server) == [f"{weights}-partial", f"{weights}-partial-0"]
    assert len(server.read(f"blobs/{weights}-partial")) == SIZE
    remote.clear_log()
    assert kinds(pull(server, pushed.name))[-1] == "success"
    assert content(remote, pushed) == [(f"bytes=900000-{SIZE - 1}", 206, SIZE - 900_000)]
    assert partials(server) == []


def test_a_server_that_restarts_goes_on_where_it_was(server: Server, remote: ModelRegistry) -> None:
    pushed = remote.push("team/restarted:1b", SIZE, seed=18)
    remote.fault(pushed.name, "stall", at=800_000)
    asked = {"model": f"{server.registry}/{pushed.name}", "insecure": True}

    def restart_once_it_stands_still() -> None:
        with server.client.stream("POST", "/api/pull", json=asked) as response:
            for line in response.iter_lines():
                assert "error" not in line
                if json.loads(line).get("completed") == 800_000:
                    server.restart()

    with pytest.raises(httpx.RemoteProtocolError):
        restart_once_it_stands_still()
    remote.clear_log()
    assert kinds(pull(server, pushed.name))[-1] == "success"
    assert content(remote, pushed) == [(f"bytes=800000-{SIZE - 1}", 206, SIZE - 800_000)]


def test_progress_is_said_while_nothing_comes(server: Server, remote: ModelRegistry) -> None:
    """So silence of the answer is no sign of a stall: its numbers are."""
    pushed = remote.push("team/still:1b", SIZE, seed=12)
    remote.fault(pushed.name, "stall", at=300_000)
    asked = {"model": f"{server.registry}/{pushed.name}", "insecure": True}
    seen: list[int] = []
    with server.client.stream("POST", "/api/pull", json=asked) as response:
        for line in response.iter_lines():
            seen.append(json.loads(line).get("completed", 0))
            if seen.count(300_000) > 5:
                break
    assert max(seen) == 300_000


def test_two_pulls_of_one_model_are_one_download(server: Server, remote: ModelRegistry) -> None:
    pushed = remote.push("team/twice:1b", SIZE, seed=13)
    remote.rate(2_000_000, pushed.name)
    ends: list[str] = []
    threads = [
        threading.Thread(target=lambda: ends.append(kinds(pull(server, pushed.name))[-1]))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
        time.sleep(0.2)
    for thread in threads:
        thread.join()
    assert ends == ["success"] * 2
    assert [entry[2] for entry in content(remote, pushed)] == [SIZE]


def test_what_is_wrong_on_the_disk_is_not_seen(server: Server, remote: ModelRegistry) -> None:
    pushed = remote.push("team/rotten:1b", SIZE, seed=14)
    assert kinds(pull(server, pushed.name))[-1] == "success"
    path = f"blobs/{pushed.weights.digest.replace(':', '-')}"
    server.shell(f"printf rotten | dd of={path} bs=1 seek=1000000 conv=notrunc 2>/dev/null")
    remote.clear_log()
    assert kinds(pull(server, pushed.name))[-1] == "success"
    assert content(remote, pushed) == []
    server.shell(f"rm {path}")
    # Its weights are gone, and it is listed.
    assert f"{server.registry}/{pushed.name}" in server.listed("/api/tags")
    asked = {"model": f"{server.registry}/{pushed.name}", "messages": USER, "stream": False}
    name = asked["model"]
    for path, status, why in (
        ("/api/chat", 400, f'"{name}" does not support chat'),
        ("/api/generate", 400, f'"{name}" does not support generate'),
        ("/api/show", 404, f"model '{name}' not found"),
    ):
        response = server.post(path, **asked)
        assert (response.status_code, response.json()) == (status, {"error": why})
    assert kinds(pull(server, pushed.name))[-1] == "success"
    assert [entry[2] for entry in content(remote, pushed)] == [SIZE]
    assert server.answer("/api/chat", **asked, options=GREEDY)["message"]["content"] == SAID


def test_a_registry_that_wants_a_token(server: Server, remote: ModelRegistry) -> None:
    pushed = remote.push("team/private:1b", SIZE, seed=15)
    remote.private("team/private", "denied")
    assert kinds(pull(server, pushed.name)) == [
        "pulling manifest",
        "pull model manifest: unauthorized: access denied",
    ]
    remote.private("team/private", "token")
    assert kinds(pull(server, pushed.name))[-1] == "success"


def test_a_registry_out_of_reach(server: Server, remote: ModelRegistry) -> None:
    remote.push("team/far:1b", SIZE, seed=16)
    for name, insecure, why in (
        ("nowhere.invalid/team/far:1b", False, "no such host"),
        ("127.0.0.1:9/team/far:1b", True, "connect: connection refused"),
        (f"{server.registry}/team/far:1b", False, "server gave HTTP response to HTTPS client"),
        (f"{server.secure}/team/far:1b", False, "x509: certificate signed by unknown authority"),
    ):
        lines = server.lines("/api/pull", model=name, insecure=insecure)
        assert kinds(lines)[0] == "pulling manifest"
        assert lines[-1]["error"].startswith('pull model manifest: Get "http'), lines
        assert lines[-1]["error"].endswith(why), lines


def test_the_command_pulls(server: Server, remote: ModelRegistry) -> None:
    pushed = remote.push("team/command:1b", SIZE, seed=17)
    name = f"{server.registry}/{pushed.name}"
    pulled = server.ollama("pull", "--insecure", name)
    assert pulled.returncode == 0, pulled.stderr
    assert server.listed("/api/tags")[name]["digest"] == pushed.digest
    missing = server.ollama("pull", "--insecure", f"{server.registry}/team/nothing")
    assert missing.returncode == 1
    assert "pull model manifest: file does not exist" in missing.stderr
    removed = server.ollama("rm", name)
    assert removed.returncode == 0, removed.stderr
    assert name not in server.listed("/api/tags")


def test_names_are_the_same_in_any_case(server: Server) -> None:
    assert server.answer("/api/show", model="CONTRACT")["details"]["family"] == "llama"


def test_a_model_made_from_another(server: Server) -> None:
    steps = server.lines(
        "/api/create",
        model="made",
        **{"from": "contract"},
        system="be brief",
        parameters={"seed": 4},
    )
    assert steps[-1] == {"status": "success"}
    shown = server.answer("/api/show", model="made")
    assert shown["system"] == "be brief"
    assert shown["parameters"].split() == ["seed", "4"]
