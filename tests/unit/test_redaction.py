"""A secret is found in every notation in which a program writes it, whatever stands around it."""

import base64
import time
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, SecretBytes, SecretStr
from pyinfra.api.hiddenvalue import HiddenValue

from stackmend.redaction import MASK, Redactor, find_secrets
from tests.hostile_text import HOLE, NOTATIONS, READERS, holds

SECRETS = st.text(
    st.one_of(
        st.sampled_from("aZ09-_.~ /+=%&?#:@!$'\"\\`<>{}[]()*;|^\n\r\t\x00\x1béß日🙂"),
        st.characters(exclude_categories=["Cs"], exclude_characters=HOLE),
    ),
    min_size=4,
    max_size=24,
).filter(lambda text: len(text.strip()) >= 4 and text.strip() == text and text not in MASK)
AROUND = st.text(
    st.one_of(
        st.sampled_from("aZ09 ='\":/@{}&%\\\n"),
        st.characters(exclude_categories=["Cs"], exclude_characters=HOLE),
    ),
    max_size=12,
)


@settings(deadline=None, max_examples=300)
@given(SECRETS, st.sampled_from(sorted(NOTATIONS)), AROUND, AROUND)
@example("p@ss/word", "URL", "redis://:", "@redis")
@example("back\\slash", ".env", "", "")
@example("back\\\\slash$HOME", ".env", "", "")
@example("a\\x27b\"c'", "as it is", "", "")
@example('quote"\nbreak', "JSON", "", "")
@example('ends with "', "JSON", '"', '"')
@example("tr\u00fcb & <grau>", "entities", "", "")
@example("🙂🙂🙂🙂", "JSON", "", "")
@example("0,%0", "URL, little quoted", "", "")
@example("a&b&&c", "HTML", "", "")
def test_no_notation_gives_a_secret_back(
    secret: str, notation: str, before: str, after: str
) -> None:
    if any(reader(before + after) == secret for reader in READERS):
        return
    text = f"{before}{NOTATIONS[notation](secret)}{after}"
    shown = Redactor({secret}).redact(text)
    assert not holds(shown, secret)
    assert MASK in shown


@pytest.mark.slow
@settings(deadline=None, max_examples=200)
@given(st.lists(SECRETS, min_size=2, max_size=5), st.lists(st.sampled_from(sorted(NOTATIONS))))
def test_several_secrets_do_not_hide_one_another(secrets: list[str], notations: list[str]) -> None:
    secrets += [secrets[0] + secrets[1], secrets[0][:4].strip() + secrets[-1]]
    redactor = Redactor(secrets)
    for notation in ["as it is", *notations]:
        shown = redactor.redact("".join(map(NOTATIONS[notation], secrets)))
        assert not any(holds(shown, secret) for secret in redactor.secrets if secret not in MASK)


@settings(deadline=None)
@given(SECRETS, AROUND)
def test_text_without_a_secret_stays_as_it_is(secret: str, text: str) -> None:
    if not holds(text, secret) and len(text) < len(secret):
        assert Redactor({secret}).redact(text) == text


@pytest.mark.parametrize(
    ("secret", "text", "shown"),
    [
        ("line one of it\nline two of it", "found: line two of it", "found: *MASKED*"),
        ("line one of it\nshort\n", "short", "short"),
        ("a key of\r\nanother system", "a key of\nanother system", "*MASKED*\n*MASKED*"),
        ("abc", "abc=abcd abc", "*MASKED*=abcd *MASKED*"),
        ("hunter2", "Basic dXNlcjpodW50ZXIy", "Basic dXNlcj*MASKED*"),
        ("it's a key", "sh: 'it'\"'\"'s a key'", "sh: '*MASKED*'"),
        ("   ", "three   spaces", "three   spaces"),
        ("  in spaces  ", "[in spaces]", "[*MASKED*]"),
    ],
)
def test_what_is_replaced(secret: str, text: str, shown: str) -> None:
    assert Redactor({secret}).redact(text) == shown


SECRET = "pa$$'w\"or%d né☃/x+Y=long-enough-secret-value-1234567890"
BYTES = SECRET.encode()


def wrap(text: str, width: int = 20, between: str = "\n") -> str:
    return between.join(text[at : at + width] for at in range(0, len(text), width))


@pytest.mark.parametrize(
    "written",
    [
        wrap(base64.b64encode(BYTES).decode()),
        wrap(base64.b64encode(BYTES).decode(), between="\r\n    "),
        wrap(base64.b64encode(BYTES).decode(), between="\\n"),
        wrap(base64.urlsafe_b64encode(BYTES).decode(), between="\\\n"),
        wrap(BYTES.hex(), 16),
        wrap(SECRET, 10),
        wrap(SECRET, 10, "=\n"),
        BYTES.hex(":"),
        BYTES.hex(" "),
        BYTES.hex(" ", 2),
        BYTES.hex("-").upper(),
        wrap(BYTES.hex(":").upper(), 48),
        "".join(f"%{byte:02x}" for byte in BYTES),
        "".join(f"\\x{byte:02x}" for byte in BYTES),
        "".join(f"\\u{ord(character):04x}" for character in SECRET),
        "".join(f"&#{ord(character)};" for character in SECRET),
        "".join(f"&#x{ord(character):X};" for character in SECRET),
        "".join(f"\\{byte:03o}" for byte in BYTES),
        "".join(f"\\\\{byte:03o}" for byte in BYTES),
        " ".join(f"{byte:03o}" for byte in BYTES),
        base64.b64encode(base64.b64encode(BYTES)).decode(),
        wrap(base64.b64encode(base64.b64encode(BYTES)).decode()),
        "\0".join(SECRET),
    ],
)
def test_what_is_wrapped_or_escaped_as_a_whole_is_replaced(written: str) -> None:
    text = f"before {written} after"
    assert Redactor({SECRET}).redact(text) == f"before {MASK} after"
    lines = text.split("\n")
    redacted = Redactor({SECRET}).redact_lines(lines)
    assert len(redacted) == len(lines)
    assert redacted[0] == f"before {MASK}" + (" after" if len(lines) == 1 else "")
    assert redacted[-1] == (f"{MASK} after" if len(lines) > 1 else redacted[0])
    assert set(redacted[1:-1]) <= {MASK}


@pytest.mark.parametrize("before", range(6))
@pytest.mark.parametrize("after", range(3))
def test_no_part_is_left_of_what_stands_within_base64_of_base64(before: int, after: int) -> None:
    once = base64.b64encode(b"u" * before + BYTES + b"v" * after)
    for around in range(3):
        text = base64.b64encode(b"x" * around + once + b"y").decode()
        shown = Redactor({SECRET}).redact(text)
        assert MASK in shown
        # What is left decodes to what stood around it alone.
        left = max(shown.split(MASK), key=len)
        assert len(left) < 16, shown


def test_words_that_stand_beside_each_other_by_chance_stay() -> None:
    text = "its pass\nword is\nnot shown: 12 34 56 at 2026-01-02T03:04:05 from 00:11:22:33:44:55"
    assert Redactor({"passw", "123456", "001122"}).redact(text) == text


def test_where_two_secrets_overlap_no_end_of_one_is_left() -> None:
    both = Redactor({"abcdefgh", "fghijklm"})
    assert both.redact("<abcdefghijklm>") == f"<{MASK}>"


class Settings(BaseModel):
    token: SecretStr
    plain: str = "seen"


def test_secrets_are_found_wherever_settings_hold_them() -> None:
    data = {
        "stack": {
            "env": {"KEY": SecretStr("one"), "MODE": "seen"},
            "models": [SecretBytes(b"two")],
        },
        "typed": Settings(token=SecretStr("three")),
        "_sudo_password": "four",
        "_env": {"X": HiddenValue("five")},
        "ssh_password": None,
        "password_login": False,
    }
    data["itself"] = data
    assert dict(find_secrets(data)) == {
        "stack.env.KEY": "one",
        "stack.models.0": "two",
        "typed.token": "three",
        "_sudo_password": "four",
        "_env.X": "five",
    }


def test_it_is_fast_with_many_secrets_and_hostile_text(
    record_property: Callable[[str, object], None],
) -> None:
    secrets = [base64.b64encode(bytes([n]) * 7 + b"/\\'\"$" + bytes(9)).decode() for n in range(50)]
    secrets += [f"pa$$'w\\or\"d{n:03}/é" for n in range(50)]
    redactor = Redactor(secrets)
    redactor.redact("")
    line = '2026-01-01T00:00:00 api | {"level": "info", "path": "/v1/models", "ms": 12}\n'
    hostile = ["\\" * 1_000_000, "'" * 1_000_000, "%25" * 300_000, "&amp;" * 200_000]
    hostile += ["pa$" + "$" * 1_000_000, "pa$$'w" * 150_000, secrets[0][:-1] * 40_000]
    for text in hostile:
        began = time.perf_counter()
        redactor.redact(text)
        assert time.perf_counter() - began < 10
    began = time.perf_counter()
    for _ in range(60_000):
        redactor.redact(line)
    rate = 60_000 * len(line) / (time.perf_counter() - began) / 1e6
    record_property("MB per second, 100 secrets", round(rate, 1))
    assert rate > 1, f"{rate:.2f} MB/s"
