"""What is written to correct addresses: the override, the patch, and no secret in either."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from stackmend.addresses import classify, locate, make_override, make_patch, read
from stackmend.addresses.override import Override
from stackmend.addresses.patch import Patch
from stackmend.addresses.secrecy import has_secret
from stackmend.addresses.sources import Sources, substitute
from stackmend.addresses.state import ImageFacts, Judgement
from tests.unit.addresses_world import findings, lay_over, project

PASSWORD = "s3cr%40t@home"
OTHERS: dict[str, Any] = {
    "redis": {"image": "redis:7"},
    "db": {"image": "postgres:16", "ports": ["5433:5432"]},
}


def correct(
    files: Mapping[str, str], *, command: Any = None, entrypoint: Any = None, **environment: str
) -> tuple[dict[str, Any], tuple[Judgement, ...], Override, Patch]:
    """What is found and written for a service ``api`` that Compose resolves to this environment."""
    body = {"image": "example/api:1", "environment": environment}
    if command:
        body["command"] = command
    if entrypoint:
        body["entrypoint"] = entrypoint
    config = project({"api": body, **OTHERS})
    contents = {path: text.encode() for path, text in files.items()}
    judgements = classify(locate(read(config), contents), config)
    override = make_override(judgements, config, contents)
    return config, judgements, override, make_patch(judgements, contents)


def apply(patch: Patch, files: Mapping[str, str], tmp_path: Path) -> dict[str, str]:
    """The files once ``git apply`` has put a patch into them."""
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(text.encode())
    command = ["git", "apply", "--whitespace=nowarn", "-"]
    subprocess.run(command, input=str(patch).encode(), cwd=tmp_path, check=True)
    return {path: (tmp_path / path).read_bytes().decode() for path in files}


def compose(*lines: str, **more: str) -> dict[str, str]:
    """A compose file in which ``api`` has these lines."""
    section = "\n".join(f"    {line}" for line in lines)
    text = f"services:\n  redis:\n    image: redis:7\n  api:\n    image: example/api:1\n{section}\n"
    return {"compose.yaml": text, **more}


def written(override: Override) -> Any:
    return (yaml.safe_load(override.content) or {}).get("services", {})


@pytest.mark.parametrize(
    ("files", "value", "corrected", "patched"),
    [
        # A literal of the compose file, in both forms and with an anchor.
        (
            compose("environment:", "  URL: redis://localhost:6379/0"),
            "redis://localhost:6379/0",
            "redis://redis:6379/0",
            ("compose.yaml", "  URL: redis://redis:6379/0"),
        ),
        (
            compose("environment:", '  - "URL=redis://localhost:6379/0"'),
            "redis://localhost:6379/0",
            "redis://redis:6379/0",
            ("compose.yaml", '  - "URL=redis://redis:6379/0"'),
        ),
        (
            {
                "compose.yaml": "x-env: &env\n  URL: redis://localhost:6379/0 # here\n"
                "services:\n  api:\n    environment:\n      <<: *env\n  redis: {}\n"
            },
            "redis://localhost:6379/0",
            "redis://redis:6379/0",
            ("compose.yaml", "  URL: redis://redis:6379/0 # here"),
        ),
        (
            {
                "compose.yaml": "services:\n  api:\n    extends: {file: base.yaml, service: app}\n"
                "  redis: {}\n",
                "base.yaml": "services:\n  app: {environment: {URL: 'redis://localhost:6379'}}\n",
            },
            "redis://localhost:6379",
            "redis://redis:6379",
            ("base.yaml", "  app: {environment: {URL: 'redis://redis:6379'}}"),
        ),
        (
            {
                "compose.yaml": "services:\n  api:\n    environment:\n      URL: redis://old:1\n"
                "  redis: {}\n",
                "compose.override.yaml": "services:\n  api:\n    environment:\n"
                "      URL: redis://localhost:6379\n",
            },
            "redis://localhost:6379",
            "redis://redis:6379",
            ("compose.override.yaml", "URL: redis://redis:6379"),
        ),
        # Twice in one value, and only once wrong.
        (
            compose("environment:", "  URL: redis://localhost:6379;http://localhost:7000"),
            "redis://localhost:6379;http://localhost:7000",
            "redis://redis:6379;http://localhost:7000",
            ("compose.yaml", "  URL: redis://redis:6379;http://localhost:7000"),
        ),
        (
            {
                "compose.yaml": "services:\n  redis: {}\n  api:\n    environment:\n"
                "      <<: [{A: 1}, {URL: 'redis://localhost:6379'}]\n"
            },
            "redis://localhost:6379",
            "redis://redis:6379",
            ("compose.yaml", "<<: [{A: 1}, {URL: 'redis://redis:6379'}]"),
        ),
        # A default, and a password that is a variable.
        (
            compose("environment:", "  URL: ${URL:-redis://localhost:6379/0}"),
            "redis://localhost:6379/0",
            "${URL:-redis://redis:6379/0}",
            ("compose.yaml", "  URL: ${URL:-redis://redis:6379/0}"),
        ),
        (
            compose(
                "environment:",
                "  URL: redis://:${PASSWORD}@localhost:6379/0",
                **{".env": f"PASSWORD={PASSWORD}\n"},
            ),
            f"redis://:{PASSWORD}@localhost:6379/0",
            "redis://:${PASSWORD}@redis:6379/0",
            ("compose.yaml", "  URL: redis://:${PASSWORD}@redis:6379/0"),
        ),
        (
            compose(
                "environment:",
                "  URL: redis://:$PASSWORD@localhost:6379/0",
                **{".env": 'PASSWORD=1\nPASSWORD="s3cr%40t@home" # as stackmend writes it\n'},
            ),
            f"redis://:{PASSWORD}@localhost:6379/0",
            "redis://:$PASSWORD@redis:6379/0",
            ("compose.yaml", "  URL: redis://:$PASSWORD@redis:6379/0"),
        ),
        # From .env and from an env file, without a secret.
        (
            compose("environment:", "  URL: ${URL}", **{".env": "A=1\nURL=redis://localhost:6379\n"}),
            "redis://localhost:6379",
            "redis://redis:6379",
            (".env", "URL=redis://redis:6379"),
        ),
        (
            compose("env_file: api.env", **{"api.env": "export URL='redis://localhost:6379'\nB=2"}),
            "redis://localhost:6379",
            "redis://redis:6379",
            ("api.env", "export URL='redis://redis:6379'"),
        ),
        (
            compose(
                "env_file:", "  - {path: ./a.env}", "  - b.env",
                **{"a.env": "URL=1\n", "b.env": "URL=redis://localhost:6379 # x\n"},
            ),
            "redis://localhost:6379",
            "redis://redis:6379",
            ("b.env", "URL=redis://redis:6379 # x"),
        ),
        (
            {
                "compose.yaml": "include: [sub/compose.yaml]\nservices:\n  redis: {}\n",
                "sub/compose.yaml": "services:\n  api:\n    env_file: ./x.env\n",
                "sub/x.env": "URL=redis://localhost:6379\n",
                "x.env": "URL=redis://other:6379\n",
            },
            "redis://localhost:6379",
            "redis://redis:6379",
            ("sub/x.env", "URL=redis://redis:6379"),
        ),
        # Passed through from .env by its name alone.
        (
            compose("environment:", "  - URL", **{".env": "URL=redis://localhost:6379\n"}),
            "redis://localhost:6379",
            "redis://redis:6379",
            (".env", "URL=redis://redis:6379"),
        ),
    ],
)  # fmt: skip
def test_a_value_is_corrected_where_it_comes_from(
    tmp_path: Path,
    files: dict[str, str],
    value: str,
    corrected: str,
    patched: tuple[str, str],
) -> None:
    config, judgements, override, patch = correct(files, URL=value)
    assert written(override) == {"api": {"environment": {"URL": corrected}}}
    assert not override.left
    assert not patch.left
    assert PASSWORD not in f"{override}{patch}{judgements}"
    after = apply(patch, files, tmp_path)
    changed = {path for path in files if after[path] != files[path]}
    assert changed == {patched[0]}
    before_lines, after_lines = files[patched[0]].splitlines(), after[patched[0]].splitlines()
    different = [b for a, b in zip(before_lines, after_lines, strict=True) if a != b]
    assert [line.strip() for line in different] == [patched[1].strip()]
    (wrong,) = (one for one in judgements if one.status == "wrong")
    line = next(n for n, text in enumerate(after_lines, 1) if text in different)
    assert wrong.address.place.source == f"{patched[0]}:{line}"
    variables = {"PASSWORD": PASSWORD}
    final = substitute(written(override)["api"]["environment"]["URL"], variables)
    assert findings(lay_over(config, yaml.safe_dump(
        {"services": {"api": {"environment": {"URL": final}}}}
    ).encode())) == []  # fmt: skip


@pytest.mark.parametrize(
    ("files", "value"),
    [
        (
            compose(
                "env_file: api.env", **{"api.env": f"URL=redis://:{PASSWORD}@localhost:6379\n"}
            ),
            f"redis://:{PASSWORD}@localhost:6379",
        ),
        (
            compose(
                "environment:",
                "  URL: $URL",
                **{".env": f"URL=redis://:{PASSWORD}@localhost:6379\n"},
            ),
            f"redis://:{PASSWORD}@localhost:6379",
        ),
        (
            compose(
                "env_file: [api.env]",
                **{"api.env": f"DEBUG=1\nURL=host=localhost port=5432 password={PASSWORD}\n"},
            ),
            f"host=localhost port=5432 password={PASSWORD}",
        ),
        # Where it comes from is not known at all.
        (compose("image: x"), f"redis://:{PASSWORD}@localhost:6379"),
        # However it is written.
        *(
            (compose("env_file: api.env", **{"api.env": f"URL='{value}'\n"}), value)
            for value in (
                "mysql://root:s3cr@tcp(localhost:3306)/home;redis://localhost:6379",
                "http://s3cr@localhost:6379",
                "redis://localhost:6379/0?key=s3cr",
                "redis://localhost:6379?auth=home",
                "redis://localhost:6379?sig=home",
                '{"auth":"s3cr","url":"redis://localhost:6379"}',
                "redis://localhost:6379/services/s3cr/home",
                "redis://:$s3cr@localhost:6379",
                "redis://localhost:6379 s3cr",
            )
        ),
        # A variable that the project's own files do not know.
        (
            compose("environment:", "  URL: redis://:${PW}@localhost:6379"),
            f"redis://:{PASSWORD}@localhost:6379",
        ),
    ],
)
def test_a_secret_of_an_env_file_is_in_nothing_that_is_written(
    files: dict[str, str], value: str
) -> None:
    _, judgements, override, patch = correct(files, URL=value)
    assert [one.status for one in judgements] == ["wrong"]
    assert override.content == b""
    (left,) = override.left
    assert "password" in left.reason
    assert "localhost" in left.remedy
    assert patch.left or "$" in files["compose.yaml"]
    for part in (PASSWORD, "s3cr", "home"):
        assert part not in f"{override}{patch}{override.left}{patch.left}"


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("P=a b # c", "a b"),
        ("P='a $b' # c", "a $b"),
        ('P="a\\$b\\"\\\\"', 'a$b"\\'),
        ('P="a\\nb"', "a\nb"),
        ("export P=a", "a"),
        ('P="a$b"', None),
        ("P=a$b", None),
        ('P="a', None),
    ],
)
def test_what_env_assigns(line: str, value: str | None) -> None:
    found = Sources({".env": f"{line}\n".encode()}).variables.get("P")
    assert found == value


def test_a_secret_beside_a_change_is_not_in_the_patch(tmp_path: Path) -> None:
    files = compose(
        "env_file: api.env",
        **{"api.env": f"API_KEY={PASSWORD}\nA=1\nURL=redis://localhost:6379\nB=2\nTOKEN=abc\n"},
    )
    _, _, _, patch = correct(files, URL="redis://localhost:6379")
    assert PASSWORD not in str(patch)
    assert "abc" not in str(patch)
    assert "URL=redis://redis:6379" in apply(patch, files, tmp_path)["api.env"]
    files["api.env"] = f"API_KEY={PASSWORD}\nURL=redis://localhost:6379\nTOKEN=abc\n"
    _, _, _, patch = correct(files, URL="redis://localhost:6379")
    assert str(patch) == ""
    assert [left.remedy for left in patch.left] == [
        "replace localhost:6379 by redis:6379 in api.env:2"
    ]


@pytest.mark.parametrize("password", ["p@ss", "p%40ss", "p:a@b@c", "ä$ö", "p,q", "p+q=", "a;b"])
def test_a_password_arrives_exactly(password: str) -> None:
    value = f"redis://:{password}@localhost:6379/0"
    escaped = password.replace("$", "$$")
    files = compose("environment:", f'  URL: "redis://:{escaped}@localhost:6379/0"')
    config, judgements, override, patch = correct(files, URL=value)
    # The user's own file has it as it stands; beside it no other has more.
    final = lay_over(config, override.content)["services"]["api"]["environment"]["URL"]
    assert final == f"redis://:{password}@redis:6379/0"
    assert password not in f"{judgements}"
    assert password not in f"{override.left}"
    assert str(patch) == ""


def test_a_default_is_not_corrected_where_env_has_the_value() -> None:
    files = compose(
        "environment:",
        "  URL: ${URL:-redis://localhost:6379}",
        **{".env": "URL=redis://localhost:6379\n"},
    )
    _, _, override, patch = correct(files, URL="redis://localhost:6379")
    # Another default would change nothing.
    assert written(override) == {"api": {"environment": {"URL": "redis://redis:6379"}}}
    assert "+URL=redis://redis:6379" in str(patch) or patch.left


def test_a_variable_that_something_else_uses_too_stays_as_it_is() -> None:
    files = {
        "compose.yaml": "services:\n  redis: {image: 'redis:7'}\n"
        "  db: {image: 'postgres:16', ports: ['${DB_PORT}:5432']}\n"
        "  api: {environment: {DB_HOST: db, DB_PORT: '${DB_PORT}'}}\n",
        ".env": "DB_PORT=5433\n",
    }
    _, judgements, override, patch = correct(files, DB_HOST="db", DB_PORT="5433")
    assert [one.reason for one in judgements] == ["published-port"]
    assert written(override) == {"api": {"environment": {"DB_PORT": "5432"}}}
    assert str(patch) == ""
    assert [left.reason for left in patch.left] == ["others use .env there as it stands"]


@pytest.mark.parametrize(
    ("line", "port", "status"),
    [
        ("env_file: .env", "'${DB_PORT}:5432'", "ambiguous"),
        ("env_file: [.env]", "{target: 5432, published: '${DB_PORT:-1}'}", "ambiguous"),
        ("env_file: .env", "5433:5432", "wrong"),
        ("environment: {DB_HOST: db, DB_PORT: '${DB_PORT}'}", "${DB_PORT}:5432", "wrong"),
    ],
)
def test_a_variable_that_publishes_a_port_may_be_for_that_alone(
    line: str, port: str, status: str
) -> None:
    files = {
        "compose.yaml": "services:\n  redis: {}\n"
        f"  db:\n    image: postgres:16\n    ports:\n      - {port}\n  api:\n    {line}\n",
        ".env": "DB_HOST=db\nDB_PORT=5433\n",
    }
    _, (found,), _, _ = correct(files, DB_HOST="db", DB_PORT="5433")
    assert (found.status, found.reason) == (status, "published-port")


def test_what_is_right_for_one_and_wrong_for_another_is_not_changed_for_both() -> None:
    files = {
        "compose.yaml": "x-env: &env\n  REDIS_URL: redis://localhost:6379\nservices:\n"
        "  redis:\n    image: redis:7\n    environment: *env\n"
        "  api:\n    image: example/api:1\n    environment: *env\n"
    }
    environment = {"REDIS_URL": "redis://localhost:6379"}
    config = project(
        {
            "api": {"image": "example/api:1", "environment": environment},
            "redis": {"image": "redis:7", "environment": environment},
        }
    )
    contents = {path: text.encode() for path, text in files.items()}
    judgements = classify(read(config), config)
    assert sorted(one.status for one in judgements) == ["right", "wrong"]
    assert str(make_patch(judgements, contents)) == ""
    override = make_override(judgements, config, contents)
    assert written(override) == {"api": {"environment": {"REDIS_URL": "redis://redis:6379"}}}


@pytest.mark.parametrize(
    ("line", "words", "expected"),
    [
        (
            'command: ["app", "--url", "redis://:${PASSWORD}@localhost:6379"]',
            ["app", "--url", f"redis://:{PASSWORD}@localhost:6379"],
            ["app", "--url", "redis://:${PASSWORD}@redis:6379"],
        ),
        (
            "command: app --key ${PASSWORD} --url redis://localhost:6379",
            ["app", "--key", PASSWORD, "--url", "redis://localhost:6379"],
            "app --key ${PASSWORD} --url redis://redis:6379",
        ),
        (
            'command: ["sh", "-c", "echo $$HOME; exec app --redis-host localhost"]',
            ["sh", "-c", "echo $HOME; exec app --redis-host localhost"],
            ["sh", "-c", "echo $$HOME; exec app --redis-host redis"],
        ),
    ],
)
def test_a_command_is_rewritten_as_its_file_has_it(
    tmp_path: Path, line: str, words: list[str], expected: Any
) -> None:
    files = compose(line, **{".env": f"PASSWORD={PASSWORD}\n"})
    _, judgements, override, patch = correct(files, command=words)
    assert [one.right for one in judgements] in (["redis:6379"], ["redis"])
    assert written(override) == {"api": {"command": expected}}
    assert PASSWORD not in f"{override}{patch}{judgements}"
    assert "localhost" not in apply(patch, files, tmp_path)["compose.yaml"]


@pytest.mark.parametrize("dotenv", ["", "PW=abc$x\n", "OTHER=1\n"])
@pytest.mark.parametrize(
    "line",
    [
        "command: app --redis-host localhost -a ${PW}",
        'command: ["app", "--redis-host", "localhost", "-a", "$PW"]',
        "command: app --redis-host localhost -a ${PW:-x}",
    ],
)
def test_no_word_of_a_command_is_written_for_a_variable(line: str, dotenv: str) -> None:
    words = ["app", "--redis-host", "localhost", "-a", "s3cr"]
    _, _, override, patch = correct(compose(line, **{".env": dotenv}), command=words)
    assert "s3cr" not in f"{override}{patch}"
    assert [left.subject for left in override.left] == ["api.redis_host"]


def test_no_proxy_with_a_login_is_left() -> None:
    body = {
        "image": "example/api:1",
        "environment": {
            "HTTP_PROXY": "http://proxy.lan:3128",
            "NO_PROXY": "http://u:s3cr@corp.example",
            "UPSTREAM": "http://redis:6379",
        },
    }
    config = project({"api": body, **OTHERS})
    override = make_override(classify(read(config), config), config, {})
    assert override.content == b""
    assert [left.subject for left in override.left] == ["api.UPSTREAM"]
    assert "s3cr" not in f"{override}"


def test_a_command_of_literals_is_written_however_it_is_split() -> None:
    words = ["app", "-a", "x\\y", "--redis-host", "localhost"]
    files = compose("command: app -a x\\y --redis-host localhost")
    _, _, override, _ = correct(files, command=words)
    assert written(override)["api"]["command"] == [*words[:-1], "redis"]


def test_a_command_with_a_secret_of_unknown_origin_is_left() -> None:
    words = ["app", "--password", "hunter22", "--url", "redis://localhost:6379"]
    _, _, override, _ = correct({}, command=words)
    assert override.content == b""
    assert [left.subject for left in override.left] == ["api.url"]
    assert "hunter22" not in str(override)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["environment: {URL: 'http://host.docker.internal:1'}"], '["host.docker.internal'),
        (
            [
                "extra_hosts:",
                "  - a:1.2.3.4",
                "environment:",
                "  URL: http://host.docker.internal:1",
            ],
            '  - "host.docker.internal:host-gateway"',
        ),
        (
            [
                "extra_hosts:",
                "  a: 1.2.3.4",
                "environment:",
                "  URL: http://host.docker.internal:1",
            ],
            "  host.docker.internal: host-gateway",
        ),
    ],
)
def test_what_a_service_needs_besides_is_added(
    tmp_path: Path, lines: list[str], expected: str
) -> None:
    files = compose(*lines)
    _, _, override, patch = correct(files, URL="http://host.docker.internal:1")
    assert written(override) == {"api": {"extra_hosts": ["host.docker.internal:host-gateway"]}}
    after = yaml.safe_load(apply(patch, files, tmp_path)["compose.yaml"])
    hosts = after["services"]["api"]["extra_hosts"]
    if isinstance(hosts, list):
        assert "host.docker.internal:host-gateway" in hosts
    else:
        assert hosts["host.docker.internal"] == "host-gateway"
    before = yaml.safe_load(files["compose.yaml"])
    after["services"]["api"].pop("extra_hosts")
    before["services"]["api"].pop("extra_hosts", None)
    assert after == before


@pytest.mark.parametrize(
    "lines",
    [
        [
            "environment:",
            "  NO_PROXY: localhost",
            "  HTTP_PROXY: http://p.lan:1",
            "  URL: http://db",
        ],
        ["environment:", "  - HTTP_PROXY=http://p.lan:1", "  - URL=http://db"],
        ["environment:", "  HTTP_PROXY: http://p.lan:1", "  URL: http://db"],
    ],
)
def test_an_internal_name_is_kept_from_the_proxy(tmp_path: Path, lines: list[str]) -> None:
    files = compose(*lines)
    own = {"NO_PROXY": "localhost"} if "NO_PROXY" in str(lines) else {}
    _, _, override, patch = correct(files, HTTP_PROXY="http://p.lan:1", URL="http://db", **own)
    expected = {"NO_PROXY": "localhost,db"} if own else {"NO_PROXY": "db", "no_proxy": "db"}
    assert written(override) == {"api": {"environment": expected}}
    after = yaml.safe_load(apply(patch, files, tmp_path)["compose.yaml"])
    environment = after["services"]["api"]["environment"]
    if isinstance(environment, list):
        environment = dict(item.split("=", 1) for item in environment)
    assert environment.items() >= expected.items()


@pytest.mark.parametrize(
    ("name", "content", "line", "old", "new"),
    [
        ("c.yaml", "a: 1\nredis:\n  host: localhost\n  port: 6379\n", 3, "localhost", "redis"),
        ("c.toml", '[redis]\nurl = "redis://localhost:6379"\n', 2, "localhost:6379", "redis:6379"),
        ("c.ini", "[redis]\nhost=localhost\nport=6379\n", 2, "localhost", "redis"),
        ("c.json", '{\n "redis": {"url": "redis://localhost"}}', 2, "localhost", "redis"),
        (".env", "REDIS_HOST=localhost\n", 1, "localhost", "redis"),
    ],
)
def test_a_mounted_file_is_read_and_patched_and_never_overridden(
    tmp_path: Path, name: str, content: str, line: int, old: str, new: str
) -> None:
    mount = {"type": "bind", "source": f"/opt/shop/conf/{name}", "target": f"/etc/{name}"}
    config = project({"api": {"image": "example/api:1", "volumes": [mount]}, **OTHERS})
    files = {f"conf/{name}": content}
    contents = {path: text.encode() for path, text in files.items()}
    mounted = {f"/opt/shop/conf/{name}": content.encode()}
    judgements = classify(locate(read(config, None, mounted), contents), config)
    (wrong,) = (one for one in judgements if one.status == "wrong")
    assert (wrong.address.place.source, wrong.address.text) == (f"conf/{name}:{line}", old)
    override = make_override(judgements, config, contents)
    assert override.content == b""
    assert [left.reason for left in override.left] == [
        "it stands in a file that the service mounts"
    ]
    patch = make_patch(judgements, contents)
    assert apply(patch, files, tmp_path)[f"conf/{name}"] == content.replace(old, new)
    assert read(config, None, {}) == ()


#: Each line holds the one before it many times.
ALIASES = "a: &a [x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefghij", "bcdefghijk", strict=True)
)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("c.yaml", "a: [\n"),
        ("c.yaml", ALIASES),
        ("c.json", "{" * 5000),
        ("c.toml", "= = ="),
        ("c.ini", "no section"),
        ("c.conf", "host localhost:6379"),
        ("c.yaml", "\udcff".encode("utf-8", "surrogateescape").decode("latin-1")),
    ],
)  # fmt: skip
def test_a_mounted_file_that_is_none_is_not_read(name: str, content: str) -> None:
    mount = {"type": "bind", "source": f"/opt/{name}", "target": f"/etc/{name}"}
    config = project({"api": {"volumes": [mount]}})
    assert read(config, None, {f"/opt/{name}": content.encode()}) == ()


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("redis://:p@h", True),
        ("redis://u:p@h", True),
        # A user alone may be a token, and a default a password.
        ("redis://u@h", True),
        ("redis://${USER}:${P}@h", False),
        ("redis://:${P}@h", False),
        ("redis://:$P@h", False),
        ("redis://:${P:-abc}@h", True),
        ("redis://:${P:?give a password}@h", False),
        ("root:PW@tcp(localhost:3306)/db", True),
        ("root:PW@localhost:5432/db", True),
        ("http://TOKEN@localhost:9200", True),
        ("http://h/?key=abc", True),
        ("http://h/?a=1&auth=abc", True),
        ("http://h/?sig=abc", True),
        ('{"auth": "abc"}', True),
        ("https://hooks.example.org/services/T00000000B00000000XyZ", True),
        ("image: redis:7@sha256:" + "a1" * 32, False),
        ("x" * 5000, True),
        ("password=abc", True),
        ("API_KEY: abc", True),
        ("API_KEY: ${KEY}", False),
        ("redis://h:6379/0", False),
    ],
)
def test_what_may_be_a_secret(text: str, secret: bool) -> None:
    assert has_secret(text) is secret


@pytest.mark.parametrize(
    ("text", "variables", "value"),
    [
        ("a$$b", {}, "a$b"),
        ("$A-${B}", {"A": "1", "B": "2"}, "1-2"),
        ("${A:-x}${A-y}", {"A": ""}, "x"),
        ("${A:+x}${A+y}${B+z}", {"A": ""}, "y"),
        ("${A:-${B:-c}}", {}, "c"),
        ("${A?gone}", {"A": "1"}, "1"),
        ("$A", {}, None),
        ("${A?gone}", {}, None),
        ("${A!}", {"A": "1"}, None),
        ("${A", {"A": "1"}, None),
    ],
)
def test_what_compose_makes_of_variables(
    text: str, variables: dict[str, str], value: str | None
) -> None:
    if value is not None:
        assert substitute(text, variables) == value
        return
    with pytest.raises(KeyError):
        substitute(text, variables)


def test_what_an_image_says_is_corrected_by_a_variable_of_the_service() -> None:
    images = {"example/api:1": ImageFacts(env={"REDIS_HOST": "localhost", "X": "1"})}
    body = {"image": "example/api:1", "depends_on": {"redis": {}}}
    config = project({"api": body, **OTHERS})
    files = {path: text.encode() for path, text in compose("build: .").items()}
    judgements = classify(locate(read(config, images), files), config, images=images)
    override = make_override(judgements, config, files, images)
    assert written(override) == {"api": {"environment": {"REDIS_HOST": "redis"}}}
    # No line of the user's own files says so.
    patch = make_patch(judgements, files)
    assert (str(patch), [left.subject for left in patch.left]) == ("", ["api.REDIS_HOST"])


def test_crlf_and_a_missing_last_newline_survive_a_patch(tmp_path: Path) -> None:
    text = "services:\r\n  api:\r\n    environment:\r\n      URL: redis://localhost:6379"
    files = {"compose.yaml": text}
    _, _, _, patch = correct(files, URL="redis://localhost:6379")
    assert apply(patch, files, tmp_path)["compose.yaml"] == text.replace("localhost", "redis")
