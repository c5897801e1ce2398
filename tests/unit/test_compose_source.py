"""The project's files on the controller: what is refused with which words, and what is sent."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from stackmend.compose import source
from stackmend.compose.source import File, Source, SourceError, format_dotenv, load, name_files
from stackmend.compose.spec import ComposeSpec

WEB: dict[str, Any] = {"image": "lab/box:1"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "shop").mkdir()
    return tmp_path / "shop"


def spec(root: Path, **more: Any) -> ComposeSpec:
    return ComposeSpec.model_validate(
        {"project": "shop", "source": root, "directory": "/opt/shop", **more}
    )


def read(root: Path, compose: Any, **more: Any) -> Source:
    text = compose if isinstance(compose, str) else yaml.safe_dump(compose)
    (root / "compose.yaml").write_text(text, encoding="utf-8")
    return load(spec(root, **more))


def refused(root: Path, compose: Any, **more: Any) -> str:
    with pytest.raises(SourceError) as raised:
        read(root, compose, **more)
    return str(raised.value)


def web(**fields: Any) -> dict[str, Any]:
    return {"services": {"web": {**WEB, **fields}, "db": WEB}}


# What is said of a compose file

WRONG: list[tuple[Any, str]] = [
    ("services: [", "source: compose.yaml line 1: not valid YAML: "),
    ("services:\n\tweb: {}", "source: compose.yaml line 2: not valid YAML: "),
    ("services: !!int x", "source: compose.yaml: not valid YAML: "),
    ("services: !!bool maybe", "source: compose.yaml: not valid YAML: "),
    ("services: !!timestamp soon", "source: compose.yaml: not valid YAML: "),
    ("services: !unknown x", "source: compose.yaml line 1: not valid YAML: "),
    ("just text", "source: compose.yaml: must be a mapping with 'services'"),
    ("", "source: compose.yaml: must be a mapping with 'services'"),
    ({"name": "shop"}, "source: compose.yaml: services: missing"),
    ({"services": [WEB]}, "source: compose.yaml: services: must be a mapping of service names"),
    (
        {"services": {}, "sevrices": {}},
        "source: compose.yaml: sevrices: unknown key; known are configs, include, models, name, "
        "networks, secrets, services, version, volumes",
    ),
    ({"services": {"web": None}}, "source: compose.yaml: services.web: must be a mapping"),
    (web(imgae="x"), "source: compose.yaml: services.web.imgae: unknown key of a service"),
    (
        {"services": {"web": {"command": "x"}}},
        "source: compose.yaml: services.web: has neither image nor build",
    ),
    (web(ports="80"), "source: compose.yaml: services.web.ports: must be a list"),
    (
        web(ports=["80", "http"]),
        "source: compose.yaml: services.web.ports.1: 'http' is not "
        "[HOST:][PUBLISHED:]TARGET[/PROTOCOL], such as 127.0.0.1:8000:80",
    ),
    (
        web(ports=["localhost:80:80"]),
        "source: compose.yaml: services.web.ports.0: 'localhost:80:80' is not "
        "[HOST:][PUBLISHED:]TARGET[/PROTOCOL], such as 127.0.0.1:8000:80",
    ),
    (
        web(ports=["70000:80"]),
        "source: compose.yaml: services.web.ports.0: 70000 is not a port; ports are 1 to 65535",
    ),
    (
        web(ports=["80:0"]),
        "source: compose.yaml: services.web.ports.0: 0 is not a port; ports are 1 to 65535",
    ),
    (
        web(ports=["90-80:80"]),
        "source: compose.yaml: services.web.ports.0: 90-80 is not a range of ports, "
        "such as 8000-8010",
    ),
    (
        web(ports=[{"target": 0}]),
        "source: compose.yaml: services.web.ports.0.target: 0 is not a port; ports are 1 to 65535",
    ),
    (
        web(ports=[{"target": 80, "published": "x"}]),
        "source: compose.yaml: services.web.ports.0.published: x is not a port; "
        "ports are 1 to 65535",
    ),
    (
        web(depends_on=["redis"]),
        "source: compose.yaml: services.web.depends_on: there is no service 'redis'; "
        "there are db, web",
    ),
    (
        web(depends_on={"redis": {"condition": "service_started"}}),
        "source: compose.yaml: services.web.depends_on: there is no service 'redis'; "
        "there are db, web",
    ),
    (
        web(depends_on="db"),
        "source: compose.yaml: services.web.depends_on: must be a list or a mapping of "
        "service names",
    ),
    (
        web(network_mode="service:vpn"),
        "source: compose.yaml: services.web.network_mode: there is no service 'vpn'; "
        "there are db, web",
    ),
    (
        web(volumes_from=["files:ro"]),
        "source: compose.yaml: services.web.volumes_from: there is no service 'files'; "
        "there are db, web",
    ),
    (
        {
            **web(
                volumes=["data:/data:ro", {"type": "volume", "source": "more", "target": "/more"}],
                networks=["back", "default"],
                configs=["app"],
                secrets=[{"source": "key"}],
                depends_on=["redis"],
            ),
            "volumes": {"other": {}},
        },
        "source: compose.yaml: services.web.depends_on: there is no service 'redis'; there are "
        "db, web; "
        + "; ".join(
            f"source: compose.yaml: services.web.{section}: '{name}' is not declared at the top "
            f"level of the file, under '{section}'; {have}"
            for section, name, have in [
                ("networks", "back", "it is empty"),
                ("volumes", "data", "it has other"),
                ("volumes", "more", "it has other"),
                ("configs", "app", "it is empty"),
                ("secrets", "key", "it is empty"),
            ]
        ),
    ),
    (
        web(env_file="web.env"),
        "source: compose.yaml: services.web.env_file.0: web.env is not among the project's files",
    ),
    (
        web(env_file=[{"path": "web.env"}]),
        "source: compose.yaml: services.web.env_file.0: web.env is not among the project's files",
    ),
    (
        web(env_file=["../web.env"]),
        "source: compose.yaml: services.web.env_file.0: ../web.env lies outside the project",
    ),
    (web(env_file=[5]), "source: compose.yaml: services.web.env_file.0: must be a path"),
    (
        web(build="../api"),
        "source: compose.yaml: services.web.build.context: ../api lies outside the project",
    ),
    (
        web(build={"context": "api/../.."}),
        "source: compose.yaml: services.web.build.context: api/../.. lies outside the project",
    ),
    (
        web(build={"context": ".", "dockerfile": "Containerfile"}),
        "source: compose.yaml: services.web.build.dockerfile: Containerfile is not among the "
        "project's files",
    ),
    (
        web(volumes=["../data:/data"]),
        "source: compose.yaml: services.web.volumes.0: ../data lies outside the project",
    ),
    (
        web(volumes=[{"type": "bind", "source": "../data", "target": "/data"}]),
        "source: compose.yaml: services.web.volumes.0: ../data lies outside the project",
    ),
    (web(volumes="data:/data"), "source: compose.yaml: services.web.volumes: must be a list"),
    (
        {**web(), "configs": {"app": {"file": "./app.conf"}}},
        "source: compose.yaml: configs.app.file: ./app.conf is not among the project's files",
    ),
    (
        {**web(), "secrets": {"pw": {"file": "../pw"}}},
        "source: compose.yaml: secrets.pw.file: ../pw lies outside the project",
    ),
    ({**web(), "configs": ["app"]}, "source: compose.yaml: configs: must be a mapping"),
    (
        {**web(), "include": ["more.yaml"]},
        "source: compose.yaml: include.0: more.yaml is not among the project's files",
    ),
]


@pytest.mark.parametrize(("compose", "message"), WRONG, ids=[message for _, message in WRONG])
def test_what_is_wrong_is_said_with_its_field(root: Path, compose: Any, message: str) -> None:
    said = refused(root, compose)
    assert said.startswith(message)
    assert "\n" not in said
    if not message.endswith(": "):
        assert said == message


RIGHT: list[Any] = [
    web(
        ports=[
            80,
            "80",
            "8080:80",
            "127.0.0.1:8081:80",
            "127.0.0.1::80",
            "[::1]:8080:80/udp",
            "8000-8010:80",
            "8000-8010:9000-9010/tcp",
            "0:80",
            "${PORT}:80",
            {"target": 80, "published": "8000-8010", "host_ip": "127.0.0.1"},
            {"target": "${PORT}"},
        ]
    ),
    web(depends_on=["db"], network_mode="service:db", links=["db:alias"]),
    web(network_mode="host", pid="host", ipc="shareable", volumes_from=["container:other"]),
    web(env_file=[{"path": "none.env", "required": False}, "/etc/web.env", "~/web.env"]),
    {
        **web(
            env_file="${WHERE}/web.env",
            volumes=["${DATA}:/data", "data:/data", "/srv:/srv", "./x:/x", "/own", "unnamed"],
            networks={"default": None, "back": {"aliases": ["w"]}, "${NET}": None},
            configs=["app", {"source": "${APP}"}],
        ),
        "volumes": {"data": None},
        "networks": {"back": {}},
        "configs": {"app": {"content": "x"}},
    },
    web(build="https://example.org/a.git"),
    web(build="git@example.org:a.git", **{"x-note": 1}),
    {**web(), "x-anything": [1], "name": "shop", "version": "3"},
    {"services": {"web": {"extends": {"service": "db"}}, "db": WEB}},
    {"services": {"web": {"provider": {"type": "model"}}}},
    {**web(), "configs": {"app": {"content": "x"}, "other": None, "far": {"external": True}}},
    {"services": {}},
]


@pytest.mark.parametrize("compose", RIGHT, ids=range(len(RIGHT)))
def test_what_is_right_passes(root: Path, compose: Any) -> None:
    assert set(read(root, compose).files) == {"compose.yaml"}


def test_the_dockerfile_may_name_itself(root: Path) -> None:
    (root / "api").mkdir()
    (root / "api" / "Containerfile").write_text("FROM lab/box:1\n")
    read(root, web(build={"context": "./api", "dockerfile": "Containerfile"}))


@pytest.mark.parametrize("name", ["compose.override.yaml", "docker-compose.override.yml"])
def test_what_is_laid_over_may_bring_services_of_its_own(root: Path, name: str) -> None:
    (root / name).write_text("services: {redis: {image: 'lab/redis:7'}}\n")
    read(root, web(depends_on=["redis"]))


# YAML as Compose reads it


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("6379:22", "6379:22"),
        ("1:2:3.5", "1:2:3.5"),
        ("80", 80),
        ("-1", -1),
        ("08", 8),
        ("010", 10),
        ("0o17", "0o17"),
        ("1_000", "1_000"),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("yes", "yes"),
        ("off", "off"),
        ("true", True),
        ("False", False),
        ("2024-01-99", "2024-01-99"),
        ("2024-01-09", "2024-01-09"),
        ("=", "="),
        ("~", None),
        ("", None),
        ("null", None),
        ("1.2.3", "1.2.3"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    parsed = source.parse("compose.yaml", f"x-value: {text}\n".encode())["x-value"]
    assert (parsed, type(parsed)) == (value, type(value))


def test_ports_in_yaml_1_2_are_text(root: Path) -> None:
    read(root, "services: {web: {image: a, ports: [6379:22, 127.0.0.1:59:59]}}")
    said = refused(root, "services: {web: {image: a, ports: [6379:99999]}}")
    assert said.endswith("services.web.ports.0: 99999 is not a port; ports are 1 to 65535")


def test_services_may_be_named_like_truths(root: Path) -> None:
    read(root, "services: {on: {image: a, depends_on: [no]}, no: {image: b}}")


def test_the_tags_of_compose_are_read(root: Path) -> None:
    read(
        root,
        "services:\n"
        "  web:\n"
        "    image: a\n"
        "    ports: !reset []\n"
        "    environment: !override {A: 1}\n"
        "    command: !reset null\n",
    )
    assert "ports.0: 'x'" in refused(root, "services: {web: {image: a, ports: !override [x]}}")


def test_anchors_and_merges_are_read(root: Path) -> None:
    said = refused(
        root,
        "x-base: &base {image: a, ports: [x]}\nservices:\n  web:\n    <<: *base\n    restart: no\n",
    )
    assert "services.web.ports.0: 'x'" in said


# Checks that name a service


@pytest.mark.parametrize(
    ("check", "field"),
    [
        ({"kind": "tcp", "address": "redis:6379", "inside": "api"}, "inside"),
        ({"kind": "exec", "service": "api", "command": ["true"]}, "service"),
    ],
)
def test_a_check_names_a_service_that_there_is(
    root: Path, check: dict[str, Any], field: str
) -> None:
    fine = {"kind": "tcp", "address": "127.0.0.1:80"}
    said = refused(root, web(), checks=[fine, check])
    assert said == f"checks[1].{field}: there is no service 'api'; there are db, web"
    both = refused(root, web(), checks=[check, fine, {**check, "name": "b"}])
    assert both == f"{said.replace('[1]', '[0]')}; {said.replace('[1]', '[2]')}"
    read(root, {**web(), "services": {"api": WEB}}, checks=[check])
    (root / "compose.override.yaml").write_text("services: {api: {image: a}}\n")
    read(root, web(), checks=[check])


def test_what_other_files_may_declare_is_not_missed(root: Path) -> None:
    compose = web(volumes=["data:/data"], networks=["back"], depends_on=["api"])
    assert "not declared" in refused(root, web(volumes=["data:/data"]))
    (root / ".env").write_text("COMPOSE_FILE=compose.yaml:more.yaml\n")
    read(root, compose)


# The files


def test_no_directory(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="nowhere is not a directory on this machine"):
        load(spec(tmp_path / "nowhere"))


def test_no_compose_file(root: Path) -> None:
    with pytest.raises(SourceError, match=r"holds none of compose.yaml, compose.yml, docker-"):
        load(spec(root))


def test_the_preferred_compose_file_counts(root: Path) -> None:
    (root / "docker-compose.yml").write_text("[broken")
    read(root, web())
    (root / "compose.yaml").unlink()
    with pytest.raises(SourceError, match=r"docker-compose\.yml"):
        load(spec(root))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("../outside", "source: link is a link to .*outside, outside the project"),
        ("nothing", "source: link is a link that leads nowhere"),
        ("link", "source: link is a link that leads nowhere"),
        ("inside", "source: link is a link to a directory; put the directory itself there"),
    ],
)
def test_links_that_cannot_be_carried(root: Path, target: str, message: str) -> None:
    (root.parent / "outside").write_text("secret of the controller")
    (root / "inside").mkdir()
    (root / "link").symlink_to(target)
    with pytest.raises(SourceError, match=message):
        read(root, web())


def test_a_link_to_a_file_of_the_project_is_that_file(root: Path) -> None:
    (root / "real.conf").write_text("answer = 42\n")
    (root / "link.conf").symlink_to("real.conf")
    files = read(root, web()).files
    assert files["link.conf"] == files["real.conf"]


def test_what_is_no_file_is_refused(root: Path) -> None:
    os.mkfifo(root / "pipe")
    with pytest.raises(SourceError, match="source: pipe is neither a file nor a directory"):
        read(root, web())


@pytest.mark.parametrize("name", [b"a\nb", b"caf\xe9", b"a\x1b]0;b", b"a\rb"])
def test_names_that_a_file_list_cannot_carry(root: Path, name: bytes) -> None:
    Path(os.fsdecode(bytes(root) + b"/" + name)).write_text("x")
    with pytest.raises(
        SourceError, match=r"holds a newline|is not a name in UTF-8|holds a control character"
    ):
        read(root, web())


def test_the_project_has_a_limit(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MAXIMUM_BYTES", 1024**2)
    (root / "model.bin").write_bytes(bytes(1024**2))
    with pytest.raises(SourceError, match=r"more than 1 MiB \(at model.bin\); keep data in vol"):
        read(root, web())


def test_what_belongs_to_tools_is_left_out(root: Path) -> None:
    for path in (
        ".git/HEAD",
        "api/__pycache__/a.pyc",
        "node_modules/a/b.js",
        ".venv/x",
        "api/a.py",
    ):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("x")
    assert set(read(root, web()).files) == {"compose.yaml", "api/a.py"}


def test_modes_are_those_that_count(root: Path) -> None:
    """What a controller's umask gives to group and others must not make two sources differ."""
    for mode in (0o664, 0o644):
        (root / "plain").write_text("x")
        (root / "plain").chmod(mode)
        assert read(root, web()).files["plain"].mode == 0o644
    (root / "plain").chmod(0o775)
    assert read(root, web()).files["plain"].mode == 0o755


# Variables


def test_variables_go_beside_the_compose_file(root: Path) -> None:
    (root / ".env").write_text("GIVEN=1")
    file = read(root, web(), env={"B": 'say "hi"', "A": 5}).files[".env"]
    assert file == File(0o600, b'GIVEN=1\nA="5"\nB="say \\"hi\\""\n')


def test_no_variables_leave_the_file_alone(root: Path) -> None:
    (root / ".env").write_text("GIVEN=1")
    assert read(root, web()).files[".env"].content == b"GIVEN=1"
    (root / ".env").unlink()
    assert ".env" not in read(root, web()).files


def undone(text: str) -> dict[str, str]:
    """What a reader of double-quoted values makes of it (compose-go, dotenv/parser.go)."""
    found = {}
    for line in text.splitlines(keepends=True):
        name, _, quoted = line.partition("=")
        assert quoted[0] == '"'
        assert quoted.endswith('"\n')
        value, index, body = "", 0, quoted[1:-2]
        while index < len(body):
            if body[index] == "\\":
                index += 1
                value += {"n": "\n", "r": "\r"}.get(body[index], body[index])
            else:
                assert body[index] not in '"$', "an unescaped quote or dollar"
                value += body[index]
            index += 1
        found[name] = value
    return found


@given(
    st.dictionaries(
        st.from_regex(r"[A-Z_][A-Z0-9_]*", fullmatch=True),
        # Line ends that only Python knows would split the lines of this test's own reader.
        st.text(
            st.characters(
                codec="utf-8", exclude_characters="\0\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
            )
        ),
        max_size=4,
    )
)
def test_every_value_is_read_back(variables: dict[str, str]) -> None:
    assert undone(format_dotenv(variables)) == variables


# What is sent


TREES = st.dictionaries(
    st.from_regex(r"[a-zäß \-'\"$]{1,8}(/[a-z.]{1,4})?", fullmatch=True).filter(
        lambda path: not any(part in (".", "..") for part in path.split("/"))
    ),
    st.builds(File, st.sampled_from([0o644, 0o755, 0o600]), st.binary(max_size=50)),
    max_size=5,
)


@given(TREES, st.randoms())
def test_the_same_files_are_the_same_archive(files: dict[str, File], random: Any) -> None:
    items = list(files.items())
    random.shuffle(items)
    one, other = Source(files), Source(dict(items))
    assert one.make_archive() == other.make_archive()
    assert one.digest == other.digest
    with tarfile.open(fileobj=io.BytesIO(one.make_archive())) as tar:
        members = tar.getmembers()
        assert [member.name for member in members] == [f"./{path}" for path in sorted(files)]
        for member in members:
            file = files[member.name[2:]]
            content = tar.extractfile(member)
            assert content is not None
            assert (member.mode, content.read()) == (file.mode, file.content)
            assert (member.mtime, member.uid, member.gid, member.uname) == (0, 0, 0, "")


@given(TREES, TREES)
def test_other_files_have_another_digest(one: dict[str, File], other: dict[str, File]) -> None:
    assert (Source(one).digest == Source(other).digest) is (one == other)


def test_a_file_that_moves_content_into_its_neighbour_is_another_source() -> None:
    one = Source({"a": File(0o644, b"xy"), "b": File(0o644, b"")})
    other = Source({"a": File(0o644, b"x"), "b": File(0o644, b"y")})
    assert one.digest != other.digest
    assert one.digest != Source({"a": File(0o755, b"xy"), "b": File(0o644, b"")}).digest


def test_digests_are_those_of_sha256sum(root: Path) -> None:
    found = read(root, web()).digests
    content = (root / "compose.yaml").read_bytes()
    assert found == {"compose.yaml": hashlib.sha256(content).hexdigest()}


# Build contexts


def test_a_dockerignore_says_what_no_build_sees(root: Path) -> None:
    for path in ("api/main.py", "api/docs/a.md", "api/README.md", "web/docs/a.md", "a.md"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("x")
    (root / "api" / ".dockerignore").write_text("# none of these\n\ndocs\n/*.md\n!README.md\n")
    assert read(root, web()).ignored == {"api": frozenset({"api/docs/a.md"})}


def test_compose_is_told_its_files_and_finds_no_others() -> None:
    for paths, words in {
        ("compose.yaml",): "--env-file /dev/null --file compose.yaml",
        ("docker-compose.yml", ".env"): "--env-file .env --file docker-compose.yml",
        ("compose.yaml", "compose.yml", "compose.override.yml", "sub/compose.override.yaml"): (
            "--env-file /dev/null --file compose.yaml --file compose.override.yml"
        ),
    }.items():
        assert " ".join(name_files(paths, names_files=False)) == words


def test_a_project_whose_env_file_names_its_files_is_left_to_it() -> None:
    source = Source({".env": File(0o600, b"COMPOSE_FILE=a.yaml:b.yaml\n")})
    assert source.names_files
    assert name_files(source.files, names_files=True) == ("--env-file", ".env")
    assert not Source({".env": File(0o600, b"A=1\n")}).names_files


@pytest.mark.parametrize("content", [b"services:\n  caf\xe9: {}\n", b"services:\n  a\x00: {}\n"])
def test_a_character_that_is_none_is_told_with_its_line(root: Path, content: bytes) -> None:
    (root / "compose.yaml").write_bytes(content)
    with pytest.raises(
        SourceError, match=r"^source: compose\.yaml line 2: not valid YAML: [^\n]*$"
    ):
        load(spec(root))


def test_a_run_decides_by_one_reading(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "_of_this_run", None)
    source.read_once()
    (root / "app.cfg").write_text("one")
    read(root, web())
    (root / "app.cfg").write_text("two")
    (root / "more.cfg").write_text("more")
    assert {path: file.content for path, file in load(spec(root)).files.items()} | {
        "compose.yaml": b""
    } == {"app.cfg": b"one", "compose.yaml": b""}
    # What the settings add is not of the files.
    assert load(spec(root, env={"A": "1"})).files[".env"].content == b'A="1"\n'
    assert ".env" not in load(spec(root)).files


def test_hosts_that_desire_the_same_share_what_was_made_of_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no other has anything of it: its variables, a service that it names."""
    monkeypatch.setattr(source, "_of_this_run", None)
    read(root, web())
    first = load(spec(root, env={"KEY": SecretStr("one")}))
    assert load(spec(root, env={"KEY": SecretStr("one")})) is not first, "no run has begun"
    source.read_once()
    hosts = [load(spec(root, env={"KEY": SecretStr(key)})) for key in ("one", "two", "one")]
    assert hosts[0] is hosts[2]
    assert [found.files[".env"].content for found in hosts[:2]] == [b'KEY="one"\n', b'KEY="two"\n']
    assert hosts[0].digest != hosts[1].digest
    assert ".env" not in load(spec(root)).files
    check = {"kind": "exec", "service": "absent", "command": ["true"]}
    for _ in range(2):
        with pytest.raises(SourceError, match="there is no service 'absent'"):
            load(spec(root, checks=[check]))
    # Few are kept: a fleet in which each host has variables of its own takes no more memory.
    for number in range(3 * source.MOST_MADE):
        load(spec(root, env={"N": str(number)}))
    assert len(source._made) == source.MOST_MADE
    source.read_once()
    assert source._made == []


def test_the_same_file_is_parsed_once_and_nobody_shares_its_values() -> None:
    content = b"services: {web: {image: once/only:1, ports: [80]}}\n"
    first = source.parse("compose.yaml", content)
    first["services"]["web"]["ports"].append(81)
    before = source._load_yaml.cache_info()
    assert source.parse("compose.yaml", content)["services"]["web"]["ports"] == [80]
    after = source._load_yaml.cache_info()
    assert (after.hits, after.misses) == (before.hits + 1, before.misses)
