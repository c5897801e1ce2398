"""Which endpoints a stack needs, what settings may say, what DNS servers and providers answer."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from stackmend import compose, models
from stackmend.compose.spec import ComposeSpec
from stackmend.connectivity import get_arguments
from stackmend.connectivity.endpoints import list_needed, parse_image, parse_remote
from stackmend.connectivity.providers import parse
from stackmend.connectivity.spec import ConnectivityPolicy, Endpoint
from stackmend.models.spec import ModelsPolicy
from stackmend.problems import join_problems
from stackmend.raw import validate


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("ghcr.io/v2/", "https://ghcr.io/v2/"),
        ("http://deb.lan:8080", "http://deb.lan:8080/"),
        ("ssh://git.lan", "ssh://git.lan"),
        ("tcp://db.lan:5432", "tcp://db.lan:5432"),
        ("https://[fd00::1]:5000/v2/", "https://[fd00::1]:5000/v2/"),
        ("192.0.2.1", "https://192.0.2.1/"),
        ("HTTP://deb.lan", "http://deb.lan/"),
    ],
)
def test_an_endpoint_is_a_url(text: str, url: str) -> None:
    assert str(Endpoint.model_validate(text)) == url


def test_a_remote_is_read_without_case_of_its_scheme() -> None:
    assert str(parse_remote("HTTP://git.lan/x.git")) == "http://git.lan/x.git/info/refs"
    assert str(parse_remote("SSH://git@git.lan/x.git")) == "ssh://git.lan"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("ftp://x", "must be"),
        ("https://user:secret@x", "without user, password"),
        ("https://x/?token=secret", "without user, password"),
        ("tcp://x", "tcp needs a port"),
        ("https://x:0", "ports go from 1 to 65535"),
        ("https://x:99999", "ports go from 1 to 65535"),
        ("https://-x$(id)", "must be"),
        ({"url": "https://x", "host": "y"}, "not both"),
        ({"host": "a b"}, "neither a name nor an IP address"),
        ({"host": "x", "path": "/a b"}, "is none of a URL"),
        ({"host": "x", "path": "/'$(id)\n"}, "is none of a URL"),
        ({"host": "x", "addresses": ["y"]}, "is no IP address"),
        ({"url": "ssh://x", "statuses": [204]}, "holds HTTP statuses"),
        ({"host": "x", "rate_limit": "../../x"}, "is no repository"),
        (7, "must be an address"),
    ],
)
def test_what_is_no_endpoint(raw: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)) as caught:
        validate(ConnectivityPolicy, {"endpoints": [raw]})
    assert "secret" not in join_problems(caught.value)


@pytest.mark.parametrize(
    ("reference", "url"),
    [
        ("redis:7", "https://registry-1.docker.io/v2/"),
        ("docker.io/library/redis", "https://registry-1.docker.io/v2/"),
        ("owner/api", "https://registry-1.docker.io/v2/"),
        ("ghcr.io/owner/api@sha256:0", "https://ghcr.io/v2/"),
        ("localhost/api", "https://localhost/v2/"),
        ("registry.lan:5000/api:1", "https://registry.lan:5000/v2/"),
        ("${IMAGE}", None),
        ("scratch", None),
        ("", None),
    ],
)
def test_an_image_names_its_registry(reference: str, url: str | None) -> None:
    found = parse_image(reference)
    assert (str(found) if found else None) == url


@pytest.mark.parametrize(
    ("remote", "url"),
    [
        ("https://github.com/o/r.git#main:dir", "https://github.com/o/r.git/info/refs"),
        ("https://u:secret@git.lan:8443/o/r.git", "https://git.lan:8443/o/r.git/info/refs"),
        ("git@github.com:o/r.git", "ssh://github.com"),
        ("ssh://git@git.lan:2222/o/r.git", "ssh://git.lan:2222"),
        ("git://git.lan/r.git", "tcp://git.lan:9418"),
        ("./api", None),
        ("/srv/api", None),
    ],
)
def test_a_git_remote_names_its_server(remote: str, url: str | None) -> None:
    found = parse_remote(remote)
    assert (str(found) if found else None) == url


def test_what_a_stacks_files_need(tmp_path: Path) -> None:
    services = {
        "api": {"build": {"context": "./api"}, "image": "own/api"},
        "far": {"build": "https://git.lan/o/r.git"},
        "redis": {"image": "${REGISTRY:-registry.lan}/redis:7"},
        "kept": {"image": "elsewhere.lan/kept", "pull_policy": "never"},
        "unknown": {"image": "${NOBODY_SAYS}/x"},
    }
    (tmp_path / "compose.yaml").write_text(yaml.safe_dump({"services": services}))
    (tmp_path / "api").mkdir()
    (tmp_path / "api" / "Dockerfile").write_text(
        "ARG V=1\nFROM --platform=$P quay.io/o/base:1 AS build\nfrom build as next\n"
        "FROM python:$V\nFROM scratch\nCOPY --from=build /a /a\n"
    )
    spec = ComposeSpec.model_validate({"project": "ai", "source": tmp_path, "directory": "/opt/ai"})
    images, remotes = compose.find_outside(spec)
    wanted = ["llama3.2", {"name": "x", "source": "models.lan:5000/t/x:1", "insecure": True}]
    registries = models.find_registries(ModelsPolicy.model_validate({"wanted": wanted}))
    policy = ConnectivityPolicy.model_validate({"endpoints": ["https://own.lan"]})
    assert [str(one) for one in list_needed(policy, images, remotes, registries)] == [
        "https://own.lan/",
        "https://quay.io/v2/",
        "https://registry.lan/v2/",
        "https://git.lan/o/r.git/info/refs",
        "https://registry.ollama.ai/v2/",
        "http://models.lan:5000/v2/",
    ]
    alone = policy.model_copy(update={"derived": False})
    found = get_arguments(alone, images, remotes, registries)
    assert [str(one) for one in found["endpoints"]] == ["https://own.lan/"]
    assert found["derived"] is False
    # Where the files cannot be read nothing is known, and the operation that needs them says why.
    gone = ComposeSpec.model_validate({"project": "a", "source": "/nowhere", "directory": "/a"})
    assert compose.find_outside(gone) == ((), ())
    source = {"git": "https://me:token@git.lan/o/stack.git"}
    fetched = ComposeSpec.model_validate({"project": "a", "source": source, "directory": "/a"})
    assert compose.find_outside(fetched) == ((), ("https://git.lan/o/stack.git",))


def test_pages_of_both_kinds() -> None:
    assert parse("x", {"status": {"indicator": "minor", "description": "d"}}).indicator == "minor"
    overall = {"status": "Partial Service Disruption", "status_code": 500}
    said = parse("Docker", {"result": {"status_overall": overall}})
    assert (said.indicator, said.text) == ("major", "Partial Service Disruption")
    for body in ({}, [], 7, None, {"status": "none"}, {"result": {}}, {"status": {"indicator": 1}}):
        with pytest.raises(ValueError, match=r"status|indicator"):
            parse("x", body)


SCRIPT_PATH = Path("ops/stackmend/connectivity/probe.sh")
SCRIPT = SCRIPT_PATH.read_text()


def run_awk(name: str, lines: str, *values: str) -> list[str]:
    (program,) = re.findall(rf"^{name}='\n(.*?)'\n", SCRIPT, re.DOTALL | re.MULTILINE)
    words = [word for value in values for word in ("-v", value)]
    done = subprocess.run(
        ["awk", *words, program],
        input=lines,
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    return done.stdout.splitlines()


def test_the_questions_for_dns_are_as_they_should_be() -> None:
    rows = run_awk("questions", "", "name=registry-1.docker.io", "id=258")
    asked = [row.split() for row in rows]
    assert [(number, kind) for number, kind, _ in asked] == [
        ("259", "1"),
        ("260", "1"),
        ("261", "1"),
        ("262", "28"),
    ]
    data = bytes(int(part, 8) for part in asked[3][2].split("\\")[1:])
    assert data == (b"\x01\x06\x01\0\0\1\0\0\0\0\0\0\x0aregistry-1\x06docker\x02io\0\0\x1c\0\1")


def message(kind: int, rows: list[tuple[int, bytes]], code: int = 0) -> bytes:
    head = b"\x01\x02\x81" + bytes([0x80 | code]) + b"\0\1\0" + bytes([len(rows)]) + b"\0\0\0\0"
    body = b"\x01a\x03lan\0\0" + bytes([kind]) + b"\0\1"
    for of, data in rows:
        body += b"\xc0\x0c\0" + bytes([of]) + b"\0\1\0\0\0\1\0" + bytes([len(data)]) + data
    return head + body


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (f"258 1 3 0 {message(1, [(5, b'x'), (1, bytes([192, 0, 2, 7]))]).hex()}",
         "4 answered 3 192.0.2.7"),
        (f"258 28 3 0 {message(28, [(28, IPv6Address('fd00::7').packed)]).hex()}",
         "6 answered 3 fd00:0000:0000:0000:0000:0000:0000:0007"),
        (f"258 1 3 0 {message(1, []).hex()}", "4 none 3"),
        (f"258 1 3 0 {message(1, [], 3).hex()}", "4 absent 3"),
        (f"258 1 3 0 {message(1, [], 2).hex()}", "4 failed 3"),
        (f"258 1 3 0 {message(1, [], 5).hex()}", "4 denied 3"),
        (f"259 1 3 0 {message(1, []).hex()}", "4 unreadable 3"),
        ("258 1 3 124", "4 timeout 3"),
        ("258 1 3 1", "4 refused 3"),
        ("258 1 3 8", "4 filtered 3"),
        ("258 1 3 9", "4 unreachable 3"),
    ],
)  # fmt: skip
def test_what_a_dns_server_answered(row: str, told: str) -> None:
    assert [" ".join(line.split()) for line in run_awk("answer", f"{row}\n")] == [told]


_ROW = re.compile(
    r"[46] [a-z]+ 3 *(?: (?:\d{1,3}(?:\.\d{1,3}){3}|[0-9a-f]{4}(?::[0-9a-f]{4}){7}))*"
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=80), min_size=1, max_size=20), st.sampled_from((1, 28)))
def test_a_dns_server_that_lies_says_addresses_or_nothing(tails: list[bytes], kind: int) -> None:
    whole = message(kind, [(kind, b"\1\2\3\4")])
    rows = [f"258 {kind} 3 0 {data.hex()}" for tail in tails for data in (tail, whole[:-3] + tail)]
    found = run_awk("answer", "\n".join(rows) + "\n")
    assert len(found) == len(rows)
    assert all(_ROW.fullmatch(line.rstrip()) for line in found), found


def run_functions(*names: str, script: str, path: Path, **programs: str) -> list[str]:
    """What a script says with functions of the probe, and programs besides the host's."""
    functions = "\n".join(
        found[0]
        for name in names
        if (found := re.search(rf"^{name}\(\) {{.*?^}}$", SCRIPT, re.M | re.S))
    )
    for name, text in programs.items():
        program = path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
    done = subprocess.run(
        ["sh", "-c", f"PATH={path}/bin:$PATH dir=.\n{functions}\n{script}"],
        cwd=path,
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("proxy", "outside"),
    [
        ("https://proxy.lan:3129", "proxy.lan:3129:192.0.2.8"),
        ("http://u:p@proxy.lan:3128/", "proxy.lan:3128:192.0.2.8"),
        ("https://proxy.lan", "proxy.lan:443:192.0.2.8"),
        ("proxy.lan", "proxy.lan:1080:192.0.2.8"),
        ("http://six.lan:3128", "six.lan:3128:[2001:db8::8]"),
        ("http://nobody.lan:3128", ""),
        ("http://proxy.lan:x", ""),
        ("http://192.0.2.9:3128", ""),
        ("http://[2001:db8::9]:3128", ""),
    ],
)
def test_a_proxy_of_containers_keeps_its_name(proxy: str, outside: str, tmp_path: Path) -> None:
    (tmp_path / "inner").write_text(f"https_proxy={proxy}\n")
    getent = """case $2 in
        proxy.lan) echo '2001:db8::8 STREAM proxy.lan'; echo '192.0.2.8 STREAM' ;;
        six.lan) echo '2001:db8::8 STREAM six.lan' ;;
        *) exit 2 ;;
    esac"""
    told = run_functions(
        "find_inner_proxy",
        "check_proxy",
        script="scheme=https host=far.lan resolved=''; find_inner_proxy; "
        'echo "$inner" "$outside"',
        path=tmp_path,
        getent=getent,
    )
    assert told == [f"{proxy} {outside}"]


@pytest.mark.parametrize("outside", ["proxy.lan:3129:192.0.2.8", ""])
def test_curl_finds_a_proxy_of_containers_where_the_host_does(outside: str, tmp_path: Path) -> None:
    run_functions(
        "limited",
        "exchange",
        script="index=1 at=container address='' host=far.lan port=443 scheme=https path=/ "
        "seconds=5 client=curl proxy=https://proxy.lan:3129 file=x within='' "
        f"outside='{outside}'; exchange 1",
        path=tmp_path,
        curl=f'cat >{tmp_path}/input; echo "$@" >{tmp_path}/words',
    )
    assert (tmp_path / "input").read_text() == 'proxy = "https://proxy.lan:3129"\n'
    words = (tmp_path / "words").read_text().split()
    assert [
        words[at + 1] for at, word in enumerate(words) if word == "--resolve"
    ] == outside.split()


@pytest.mark.parametrize(
    ("excepted", "proxy"),
    [
        ("*", ""),
        ("a.lan,*", ""),
        ("f*", "http://p:1"),
        (".lan", ""),
        ("lan", ""),
        ("an", "http://p:1"),
    ],
)
def test_names_without_a_proxy_are_no_names_of_files(
    excepted: str, proxy: str, tmp_path: Path
) -> None:
    (tmp_path / "own").write_text(f"no_proxy={excepted}\n")
    (tmp_path / "far.lan").touch()
    told = run_functions(
        "check_proxy",
        script='host=far.lan proxy=http://p:1 from=own; check_proxy; echo "$proxy" *.lan',
        path=tmp_path,
    )
    assert told == [f"{proxy} far.lan"]


def test_python_exits_as_curl_does_where_the_answer_is_no_http(tmp_path: Path) -> None:
    """Exit 1 is what python3 itself ends with where it cannot ask at all."""
    program = SCRIPT_PATH.with_name("exchange.py").read_text()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        words = ["20", "http", "far.lan", port, "/", "127.0.0.1", str(tmp_path / "head")]
        with subprocess.Popen(
            [sys.executable, "-I", "-c", program, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as asking:
            peer, _ = server.accept()
            with peer:
                peer.recv(4096)
                peer.sendall(b"nonsense\r\n\r\n")
            _, error = asking.communicate(timeout=20)
    assert (asking.returncode, error) == (8, "nonsense\n\n")
