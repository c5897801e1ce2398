"""Whatever a value holds, it arrives exactly as it is, and never runs."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from stackmend.compose.source import format_dotenv
from tests.lab.hosts import LabHost
from tests.lab.observed import KEEPER_PASSWORD
from tests.lab.stacks import Shop

NASTY = {
    "single": "it's",
    "double": 'say "so"',
    "both": "'\"'\"'",
    "lines": "one\ntwo\r\n\nthree",
    "command": "$(touch /pwned)",
    "backticks": "`touch /pwned`",
    "variable": "$HOME ${HOME} $$ $",
    "default": "${NOTHING:-${OTHER:?no}}",
    "option": "--privileged",
    "dash": "-",
    "backslashes": "\\ \\\\ \\n \\$ \\' \\\" \\",
    "hash": "a # no comment",
    "equals": "=a=b=",
    "blanks": "  before and after \t ",
    "semicolon": "; touch /pwned ; #",
    "percent": "%s %n %%",
    "unicode": "grüße 日本 \U0001f525 \u202e",
    "yaml": "- [a]: {b: !!c &d *e} | >",
    "number": "0x1F",
    "truth": "yes",
    "empty": "",
    "long": "x" * 4000,
}


def test_values_arrive_exactly_and_never_run(host: LabHost, tmp_path: Path) -> None:
    home = '/opt/it\'s "$(touch pwned)" ünd so'
    shop = Shop(tmp_path, host)
    shop.home = shop.settings["directory"] = home
    named = {f"V_{name}": value for name, value in NASTY.items()}
    shop.settings["env"] = {**named, "V_int": 7, "V_true": True}
    shop.secret_env = {f"SECRET_{name}": f"{value}-sesame-{name}" for name, value in NASTY.items()}
    web = shop.services["web"]
    web["environment"] = {
        **{name: f"${{{name}}}" for name in (*shop.settings["env"], *shop.secret_env)},
        # What is written in the file itself has its dollars doubled, as Compose wants it.
        **{f"W_{name}": value.replace("$", "$$") for name, value in NASTY.items()},
    }
    words = [value.replace("$", "$$") for value in NASTY.values() if value]
    web["command"] = ["sh", "-c", 'printf "%s\\0" "$$@" >/words; exec serve', "sh", *words]
    web["labels"] = {f"label.{name}": value.replace("$", "$$") for name, value in NASTY.items()}
    odd = "conf/-o $(touch pwned) 'x' \"y\" ü.conf"
    shop.put(odd, "odd $(touch pwned)\n")
    web["volumes"].append(
        {
            "type": "bind",
            "source": "./" + odd.replace("$", "$$"),
            "target": "/etc/odd.conf",
            "read_only": True,
        }
    )
    secret = "".join(NASTY.values())
    shop.put("-secret", secret)
    shop.compose["secrets"]["odd"] = {"file": "./-secret"}
    web["secrets"].append("odd")
    shop.services["-dashing"] = {"image": "lab/box:1", "profiles": ["od-d_1.x"]}
    shop.settings["profiles"] = ["od-d_1.x"]
    shop.settings["checks"] = [
        {
            "kind": "exec",
            "service": "web",
            "name": f"check '{name}' $(touch /pwned)",
            "command": ["printf", "%s", f"[{value}]"],
            "contains": f"[{value}]".splitlines()[0],
            "deadline": 0,
        }
        for name, value in NASTY.items()
        if "%" not in value
    ]
    done = shop.run("-y")
    assert done.rc == 0, done.out
    shown = shop.container("web")
    environment = dict(entry.split("=", 1) for entry in shown["Config"]["Env"])
    for name, value in NASTY.items():
        assert environment[f"V_{name}"] == value
        assert environment[f"W_{name}"] == value
        assert environment[f"SECRET_{name}"] == f"{value}-sesame-{name}"
        assert shown["Config"]["Labels"][f"label.{name}"] == value
    assert environment["V_int"] == "7"
    assert environment["V_true"] == "true"
    said = host.run(f"docker exec {shown['Id']} cat /words").stdout.decode()
    assert said.split("\0")[:-1] == [value for value in NASTY.values() if value]
    assert host.docker("exec", shown["Id"], "cat", "/etc/odd.conf") == "odd $(touch pwned)"
    inside = host.run(f"docker exec {shown['Id']} cat /run/secrets/odd").stdout
    assert inside == secret.encode()
    assert shop.health()["-dashing"] == "running"
    # Nothing of it ran, on the host or in a container.
    assert host.sh("find / -xdev -name 'pwned*' 2>/dev/null", check=False) == ""
    assert host.run(f"docker exec {shown['Id']} ls /pwned").returncode != 0
    assert host.sh(f"stat -c '%a %U' {shlex.quote(home)}/.env") == "600 root"
    # It is as declared: a second run has nothing to do, a changed value changes that service only.
    with shop.watching() as seen:
        again = shop.run("-y")
    assert again.rc == 0, again.out
    assert seen.quiet, seen.events
    shop.settings["env"]["V_command"] = "$(touch /pwned) more"
    with shop.watching() as seen:
        changed = shop.run("-y")
    assert changed.rc == 0, changed.out
    assert "environment.V_command: $(touch /pwned) → $(touch /pwned) more" in changed.out
    assert seen.touched == {"web"}
    # What is secret is nowhere but in .env, in our memory and in the engine (runc is a part of it).
    for run in (done, again, changed):
        assert "sesame" not in run.out
    for record in shop.reports.glob("*.json"):
        assert "sesame" not in record.read_text()
    host.put("/tmp/wanted", "sesame\n")
    kept = host.sh(
        "grep -rlsaf /tmp/wanted /etc /opt /root /home /tmp /var/lib/stackmend /var/log /dev/shm "
        "/run/log --exclude=wanted --exclude='runc-process*'",
        check=False,
    ).splitlines()
    for path in kept:
        assert path.startswith(("/opt/", "/var/lib/stackmend/shop/")), path
        assert host.sh(f"stat -c '%a %U' {shlex.quote(path)}") == "600 root", path
    assert any(path.endswith("/.env") for path in kept)


value = st.lists(
    st.one_of(
        st.sampled_from(tuple(item[:50] for item in NASTY.values() if item)),
        st.sampled_from(("\\", '"', "'", "$", "{", "}", "\n", "\r", "#", "=", " ", "`", "(")),
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5),
    ),
    max_size=6,
).map("".join)


@settings(
    max_examples=6,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(values=st.lists(value, min_size=60, max_size=60))
def test_variables_are_read_back_as_they_were_written(host: LabHost, values: list[str]) -> None:
    """Compose itself reads the file: it is the judge of how a value must be written."""
    variables = {f"V{number}": item for number, item in enumerate(values)}
    environment = {name: f"${{{name}}}" for name in variables}
    host.put("/opt/dotenv/.env", format_dotenv(variables))
    compose = {"services": {"web": {"image": "lab/box:1", "environment": environment}}}
    host.put("/opt/dotenv/compose.yaml", json.dumps(compose))
    shown = json.loads(host.sh("cd /opt/dotenv && docker compose config --format json"))
    read = shown["services"]["web"]["environment"]
    assert {name: item.replace("$$", "$") for name, item in read.items()} == variables


@pytest.mark.parametrize("user", ["operator", "keeper"])
def test_users_with_sudo(host: LabHost, tmp_path: Path, user: str) -> None:
    """All the way as a user who is not in the docker group; no password is seen on the host."""
    shop = Shop(tmp_path, host, user=user)
    shop.secret_env = {"API_TOKEN": "sesame-open-now"}
    shop.services["web"]["environment"]["API_TOKEN"] = "${API_TOKEN}"
    shop.settings["checks"] = [
        {"kind": "http", "url": "http://127.0.0.1:8080/", "contains": "box 1"},
        {"kind": "tcp", "address": "redis:6379", "inside": "web"},
    ]
    host.put("/lab/wanted", f"{KEEPER_PASSWORD}\nsesame-open-now\n")
    host.sh(
        "rm -f /lab/hits; setsid sh -c 'while sleep 0.01; do "
        "grep -haof /lab/wanted /proc/[0-9]*/cmdline >>/lab/hits; done' "
        "</dev/null >/dev/null 2>&1 & echo $! > /lab/watcher"
    )
    try:
        first = shop.run("-y", "-vv")
        assert first.rc == 0, first.out
        shop.assert_well()
        environment = shop.container("web")["Config"]["Env"]
        assert "API_TOKEN=sesame-open-now" in environment
        with shop.watching() as seen:
            second = shop.run("-y")
        assert second.rc == 0, second.out
        assert seen.quiet, seen.events
        host.docker("kill", shop.id("side"))
        shop.services["web"]["image"] = "lab/nothing:0"
        third = shop.run("-y", "-vv")
        assert third.rc == 1, third.out
        shop.services["web"].update(image="lab/box:2", command=["sh", "-c", "env; exit 3"])
        fourth = shop.run("-y", "-vv")
        assert fourth.rc == 1, fourth.out
        assert "rolled back" in fourth.out
    finally:
        host.sh("kill -- -$(cat /lab/watcher) 2>/dev/null; kill $(cat /lab/watcher)", check=False)
    assert host.sh("sort /lab/hits 2>/dev/null | uniq -c", check=False) == ""
    for run in (first, second, third, fourth):
        assert KEEPER_PASSWORD not in run.out
        assert "sesame" not in run.out
    for record in shop.reports.glob("*.json"):
        assert KEEPER_PASSWORD not in record.read_text()
        assert "sesame" not in record.read_text()
    logged = host.journal()
    assert KEEPER_PASSWORD not in logged
    assert "sesame-open-now" not in logged
    # runc tells a healthcheck's process its environment through a file that only passes by.
    left = "grep -rlaf /lab/wanted --exclude='runc-process*' /var/log /home /tmp"
    assert host.sh(left, check=False) == ""
    assert host.sh("stat -c '%a %U' /opt/shop/.env") == "600 root"
    assert host.sh("stat -c '%U' /opt/shop/compose.yaml /var/lib/stackmend/shop") == "root\nroot"
