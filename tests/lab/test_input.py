"""Wrong input: one message with the field's path, and no host hears anything of it."""

from __future__ import annotations

import contextlib
import os
import pprint
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from stackmend.spec import SpecError, check
from tests.lab import controller
from tests.lab.hosts import LabHost
from tests.lab.stacks import Shop

COMPOSE: Mapping[str, Any] = {"services": {"web": {"image": "lab/box:1"}}}


class Listener:
    """Stands where the host's sshd would, and counts who comes."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.visitors = 0
        threading.Thread(target=self._count, daemon=True).start()

    def _count(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                visitor, _ = self._socket.accept()
                self.visitors += 1
                visitor.close()

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.close()


def project(directory: Path, compose: Any = COMPOSE) -> Path:
    """A project's directory; `compose` is plain data, or the very text of compose.yaml."""
    source = directory / "source"
    source.mkdir(exist_ok=True)
    text = compose if isinstance(compose, str) else yaml.safe_dump(compose)
    (source / "compose.yaml").write_text(text)
    return source


def settings(source: Path, /, **changes: Any) -> dict[str, Any]:
    right = {"project": "shop", "source": str(source), "directory": "/opt/shop"}
    return right | changes


def run(directory: Path, port: int, *stacks: Any, command: str = "-y") -> controller.Run:
    """``pyinfra ... deploy/site.py`` for one host for each stack, all of them at `port`."""
    rows = [
        (
            f"host-{number}",
            {
                "ssh_hostname": "127.0.0.1",
                "ssh_port": port,
                "ssh_user": "root",
                "ssh_strict_host_key_checking": "no",
                "ssh_known_hosts_file": str(directory / "known_hosts"),
                "ssh_paramiko_connect_kwargs": {"timeout": 5, "banner_timeout": 5},
                "stack": stack,
            },
        )
        for number, stack in enumerate(stacks, start=1)
    ]
    inventory = directory / "hosts.py"
    inventory.write_text(f"hosts = {pprint.pformat(rows, sort_dicts=False)}\n")
    return controller.run(
        inventory,
        "deploy/site.py",
        command,
        timeout=60,
        env={"STACKMEND_REPORTS": str(directory / "reports")},
    )


def service(**changes: Any) -> dict[str, Any]:
    return {"services": {"web": {"image": "lab/box:1", **changes}}}


#: The cases that the whole program is run for: what is wrong, and what the message must say.
NAMED: Mapping[str, tuple[Any, Mapping[str, Any], tuple[str, ...]]] = {
    "unknown-key": (COMPOSE, {"projct": "shop"}, ("stack.projct: unknown key", "project")),
    "bad-port": (
        service(ports=["99999:80"]),
        {},
        ("stack.source: compose.yaml: services.web.ports.0: 99999 is not a port", "65535"),
    ),
    "no-such-service": (
        COMPOSE,
        {"checks": [{"kind": "tcp", "address": "web:80", "inside": "wbe"}]},
        ("stack.checks[0].inside: there is no service 'wbe'", "there are web"),
    ),
    "path-outside-the-project": (
        service(volumes=["../../etc:/configuration"]),
        {},
        ("services.web.volumes.0: ../../etc lies outside the project",),
    ),
    "unparsable-yaml": (
        "services:\n  web: [\n",
        {},
        ("stack.source: compose.yaml line 3: not valid YAML",),
    ),
}


@pytest.mark.parametrize("case", NAMED)
def test_ends_with_one_message_before_any_host_is_contacted(
    tmp_path: Path, listener: Listener, case: str
) -> None:
    compose, changes, said = NAMED[case]
    done = run(tmp_path, listener.port, settings(project(tmp_path, compose), **changes))
    assert done.rc == 1, done.out
    for words in said:
        assert words in done.out
    assert done.out.count("no host was contacted") == 1
    assert "Traceback" not in done.out
    assert listener.visitors == 0
    assert not (tmp_path / "reports").exists()


# What is wrong before it can be settings: each a project's directory made odd, and the settings as
# an inventory has them.


def _pipe_for_a_compose_file(source: Path) -> str:
    (source / "compose.yaml").unlink()
    os.mkfifo(source / "compose.yaml")
    return "right"


def _pipe_for_a_key(source: Path) -> str:
    os.mkfifo(source.parent / "me.pub")
    key = str(source.parent / "me.pub")
    return f"{{**right, 'access': {{'user': 'ops', 'public_keys': [{key!r}]}}}}"


def _pipe_for_a_modelfile(source: Path) -> str:
    os.mkfifo(source.parent / "Modelfile")
    one = {"name": "own", "modelfile": str(source.parent / "Modelfile")}
    return f"{{**right, 'models': {{'service': 'web', 'wanted': [{one!r}]}}}}"


def _pipe_for_known_hosts(source: Path) -> str:
    os.mkfifo(source.parent / "hosts")
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIP7kQ8FQx0zE2gAVoVJ4o7KkvXQ9VX2b5nD3nq2mJ0aB"
    access = {"user": "ops", "public_keys": [key], "known_hosts": str(source.parent / "hosts")}
    return f"{{**right, 'access': {access!r}}}"


def _sparse_file(source: Path) -> str:
    with (source / "weights.bin").open("wb") as file:
        file.truncate(3 * 1024**3)
    return "right"


def _bomb(source: Path) -> str:
    lines = ["x-0: &a0 [x]"]
    lines += [f"x-{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    lines.append("services: {web: {image: a, ports: *a11}}")
    (source / "compose.yaml").write_text("\n".join(lines))
    return "right"


def _nested(source: Path) -> str:
    (source / "compose.yaml").write_text("x-a: " + "[" * 50_000)
    return "right"


def _key_twice(source: Path) -> str:
    (source / "compose.yaml").write_text("services:\n  web: {image: a}\n  web: {image: b}\n")
    return "right"


def _name_too_long(source: Path) -> str:
    return "{**right, 'source': '/' + 'a' * 300}"


def _surrogate(source: Path) -> str:
    return "{**right, 'env': {'A': 'x\\ud800'}}"


def _holds_itself(source: Path) -> str:
    return "right\nstack['env'] = stack"


def _number_of_digits(source: Path) -> str:
    return "{**right, 'env': {'A': 10 ** 5000}}"


def _broken_object(source: Path) -> str:
    return (
        "right\nclass Odd:\n    def __getattribute__(self, name): raise RuntimeError('odd')\n"
        "    def __repr__(self): raise RuntimeError('odd')\n"
        "stack['checks'] = [Odd()]"
    )


ODD: Mapping[str, tuple[Callable[[Path], str], str]] = {
    "pipe-for-a-compose-file": (
        _pipe_for_a_compose_file,
        "stack.source: compose.yaml is neither a file nor a directory, but a named pipe",
    ),
    "pipe-for-a-key": (_pipe_for_a_key, "stack.access.public_keys[0]: "),
    "pipe-for-a-modelfile": (_pipe_for_a_modelfile, "stack.models.wanted[0].modelfile: "),
    "pipe-for-known-hosts": (_pipe_for_known_hosts, "stack.access.known_hosts: "),
    "sparse-file": (_sparse_file, "holds more than 64 MiB (at weights.bin)"),
    "bomb": (_bomb, "stack.source: compose.yaml line 6: more than 30000 values"),
    "nested": (_nested, "stack.source: compose.yaml line 1: nested deeper than 64 levels"),
    "key-twice": (_key_twice, "compose.yaml line 3: duplicate key 'web', first in line 2 and"),
    "name-too-long": (_name_too_long, "is too long for the name of a file; 255 bytes are"),
    "surrogate": (_surrogate, "stack.env.A: holds half of a character, which is no text"),
    "holds-itself": (_holds_itself, "stack.env: holds itself; write out what it is to hold"),
    "number-of-digits": (_number_of_digits, "stack.env.A: a number of 16610 bits is too large"),
    "broken-object": (_broken_object, "stack.checks[0]: must be plain data: text, a number"),
}


@pytest.mark.parametrize("case", ODD)
def test_odd_input_ends_as_soon_with_one_message(
    tmp_path: Path, listener: Listener, case: str
) -> None:
    make, said = ODD[case]
    right = settings(project(tmp_path))
    at = {"ssh_hostname": "127.0.0.1", "ssh_port": listener.port, "ssh_user": "root"}
    inventory = tmp_path / "hosts.py"
    stack = make(tmp_path / "source")
    inventory.write_text(
        f"right = {right!r}\nstack = {stack}\nhosts = [('host-1', {{**{at!r}, 'stack': stack}})]\n"
    )
    done = controller.run(inventory, "deploy/site.py", "-y", timeout=60)
    assert done.rc == 1, done.out[-2000:]
    assert done.out.count("wrong settings; no host was contacted: stack.") == 1
    assert said in " ".join(done.out.split())
    assert "Traceback" not in done.out
    assert "internal exception" not in done.out
    assert len(done.out) < 4000
    assert listener.visitors == 0


def test_right_input_does_contact_the_host(tmp_path: Path, listener: Listener) -> None:
    """What the other tests of this file find silent does speak when it has reason to."""
    done = run(tmp_path, listener.port, settings(project(tmp_path)))
    assert done.rc == 1, done.out
    assert listener.visitors >= 1


def test_one_wrong_host_of_two_stops_the_run_for_both(tmp_path: Path, listener: Listener) -> None:
    right = settings(project(tmp_path))
    done = run(tmp_path, listener.port, right, {**right, "project": "No Name"}, command="--dry")
    assert done.rc == 1, done.out
    assert "stack.project: " in done.out
    assert "(host-2)" in done.out
    assert "host-1)" not in done.out
    assert listener.visitors == 0


def test_every_problem_of_every_host_is_in_the_one_message(
    tmp_path: Path, listener: Listener
) -> None:
    right = settings(project(tmp_path))
    done = run(
        tmp_path,
        listener.port,
        {**right, "directory": "opt", "stability": -1},
        {**right, "directory": "opt"},
    )
    assert done.rc == 1, done.out
    assert done.out.count("no host was contacted") == 1
    assert done.out.count("stack.directory: must be an absolute path") == 1
    assert "such as /opt/ai; got 'opt' (all hosts)" in done.out
    assert "stack.stability: " in done.out
    assert listener.visitors == 0


def test_a_real_host_sees_no_login(host: LabHost, tmp_path: Path) -> None:
    shop = Shop(tmp_path, host, health_timeout=0)
    mark = host.mark()
    done = shop.run("-y")
    assert done.rc == 1, done.out
    assert "stack.health_timeout: must be greater than 0" in done.out
    assert host.logins_since(mark) == 0


# Settings, one field each: the path in the message must be the field's.

SETTINGS: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "no-project": ({"project": None}, "stack.project: "),
    "project-with-blanks": ({"project": "My Shop"}, "stack.project: "),
    "project-like-an-option": ({"project": "-p"}, "stack.project: "),
    "project-ending-in-a-newline": ({"project": "shop\n"}, "stack.project: "),
    "directory-relative": ({"directory": "opt/shop"}, "stack.directory: "),
    "directory-of-the-system": ({"directory": "/etc/"}, "stack.directory: /etc is the system's"),
    "directory-is-the-root": ({"directory": "//"}, "stack.directory: / is the system's"),
    "directory-climbs": ({"directory": "/opt/../etc"}, "stack.directory: "),
    "directory-with-a-newline": ({"directory": "/opt/a\nb"}, "stack.directory: "),
    "source-missing": ({"source": "/nowhere/at/all"}, "stack.source: /nowhere/at/all is not"),
    "env-name": ({"env": {"A-B": "1"}}, "stack.env: 'A-B' is not a variable name"),
    "env-name-is-a-command": ({"env": {"$(id)": "1"}}, "stack.env: '$(id)' is not"),
    "env-value-missing": ({"env": {"A": None}}, "stack.env: A must be text"),
    "env-value-is-a-list": ({"env": {"A": ["x"]}}, "stack.env: A must be text"),
    "env-value-with-nul": ({"env": {"A": "x\0y"}}, "stack.env: A holds a NUL"),
    "env-is-a-list": ({"env": ["A=1"]}, "stack.env: "),
    "check-of-no-kind": ({"checks": [{"kind": "ping"}]}, "stack.checks[0]: "),
    "check-unknown-key": (
        {"checks": [{"kind": "http", "url": "http://127.0.0.1/", "statuss": 200}]},
        "stack.checks[0].statuss: unknown key",
    ),
    "check-url-scheme": (
        {"checks": [{"kind": "http", "url": "ftp://127.0.0.1/"}]},
        "stack.checks[0].url: must be http:// or https://",
    ),
    "check-url-port": (
        {"checks": [{"kind": "http", "url": "http://127.0.0.1:99999/"}]},
        "stack.checks[0].url: port '99999' must be a number from 1 to 65535",
    ),
    "check-address-port": (
        {"checks": [{"kind": "tcp", "address": "web:0"}]},
        "stack.checks[0].address: port '0' must be",
    ),
    "check-in-no-service": (
        {"checks": [{"kind": "exec", "service": "nope", "command": "true"}]},
        "stack.checks[0].service: there is no service 'nope'",
    ),
    "check-program-like-an-option": (
        {"checks": [{"kind": "exec", "service": "web", "command": ["-it", "sh"]}]},
        "stack.checks[0].command: ",
    ),
    "check-timeout-negative": (
        {"checks": [{"kind": "tcp", "address": "web:80", "timeout": -1}]},
        "stack.checks[0].timeout: ",
    ),
    "second-check-deadline-negative": (
        {
            "checks": [
                {"kind": "tcp", "address": "web:80"},
                {"kind": "tcp", "address": "web:81", "deadline": -1},
            ]
        },
        "stack.checks[1].deadline: ",
    ),
    "checks-of-one-name": (
        {
            "checks": [
                {"kind": "tcp", "address": "web:80", "name": "a"},
                {"kind": "tcp", "address": "web:81", "name": "a"},
            ]
        },
        "stack.checks: two checks have the name 'a'",
    ),
    "profile-like-an-option": ({"profiles": ["--help"]}, "stack.profiles[0]: "),
    "profiles-not-a-list": ({"profiles": "dev"}, "stack.profiles: "),
    "health-timeout-negative": ({"health_timeout": -5}, "stack.health_timeout: "),
    "health-timeout-not-a-number": ({"health_timeout": float("nan")}, "stack.health_timeout: "),
    "stability-negative": ({"stability": -1}, "stack.stability: "),
    "on-failure": ({"on_failure": "explode"}, "stack.on_failure: must be 'rollback'"),
    "mend-unknown-key": ({"mend": {"attempt": 1}}, "stack.mend.attempt: unknown key"),
    "mend-is-a-number": ({"mend": 5}, "stack.mend: must be a mapping"),
    "mend-attempts-negative": ({"mend": {"attempts": -1}}, "stack.mend.attempts: "),
    "mend-window-nothing": ({"mend": {"window": 0}}, "stack.mend.window: "),
    "mend-backoff-negative": ({"mend": {"backoff": [0, -5]}}, "stack.mend.backoff[1]: "),
    "consent-to-everything": ({"allow": ["everything"]}, "stack.allow[0]: must be 'container:"),
    "consent-to-nothing": ({"allow": ["container:"]}, "stack.allow[0]: "),
    "consent-relative": ({"allow": ["project:opt/shop"]}, "stack.allow[0]: "),
    "minimum-free-unit": ({"minimum_free": "2 GiBs"}, "stack.minimum_free: "),
    "minimum-free-negative": ({"minimum_free": -1}, "stack.minimum_free: "),
    "report-unknown-key": ({"report": {"dir": "x"}}, "stack.report.dir: unknown key"),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_setting(tmp_path: Path, case: str) -> None:
    changes, said = SETTINGS[case]
    assert said in problem({"stack": settings(project(tmp_path), **changes)})


@pytest.mark.parametrize("stack", [[], "shop", 5])
def test_stack_that_is_no_mapping(stack: Any) -> None:
    assert problem({"stack": stack}) == "stack: must be a mapping or a Stack"


def test_stack_with_nothing_in_it() -> None:
    lines = problem({"stack": {}}).splitlines()
    assert lines == ["stack.project: missing", "stack.source: missing", "stack.directory: missing"]


def test_a_message_shows_no_password(tmp_path: Path) -> None:
    wrong = settings(
        project(tmp_path),
        env={"TOKEN": ["sesame-open"]},
        checks=[
            {"kind": "http", "url": "http://user:sesame-open@127.0.0.1/"},
            {"kind": "http", "url": "redis://:sesame-open@127.0.0.1/"},
        ],
    )
    said = problem({"stack": wrong})
    assert "stack.checks[0].url: " in said
    assert "stack.checks[1].url: " in said
    assert "stack.env: TOKEN" in said
    assert "sesame" not in said


# The compose file, one fault each: the path in the message must be the place in the file.

FILES: Mapping[str, tuple[Any, str]] = {
    "empty": ("", "must be a mapping with 'services'"),
    "a-list": ("- a\n", "must be a mapping with 'services'"),
    "tab": ("services:\n\tweb: x\n", "line 2: not valid YAML"),
    "unknown-alias": ("services:\n  web: *nobody\n", "line 2: not valid YAML"),
    "python-object": (
        "services:\n  web:\n    image: !!python/object/apply:os.system ['true']\n",
        "line 3: not valid YAML",
    ),
    "no-services": ("networks: {}\n", "services: missing"),
    "services-is-a-list": ({"services": ["web"]}, "services: must be a mapping"),
    "service-is-text": ({"services": {"web": "nginx"}}, "services.web: must be a mapping"),
    "unknown-top-key": ({"service": {}}, "service: unknown key; known are configs"),
    "required-variable": (
        service(environment={"KEY": "${TOKEN:?give it}"}),
        "services.web.environment.KEY: ${TOKEN} has no value: give it; set it in env",
    ),
    "unknown-key": (service(prots=["80:80"]), "services.web.prots: unknown key of a service"),
    "nothing-to-run": ({"services": {"web": {}}}, "services.web: has neither image nor build"),
    "port-is-a-word": (service(ports=["80:http"]), "services.web.ports.0: '80:http' is not ["),
    "port-too-high": (service(ports=["80", "80:65536"]), "services.web.ports.1: 65536 is not a"),
    "port-nothing": (service(ports=[{"target": 0}]), "services.web.ports.0.target: 0 is not a"),
    "port-long-form": (
        service(ports=[{"target": 80, "published": "70000"}]),
        "services.web.ports.0.published: 70000 is not a port",
    ),
    "port-range-backwards": (
        service(ports=["8010-8000:80"]),
        "services.web.ports.0: 8010-8000 is not a range",
    ),
    "ports-not-a-list": (service(ports=80), "services.web.ports: must be a list"),
    "depends-on-nobody": (
        service(depends_on=["db"]),
        "services.web.depends_on: there is no service 'db'; there are web",
    ),
    "depends-on-nobody-with-condition": (
        service(depends_on={"db": {"condition": "service_healthy"}}),
        "services.web.depends_on: there is no service 'db'",
    ),
    "depends-on-is-text": (service(depends_on="db"), "services.web.depends_on: must be a list or"),
    "shares-the-network-of-nobody": (
        service(network_mode="service:db"),
        "services.web.network_mode: there is no service 'db'",
    ),
    "links-to-nobody": (
        service(links=["db:database"]),
        "services.web.links: there is no service 'db'",
    ),
    "volumes-from-nobody": (
        service(volumes_from=["db:ro"]),
        "services.web.volumes_from: there is no service 'db'",
    ),
    "env-file-outside": (
        service(env_file="../web.env"),
        "services.web.env_file.0: ../web.env lies outside the project",
    ),
    "env-file-missing": (
        service(env_file=["web.env"]),
        "services.web.env_file.0: web.env is not among the project's files",
    ),
    "mount-outside": (
        service(volumes=[{"type": "bind", "source": "./a/../../b", "target": "/b"}]),
        "services.web.volumes.0: ./a/../../b lies outside the project",
    ),
    "build-outside": (
        {"services": {"web": {"build": ".."}}},
        "services.web.build.context: .. lies outside the project",
    ),
    "dockerfile-outside": (
        {"services": {"web": {"build": {"context": ".", "dockerfile": "../Dockerfile"}}}},
        "services.web.build.dockerfile: ../Dockerfile lies outside the project",
    ),
    "extends-outside": (
        service(extends={"file": "../common.yaml", "service": "web"}),
        "services.web.extends.file: ../common.yaml lies outside the project",
    ),
    "include-outside": (
        {"include": ["../more.yaml"]},
        "include.0: ../more.yaml lies outside the project",
    ),
    "config-missing": (
        {**COMPOSE, "configs": {"main": {"file": "./main.conf"}}},
        "configs.main.file: ./main.conf is not among the project's files",
    ),
    "secret-outside": (
        {**COMPOSE, "secrets": {"key": {"file": "../key"}}},
        "secrets.key.file: ../key lies outside the project",
    ),
    "configs-is-a-list": ({**COMPOSE, "configs": ["main"]}, "configs: must be a mapping"),
}


@pytest.mark.parametrize("case", FILES)
def test_compose_file(tmp_path: Path, case: str) -> None:
    compose, said = FILES[case]
    message = problem({"stack": settings(project(tmp_path, compose))})
    assert message.startswith("stack.source: compose.yaml")
    assert said in message
    assert "\n" not in message


def test_a_link_that_leads_out_of_the_project(tmp_path: Path) -> None:
    source = project(tmp_path)
    (source / "conf").mkdir()
    (source / "conf" / "passwords").symlink_to("/etc/passwd")
    said = problem({"stack": settings(source)})
    assert said.startswith("stack.source: conf/passwords is a link to /etc/passwd, outside")


def test_no_compose_file(tmp_path: Path) -> None:
    said = problem({"stack": settings(tmp_path)})
    assert said.startswith(f"stack.source: {tmp_path} holds none of compose.yaml")


@pytest.mark.parametrize(
    "compose",
    [
        service(ports=[80, "8000:80", "127.0.0.1:8000-8010:80-90/udp", "[::1]:80:80", "0:80"]),
        "services:\n  web:\n    image: x\n    ports:\n      - 6379:22\n",
        service(ports=["${PORT:-80}:80", {"target": 80, "published": "8000-8010"}]),
        {
            **service(
                env_file=[{"path": "web.env", "required": False}], volumes=["/etc:/x", "data:/y"]
            ),
            "volumes": {"data": {}},
        },
        service(network_mode="host", pid="service:web", volumes_from=["container:other"]),
        {"services": {"-web": {"image": "x"}, "5": {"image": "x", "depends_on": ["-web"]}}},
        {"services": {"web": {"build": "https://example.org/x.git#main:sub"}}},
        {**COMPOSE, "x-common": {"anything": ["goes", "here"]}},
    ],
)
def test_right_compose_file_is_let_through(tmp_path: Path, compose: Any) -> None:
    assert check({"stack": settings(project(tmp_path, compose))}) is not None


def test_services_of_an_override_file_count(tmp_path: Path) -> None:
    source = project(tmp_path, service(depends_on=["db"]))
    (source / "compose.override.yaml").write_text("services:\n  db:\n    image: lab/redis:7\n")
    wanted = settings(source, checks=[{"kind": "tcp", "address": "db:6379", "inside": "db"}])
    assert check({"stack": wanted}) is not None


def problem(data: Mapping[str, Any]) -> str:
    with pytest.raises(SpecError) as caught:
        check(data)
    return str(caught.value)
