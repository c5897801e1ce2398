"""What a host says of a legacy worker, as the probe prints it, and the commands of its move."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api import StringCommand

from stackmend.worker.move import commands
from stackmend.worker.move.client import _parse_context, _parse_models, _parse_tags
from stackmend.worker.move.facts import parse, parse_callers
from stackmend.worker.move.plan import begin, identify, list_candidates, make_key
from stackmend.worker.move.spec import MovePolicy
from stackmend.worker.move.state import HostMove, ModelFile, Runner
from tests.marks import MARK, framed
from tests.unit.test_move_plan import move

ID = "a" * 64
IMAGE = f"sha256:{'b' * 64}"


def container(**more: Any) -> dict[str, Any]:
    raw: dict[str, Any] = {
        "Id": ID,
        "Image": IMAGE,
        "State": {"Pid": 42},
        "Config": {
            "Image": "team/llm:1",
            "Labels": {"com.docker.compose.service": "llm"},
            "Entrypoint": ["/run"],
            "Cmd": ["--port", "80", "--api-key", "hush", "--token=hush"],
            "Env": ["OPENAI_BASE_URL=http://x:1/v1", "API_KEY=hush", "URL=http://u:p@x", "PORT=80"],
            "ExposedPorts": {"8000/tcp": {}, "53/udp": {}},
        },
        "HostConfig": {"DeviceRequests": None},
        "NetworkSettings": {
            "Networks": {"a": {"IPAddress": "172.18.0.2"}, "b": {"IPAddress": ""}},
            "Ports": {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}], "9/tcp": None},
        },
    }
    for key, value in more.items():
        raw[key] = {**raw[key], **value} if isinstance(value, dict) else value
    return raw


def read(**sections: list[str]) -> HostMove:
    parts = {name: (0, lines) for name, lines in {**sections, "read": []}.items()}
    return parse(framed(parts), MARK, "ai")


def runner(*rows: str, **more: Any) -> Runner:
    (found,) = read(
        containers=json.dumps([container(**more)], indent=4).splitlines(),
        images=[json.dumps([IMAGE, {"title": "llama.cpp"}])],
        processes=list(rows),
    ).runners
    return found


def test_a_container() -> None:
    rows = (
        "42\tlibrary\t/usr/lib/libllama.so",
        "42\tfile\t7\t1:2\t/m/a.gguf",
        "43\tfile\t8\t1:3\t/m/b.gguf",
    )
    found = runner(*rows)
    assert found.service == "llm"
    assert found.image_labels == {"title": "llama.cpp"}
    assert found.libraries == ("/usr/lib/libllama.so",)
    assert found.files == (ModelFile(path="/m/a.gguf", size=7, inode="1:2"),)
    assert found.addresses == ("172.18.0.2",)
    assert found.ports == (8000,)
    assert found.published == ("127.0.0.1:8080",)
    assert not found.accelerated


def test_no_secret_of_it_is_kept() -> None:
    found = runner()
    assert "hush" not in found.model_dump_json()
    assert found.command == ("/run", "--port", "80", "--api-key", "***", "--token=***")
    assert found.env == {"OPENAI_BASE_URL": "http://x:1/v1", "PORT": "80"}


@pytest.mark.parametrize(
    "words",
    [
        ["sh", "-c", "exec llama-server -m /m/a.gguf --api_key sk-hush --port 80"],
        ["sh", "-c", "API_KEY=hush llama-server -m /m/a.gguf"],
        ["llama-server", "-m", "/m/a.gguf", "--key", "hush"],
        ["llama-server", "-m", "/m/a.gguf", "--api_key=hush"],
        ["llama-server", "-m", "/m/a.gguf", "--hf-token", "hush"],
    ],
)
def test_no_secret_of_its_command_is_evidence(words: list[str]) -> None:
    more = {"Entrypoint": None, "Cmd": words, "Image": "x", "Env": ["URL=http://x/?api_key=hush"]}
    found = runner(Config={**container()["Config"], **more})
    assert "hush" not in found.model_dump_json()
    (legacy,) = identify(list_candidates([found]), {})
    assert "hush" not in legacy.model_dump_json()
    assert any("its command has" in line for line in legacy.evidence)


@pytest.mark.parametrize(
    "settings",
    [{"DeviceRequests": [{"Driver": "nvidia"}]}, {"Devices": [{"PathOnHost": "/dev/kfd"}]}],
)
def test_an_accelerator(settings: dict[str, Any]) -> None:
    assert runner(HostConfig=settings).accelerated


@pytest.mark.parametrize(
    "row",
    [
        "42\tfile\tx\t1:2\t/m/a.gguf",
        "42\tfile\t7\t1:2\trelative.gguf",
        "42\tfile\t7\t/m/a.gguf",
        "42\tfile\t7",
        "42",
        "",
        "42\tother\t/x",
    ],
)
def test_rows_that_mean_nothing(row: str) -> None:
    assert runner(row).files == ()


@pytest.mark.parametrize(
    "broken", [{"Id": "../x"}, {"Config": {"Labels": None}}, {"State": None}, {"HostConfig": []}]
)
def test_a_container_that_cannot_be_read_is_none(broken: dict[str, Any]) -> None:
    raw = {**container(), **broken}
    assert len(read(containers=json.dumps([raw, container()]).splitlines()).runners) == 1


def test_a_record_comes_back() -> None:
    record = begin(move(), "k", "ai")
    found = read(record=record.model_dump_json().splitlines())
    assert (found.record, found.record_problem) == (record, "")


@pytest.mark.parametrize(
    "change",
    [
        {"project": "other"},
        {"stage": "somewhere"},
        {"version": 2},
        {"move": {}},
        {"move": {**move().model_dump(mode="json"), "legacy": "../x"}},
        {"move": {**move().model_dump(mode="json"), "target": "-x"}},
        {"move": {**move().model_dump(mode="json"), "port": 0}},
        {"move": {**move().model_dump(mode="json"), "volume": "a/b"}},
        {
            "move": {
                **move().model_dump(mode="json"),
                "models": [{"name": "a", "path": "relative.gguf"}],
            }
        },
    ],
)
def test_a_record_that_could_not_be_ours(change: dict[str, Any]) -> None:
    raw = {**begin(move(), "k", "ai").model_dump(mode="json"), **change}
    found = read(record=json.dumps(raw).splitlines())
    assert found.record is None
    assert found.record_problem


def test_what_is_laid_over_and_what_is_free() -> None:
    found = read(
        layer=["services: {}"],
        free=["Filesystem 1024-blocks Used Available Capacity Mounted", "/dev/x 9 1 8 1% /"],
        gpu=['{"io.containerd.runc.v2":{},"nvidia":{}}'],
    )
    assert (found.layer, found.free, found.gpu) == ("services: {}", 8192, True)


def test_output_that_was_cut_off() -> None:
    with pytest.raises(ValueError, match="cut off"):
        parse(framed({"free": (0, [])}), MARK, "ai")


@pytest.mark.parametrize(
    ("content", "models"),
    [
        (b'{"data":[{"id":"a","owned_by":"llamacpp"}]}', [("a", "llamacpp")]),
        (b'{"data":[{"id":5},{"id":"a"}]}', [("a", "None")]),
        (b'{"data":{}}', None),
        (b"[]", None),
        (b"<html>", None),
    ],
)
def test_what_a_server_lists(content: bytes, models: object) -> None:
    assert _parse_models(content) == models


@pytest.mark.parametrize(
    ("content", "context"),
    [
        (b'{"default_generation_settings":{}}', 0),
        (b'{"default_generation_settings":{"n_ctx":8192}}', 8192),
        (b'{"default_generation_settings":{"n_ctx":true}}', 0),
        (b'{"default_generation_settings":{"n_ctx":-1}}', 0),
        (b'{"default_generation_settings":[]}', 0),
        (b"[]", None),
        (b"null", None),
    ],
)
def test_what_describes_itself_as_llama(content: bytes, context: int | None) -> None:
    assert _parse_context(json.loads(content)) == context


@pytest.mark.parametrize(
    "changed",
    [
        {"HostConfig": {"NanoCpus": 150000000}},
        {"HostConfig": {"CpuQuota": 15000}},
        {"HostConfig": {"Memory": 1 << 30}},
        {"Config": {**container()["Config"], "Labels": {
            "com.docker.compose.service": "llm", "com.docker.compose.config-hash": "b"}}},
    ],
)  # fmt: skip
def test_the_limits_of_a_container_are_its_settings(changed: dict[str, Any]) -> None:
    (plain,) = read(containers=json.dumps([container()]).splitlines()).runners
    (other,) = read(containers=json.dumps([{**container(), **changed}]).splitlines()).runners
    assert plain.settings != other.settings
    assert make_key(MovePolicy(), [plain]) != make_key(MovePolicy(), [other])


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b'{"models":[{"name":"a:latest"},{"name":"../x"},{"name":5},7]}', ("a:latest",)),
        (b'{"models":[]}', ()),
        (b'{"models":{}}', None),
        (b"Not found", None),
    ],
)
def test_what_an_ollama_has(content: bytes, names: object) -> None:
    assert _parse_tags(content) == names


@pytest.mark.parametrize("sections", [{"engine": 1}, {"volumes": 1}])
def test_an_engine_that_does_not_answer_is_no_host_without_a_worker(
    sections: dict[str, int],
) -> None:
    parts: dict[str, tuple[int, list[str]]] = {
        "engine": (0, []),
        "volumes": (0, []),
        "read": (0, []),
    }
    parts |= {name: (status, []) for name, status in sections.items()}
    assert "does not list" in parse(framed(parts), MARK, "ai").problem
    assert not read().problem


def test_memory_and_volumes() -> None:
    found = read(
        memory=["MemAvailable:    8 kB"],
        vram=["10", "20"],
        volumes=["ai_stackmend-ollama", "../x"],
    )
    assert (found.available, found.gpu_free) == (8192, 30 << 20)
    assert found.volumes == ("ai_stackmend-ollama",)
    assert read(memory=["x"], vram=["[N/A]"]).available is None
    assert read(vram=["[N/A]"]).gpu_free is None


def test_what_its_variables_say_of_how_it_serves() -> None:
    env = ["LLAMA_ARG_CTX_SIZE=8192", "LLAMA_API_KEY=hush"]
    found = runner(Config={**container()["Config"], "Env": env})
    assert found.env == {"LLAMA_ARG_CTX_SIZE": "8192", "LLAMA_API_KEY": "***"}


def test_who_is_connected() -> None:
    mapped = "0000000000000000FFFF0000060012AC:0050"
    text = f"050012AC:9C40\n0100007F:1F90\n{mapped}\nx\n050012AC:9C41\n"
    assert parse_callers(text) == ("172.18.0.5", "172.18.0.6")


def words(command: StringCommand) -> list[str]:
    return shlex.split(command.get_raw_value())[3:]


def test_commands() -> None:
    path = "/m/a b'$(x).gguf"
    assert words(commands.copy_model(ID, path, "b")) == ["copy", ID, path, "b"]
    assert words(commands.retire("ai", "llm", remove=True)) == ["retire", "ai", "llm", "yes"]
    assert words(commands.remove_volume("ai", "v")) == ["unvolume", "ai", "v"]
    assert words(commands.write_record("ai")) == ["keep", "/var/lib/stackmend/ai/move.json", "yes"]


def test_which_files_a_container_has_not(tmp_path: Path) -> None:
    """As Docker says it: what is there is cut off, and what cannot be asked is not known."""
    docker = tmp_path / "docker"
    docker.write_text(
        "#!/bin/sh\n"
        "case $3 in *:/here.gguf) head -c 1000000 /dev/zero ;;\n"
        "*:/gone.gguf) echo 'Error response from daemon: Could not find the file /gone.gguf in"
        " container c' >&2; exit 1 ;;\n"
        "*) echo 'Cannot connect to the Docker daemon' >&2; exit 1 ;; esac\n"
    )
    docker.chmod(0o755)
    command = commands.list_absent(ID, ["/here.gguf", "/gone.gguf", "/unknown.gguf"])
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    found = subprocess.run(
        ["sh", "-c", command.get_raw_value()], env=env, capture_output=True, text=True, check=True
    )
    assert found.stdout == "/gone.gguf\n"
