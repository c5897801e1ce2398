"""Every patch applies with git as a report prints it, and holds no secret."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from stackmend.addresses import Sources, classify, locate, make_patch, read
from stackmend.addresses.sources import substitute
from stackmend.compose import drift
from tests.unit.addresses_world import project

SECRETS = ("s3cr3t-of-env", "in-the-file-9", "hunter2x")
REDACTED = frozenset(SECRETS)
DOTENV = f"REDIS_PASSWORD={SECRETS[0]}\nRHOST=localhost\nLEVEL=info\n"
#: What may stand beside a wrong address, or be one, in a compose file.
VALUES = (
    "redis://localhost:6379/0",
    "redis://127.0.0.1:6379",
    "redis://:${REDIS_PASSWORD}@redis:6379/0",
    "redis://:${REDIS_PASSWORD}@localhost:6379/1",
    "postgresql://app:${REDIS_PASSWORD}@localhost:5432/app",
    "postgresql://app:${REDIS_PASSWORD}@db/app",
    "redis://${RHOST}:6379",
    "redis://:${REDIS_PASSWORD:-hunter2x}@redis:6379",
    f"redis://:{SECRETS[1]}@localhost:6379",
    f"amqp://app:{SECRETS[1]}@queue.example.org",
    SECRETS[1],
    "${REDIS_PASSWORD}",
    "info",
    "redis",
    "a b ä",
)
NAMES = ("CACHE_URL", "DB_URL", "LEVEL", "QUEUE", "API_TOKEN", "X", "Y", "DB_PASSWORD", "Z")
PAIRS = st.lists(
    st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES)),
    min_size=1,
    max_size=8,
    unique_by=lambda pair: pair[0],
)


@settings(max_examples=80, deadline=None)
@given(PAIRS, PAIRS, st.booleans(), st.sampled_from(['"{}"', "{}", "'{}'"]), st.booleans())
def test_every_patch_applies_and_holds_no_secret(
    own: list[tuple[str, str]],
    of_file: list[tuple[str, str]],
    of_env_file: bool,
    quotes: str,
    ends: bool,
) -> None:
    lines = ["services:", "  redis:", "    image: redis:7", "  db:", "    image: postgres:16"]
    lines += ["  api:", "    image: example/api:1", "    environment:"]
    lines += [f"      {name}: {quotes.format(value)}" for name, value in own]
    variables = dict(line.split("=", 1) for line in DOTENV.splitlines())
    plain = [(name, value) for name, value in of_file if "$" not in value]
    values = {name: substitute(value, variables) for name, value in own}
    files = {".env": DOTENV}
    if of_env_file:
        lines.append("    env_file: api.env")
        files["api.env"] = "".join(f"{name}={value}\n" for name, value in plain)
        values = {**dict(plain), **values}
    files["compose.yaml"] = "\n".join(lines) + ("\n" if ends else "")
    config = project(
        {
            "redis": {"image": "redis:7"},
            "db": {"image": "postgres:16"},
            "api": {"image": "example/api:1", "environment": values},
        }
    )
    contents = {path: text.encode() for path, text in files.items()}
    judgements = classify(locate(read(config), contents), config)

    def redact(line: str) -> str:
        return drift.redact(line, REDACTED)

    patch = make_patch(judgements, Sources(contents), redact)
    # As a report has it.
    printed = "".join(f"{redact(line)}\n" for line in patch.text.split("\n")[:-1])
    assert printed == patch.text
    assert not any(secret in f"{patch.text}{patch.left}" for secret in SECRETS)
    left = {one.subject for one in patch.left}
    wrong = {one.subject for one in judgements if one.correctable}
    if not patch.text:
        assert left >= wrong
        return
    with tempfile.TemporaryDirectory() as directory:
        for path, text in files.items():
            (Path(directory) / path).write_text(text, encoding="utf-8", newline="")
        command = ["git", "apply", "--whitespace=nowarn", "-"]
        subprocess.run(command, input=printed.encode(), cwd=directory, check=True)
        after = yaml.safe_load((Path(directory) / "compose.yaml").read_text(encoding="utf-8"))
        for name, value in own:
            now = after["services"]["api"]["environment"][name]
            assert (now != value) <= (f"api.{name}" in wrong), name
            if f"api.{name}" in wrong - left and "$" not in value:
                assert "localhost" not in now
                assert "127.0.0.1" not in now


def test_a_variable_beside_a_change_stays_and_a_secret_is_left_out() -> None:
    lines = (
        "services:\n  redis:\n    image: redis:7\n  api:\n    environment:\n"
        "      PASS: hunter2x\n"
        "      QUEUE: redis://:${REDIS_PASSWORD}@redis:6379/0\n"
        "      URL: redis://localhost:6379\n"
        "      LEVEL: info\n"
        "      OTHER: redis://:hunter2x@redis:6379\n"
    )
    environment = {"URL": "redis://localhost:6379"}
    config = project({"redis": {"image": "redis:7"}, "api": {"environment": environment}})
    contents = {"compose.yaml": lines.encode()}
    judgements = classify(locate(read(config), contents), config)
    patch = make_patch(judgements, contents, lambda line: drift.redact(line, REDACTED))
    assert patch.text.splitlines()[2:] == [
        "@@ -7,3 +7,3 @@",
        "       QUEUE: redis://:${REDIS_PASSWORD}@redis:6379/0",
        "-      URL: redis://localhost:6379",
        "+      URL: redis://redis:6379",
        "       LEVEL: info",
    ]
