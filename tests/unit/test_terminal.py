"""What a real run of pyinfra prints: without secrets, and nothing that steers a terminal."""

import base64
import io
import json
import os
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackmend import redaction, terminal
from stackmend.redaction import Redactor
from tests.hostile_text import NOTATIONS, SEQUENCES, assert_clean, holds, on_a_terminal, strings
from tests.lab import controller
from tests.unit.test_redaction import SECRETS

ROOT = Path(__file__).parents[2]
SECRET = "p@ss/w\\ord $1'x"


TO_THE_LETTER = {
    *("as it is", "URL", "URL, all quoted", "form", "JSON", "JSON, not only ASCII", "repr"),
    *(".env", "HTML", "base64", "basic auth, 1", "basic auth, 2", "basic auth, 3", "hex", "HEX"),
}


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Redactor:
    only = Redactor()
    monkeypatch.setattr(redaction, "_process", only)
    return only


@settings(deadline=None)
@given(
    # Of several lines each is shown as soon as it ends, and known by itself where it is long.
    SECRETS.filter(lambda secret: "\n" not in secret),
    st.sampled_from(sorted(NOTATIONS)),
    st.data(),
)
def test_a_secret_in_pieces_is_not_shown(secret: str, notation: str, data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redaction, "_process", Redactor({secret}))
        form = NOTATIONS[notation](secret)
        out = io.StringIO()
        screen = terminal.Screen(out)
        cuts = [0, *sorted(data.draw(st.sets(st.integers(1, len(form)), max_size=4))), len(form)]
        for start, end in pairwise(cuts):
            screen.write(form[start:end])
            # Where it is shown before its line ends, what libraries write to the letter is known.
            if notation in TO_THE_LETTER:
                screen.flush()
        screen.finish()
        assert not holds(out.getvalue(), secret)


def test_half_of_a_secret_waits_and_a_prompt_does_not(known: Redactor) -> None:
    known.add("hunter2hunter2")
    out = io.StringIO()
    screen = terminal.Screen(out)
    screen.write("Press enter to execute... ")
    screen.flush()
    assert out.getvalue() == "Press enter to execute... "
    screen.write("so hunter2")
    screen.flush()
    assert out.getvalue().endswith("so ")
    screen.write("hunter2!\n")
    assert out.getvalue().endswith("so *MASKED*!\n")
    screen.write("hunter2")
    screen.finish()
    assert out.getvalue().endswith("hunter2")


def test_the_spinner_moves_and_what_only_looks_like_it_does_not(known: Redactor) -> None:
    out = Tty()
    screen = terminal.Screen(out)
    for piece in ("    - host\r", "\x1b[K", "\x1b[1A      \x1b[1A"):
        screen.write(piece)
    assert out.getvalue() == "    - host\r\x1b[K\x1b[1A      \x1b[1A"
    screen.write("    - host\rover\x1b[K\n")
    assert out.getvalue().endswith("    - host\\rover\\x1b[K\n")


def test_lines_are_cut_on_the_terminal_and_not_where_programs_read(known: Redactor) -> None:
    out = io.StringIO()
    terminal.Screen(out).write("x" * 10_000_000 + "\nnext\n")
    assert out.getvalue() == "x" * 2000 + "… (9,998,000 more characters)\nnext\n"
    out = io.StringIO()
    terminal.Screen(out, None).write("x" * 10_000 + "\n")
    assert len(out.getvalue()) == 10_001


HOSTILE = """
import sys
import click
from pyinfra import host, logger
from pyinfra.api import operation, FunctionCommand, StringCommand
from stackmend import connection, reporting
from stackmend.reporting import announce

LINES = open("hostile.txt", encoding="utf-8", errors="surrogateescape").read().split("\\n")

@operation()
def mended():
    report = reporting.record(host, "room.mended")
    def act(state, host):
        host.log(LINES[0])
        announce.report_error(host, report, "ai", "it says " + LINES[1], LINES)
        connection.run(host, "cat hostile.txt; cat hostile.txt >&2")
        print(LINES[0], file=sys.stderr)
        print(LINES[0])
        logger.debug("debug %s", LINES[2])
        click.echo("\\n".join(LINES), err=True)
        raise RuntimeError("callback: " + "".join(LINES))
    # pyinfra itself takes nothing but UTF-8.
    yield StringCommand("sed '$d' hostile.txt; false")
    yield FunctionCommand(act, (), {})

mended(name="told", _continue_on_error=True)
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "config.py").write_text("from stackmend import reporting\nreporting.install()\n")
    (tmp_path / "inventory.py").write_text(
        "from pydantic import SecretStr\n"
        f"stack = {{'source': 'stack', 'env': {{'KEY': SecretStr({SECRET!r})}}}}\n"
        "stack |= {'project': 'shop', 'directory': '/opt/shop'}\n"
        "hosts = [('@local', {'stack': stack})]\n"
    )
    (tmp_path / "stack").mkdir()
    (tmp_path / "stack/compose.yaml").write_text("services: {web: {image: lab/box:1}}\n")
    (tmp_path / "deploy.py").write_text(HOSTILE)
    forms = [form(SECRET) for form in NOTATIONS.values()]
    lines = [
        SEQUENCES,
        f"50%\r100% {quote(SECRET)}",
        *(f"{SEQUENCES} {form.strip()}" for form in forms),
        "y" * 300_000,
        "lone \udc9b surrogate",
    ]
    (tmp_path / "hostile.txt").write_text(
        "\n".join(lines), encoding="utf-8", errors="surrogateescape"
    )
    return tmp_path


ENVIRONMENT = {"TERM": "xterm-256color", "COLUMNS": "120", "STACKMEND_REPORTS": ""}


def piped(site: Path, *arguments: str) -> str:
    words = ("inventory.py", "deploy.py", "-y", *arguments)
    with controller.start(*words, cwd=site, env=ENVIRONMENT) as run:
        assert run.wait(180).rc == 1
        return run.read().decode("utf-8", "surrogateescape")


@pytest.mark.parametrize("arguments", [(), ("-vvv", "--debug"), ("--debug-all",)])
def test_nothing_that_a_run_prints_gives_a_secret_away_or_steers(
    site: Path, arguments: tuple[str, ...]
) -> None:
    text = piped(site, *arguments)
    assert "\\x1b]0;owned\\x07" in text
    assert "*MASKED*" in text
    assert_clean(text, SECRET)
    (path,) = (site / "var/reports").glob("2*.json")
    record = path.read_text()
    assert "*MASKED*" in record
    for value in strings(json.loads(record)):
        assert_clean(value + "\n", SECRET)


def test_styles_are_pyinfras_own_on_a_terminal(site: Path) -> None:
    words = [*controller.pyinfra_argv(), "inventory.py", "deploy.py", "-y", "-vvv", "--debug"]
    status, text = on_a_terminal(words, site, {**os.environ, **ENVIRONMENT})
    assert status == 1
    assert "\x1b[32m" in text
    assert "\x1b[31mred" not in text
    assert "\\x1b[31mred" in text
    assert_clean(text, SECRET)


def test_the_debug_log_of_pyinfra_is_clean(site: Path) -> None:
    # An error that pyinfra does not expect, of a kind that its command line does not wrap.
    (site / "config.py").write_text(
        "from stackmend import reporting\nreporting.install()\n"
        "from pyinfra_cli import main as _m, cli as _c\n"
        "def broken(*a, **k):\n"
        "    raise LookupError(open('hostile.txt', errors='surrogateescape').read())\n"
        "_c.connect_all = broken\n"
    )
    assert_clean(piped(site, "--debug"), SECRET)
    log = (site / "pyinfra-debug.log").read_text()
    assert "LookupError" in log
    assert_clean(log, SECRET)


def test_a_fact_is_shown_without_secrets(site: Path) -> None:
    words = ("inventory.py", "fact", "server.Command", "command=sed '$d' hostile.txt")
    with controller.start(*words, cwd=site, env=ENVIRONMENT) as run:
        run.wait(180)
        text = run.read().decode()
    assert "*MASKED*" in text
    assert_clean(text, SECRET)


def test_json_for_programs_stays_json(site: Path) -> None:
    (site / "deploy.py").write_text("from pyinfra.operations import server\n")
    words = ("inventory.py", "deploy.py", "-y", "--json")
    assert controller.run(*words, cwd=site, env=ENVIRONMENT, timeout=180).json


def test_a_secret_that_is_too_short_is_told(site: Path) -> None:
    (site / "inventory.py").write_text(
        "from pydantic import SecretStr\n"
        "hosts = [('@local', {'stack': {'env': {'PIN': SecretStr('x1')}}})]\n"
    )
    assert piped(site).count("stack.env.PIN: a secret of fewer than 4 characters") == 1


def test_what_is_decoded_of_basic_auth_is_the_user_at_most(known: Redactor) -> None:
    known.add(SECRET)
    for user in ("u", "us", "use"):
        form = base64.b64encode(f"{user}:{SECRET}".encode()).decode()
        assert not holds(redaction.redact(f"Authorization: Basic {form}"), SECRET)
