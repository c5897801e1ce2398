"""Settings into a daemon.json that is somebody else's as well; what flags say of the same keys."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackmend.engine.plan import flags
from stackmend.engine.plan.merge import merge, parse_config, strip_comments

LEAVES = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
FILES = st.dictionaries(st.text(max_size=6), VALUES, max_size=5)


@given(held=FILES, desired=FILES, indent=st.sampled_from([None, 1, 2, 4, "\t"]))
def test_what_is_wanted_is_there_and_nothing_else_is_lost(
    held: dict[str, Any], desired: dict[str, Any], indent: int | str | None
) -> None:
    text = json.dumps(held, indent=indent)
    once = merge(text, desired)
    whole = json.loads(once.text)
    for key, value in held.items():
        if key not in desired:
            assert whole[key] == value
    # Once it is there, nothing is to be done any more.
    again = merge(once.text, desired)
    assert not again.changes
    assert again.text == once.text
    assert list(whole)[: len(held)] == list(held), "in the order that it had"
    if not once.changes:
        assert once.text == text, "and untouched where nothing is to be changed"


def test_a_mapping_is_joined_and_mirrors_are_added() -> None:
    text = json.dumps(
        {
            "runtimes": {"kata": {"path": "/opt/kata"}},
            "registry-mirrors": ["https://theirs.example.com"],
            "dns": ["192.0.2.1"],
        }
    )
    desired = {
        "runtimes": {"nvidia": {"path": "nvidia-container-runtime", "args": []}},
        "registry-mirrors": ["https://ours.example.com"],
        "dns": ["192.0.2.2"],
    }
    assert json.loads(merge(text, desired).text) == {
        "runtimes": {
            "kata": {"path": "/opt/kata"},
            "nvidia": {"path": "nvidia-container-runtime", "args": []},
        },
        "registry-mirrors": ["https://theirs.example.com", "https://ours.example.com"],
        "dns": ["192.0.2.2"],
    }


def test_another_driver_takes_no_options_of_the_one_before() -> None:
    text = json.dumps({"log-driver": "journald", "log-opts": {"tag": "x"}})
    found = merge(text, {"log-driver": "json-file", "log-opts": {"max-size": "10m"}})
    assert json.loads(found.text)["log-opts"] == {"max-size": "10m"}


def test_true_is_not_one() -> None:
    assert [one.key for one in merge('{"mtu": 1, "debug": 1}', {"mtu": 1, "debug": True}).changes]


def test_changes_say_from_what_to_what() -> None:
    (change,) = merge('{"log-opts": {"max-size": "1g"}}', {"log-opts": {"max-size": "9m"}}).changes
    assert (change.key, change.before, change.after) == ("log-opts.max-size", '"1g"', '"9m"')


def test_nothing_there_is_an_empty_mapping() -> None:
    for text in ("", "\n", "{}", "\ufeff{}\n"):
        assert merge(text, {"mtu": 1400}).text == '{\n  "mtu": 1400\n}\n'


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_the_end_of_a_line_stays_what_it_is(newline: str) -> None:
    text = newline.join(["{", '    "debug": false', "}", ""])
    found = merge(text, {"mtu": 1400}).text
    assert found == newline.join(["{", '    "debug": false,', '    "mtu": 1400', "}", ""])


def test_comments_go_and_what_looks_like_one_stays() -> None:
    text = '{\n  "a": "http://x /* no */", // yes\n  /* all\n  this */ "b": "\\"//"\n}'
    held, comments = parse_config(text)
    assert held == {"a": "http://x /* no */", "b": '"//'}
    assert comments
    assert strip_comments(text).count("\n") == text.count("\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{\n  "a": 1,\n}', "line 3"),
        ("[1]", "a list, not a mapping"),
        ('"{}"', "a str, not a mapping"),
        ('{"a": 1, "a": 2}', 'duplicate key "a"'),
        ('{"a": {"b": 1, "b": 1}}', 'duplicate key "b"'),
        ("{ // never ends", "line 1"),
        ("\x00", "line 1"),
    ],
)
def test_what_is_no_json_says_where(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_config(text)


def test_flags_are_read_as_dockerd_reads_them() -> None:
    words = (
        "-H fd:// --containerd=/run/containerd/containerd.sock --live-restore --mtu 1400 "
        "--log-opt max-size=10m --log-opt=max-file=3 --iptables=false --registry-mirror "
        "https://a.example.com -s overlay2 -D --dns=192.0.2.1"
    ).split()
    assert flags.parse_flags(words) == {
        "hosts": ("fd://",),
        "containerd": ("/run/containerd/containerd.sock",),
        "live-restore": ("true",),
        "mtu": ("1400",),
        "log-opts": ("max-size=10m", "max-file=3"),
        "iptables": ("false",),
        "registry-mirrors": ("https://a.example.com",),
        "storage-driver": ("overlay2",),
        "debug": ("true",),
        "dns": ("192.0.2.1",),
    }


@pytest.mark.parametrize(
    ("words", "key", "value", "same"),
    [
        ("--mtu=1400", "mtu", 1400, True),
        ("--mtu=1400", "mtu", 1500, False),
        ("--live-restore", "live-restore", True, True),
        ("--live-restore=false", "live-restore", True, False),
        ("--iptables=false", "iptables", False, True),
        ("--dns 192.0.2.1 --dns 192.0.2.2", "dns", ["192.0.2.1", "192.0.2.2"], True),
        ("--dns 192.0.2.2 --dns 192.0.2.1", "dns", ["192.0.2.1", "192.0.2.2"], False),
        ("--log-opt max-size=1m", "log-opts", {"max-size": "1m"}, True),
        ("--log-opt max-size=1m", "log-opts", {"max-size": "1m", "max-file": "2"}, False),
        ("--log-driver=local", "log-driver", "local", True),
    ],
)
def test_what_a_flag_says_already(words: str, key: str, value: Any, same: bool) -> None:
    assert flags.has_value(flags.parse_flags(words.split())[key], value) is same


def test_runtimes_alone_may_stand_in_both() -> None:
    given = flags.parse_flags(["--add-runtime=a=/a", "--mtu=1", "--host=fd://"])
    assert set(flags.find_conflicts(given, {"runtimes": {}, "mtu": 1, "hosts": [], "dns": []})) == {
        "mtu",
        "hosts",
    }
