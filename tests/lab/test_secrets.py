"""Every secret of an inventory, looked for in all that stackmend leaves or shows."""

from __future__ import annotations

import shlex
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab.ai import COMMAND
from tests.lab.canaries import ENV, find
from tests.lab.controller import Controller, Run
from tests.lab.fixtures import Lab
from tests.lab.notified import Target, listening
from tests.lab.observed import KEEPER_PASSWORD
from tests.lab.stacks import HEALTH, Shop

#: Addresses that are secret as a whole and in their parts: of a target that nobody is at, of one
#: that hears all, and of a switch.
NOTIFY = "json://canary-user:canary%40pass-3c9d@127.0.0.1:9/canary-path-52aa"
HEARS = "/canary-heard-1b90"
PING = "/canary-ping-d41d8cd9-8f00"
SSH_PASSWORD = "canary ssh 'pass\"word 2b64"

SECRETS = {
    **ENV,
    "notify": NOTIFY,
    "path of a target": HEARS,
    "ping": PING,
    "ssh_password": SSH_PASSWORD,
    "sudo password": KEEPER_PASSWORD,
}

#: The project's own files as they were applied, its .env among them, for root alone.
KEPT = ("/var/lib/stackmend/shop/applied.json", "/var/lib/stackmend/shop/good-*/*")

#: What a careless program writes into its log, in each encoding that a shell has.
CHATTY = r"""
env; env | sed 's/ /%20/g'; env | base64; env | base64 -w 20; env | xxd -p
for name in PLAIN QUOTED LINES PERCENT DOLLAR UNICODE BASE64 MARKUP SPACED LONG; do
  eval "printf %s \"\${${name}_TOKEN}\"" | tee /tmp/one
  echo; base64 /tmp/one; xxd -p /tmp/one; hexdump -ve '1/1 "%02x "' /tmp/one; echo
done
exec /bin/serve
"""


class Secretive:
    """A shop whose inventory is full of secrets, which a service of it writes into its log."""

    def __init__(self, directory: Path, lab: Lab, target: Target) -> None:
        self.directory, self.target = directory, target
        self.shop = shop = Shop(directory, lab.take(1)[0], user="keeper")
        shop.secret_env = dict(ENV)
        shop.compose = {
            "services": {
                "web": {
                    "image": "lab/box:1",
                    "environment": {name: f"${{{name}}}" for name in ENV},
                    "command": ["sh", "/chatty.sh"],
                    "volumes": ["./chatty.sh:/chatty.sh:ro"],
                    "healthcheck": {"test": ["CMD", "true"], **HEALTH},
                }
            }
        }
        shop.put("chatty.sh", CHATTY)
        shop.settings["report"] |= {
            "metrics": str(directory / "metrics/stackmend.prom"),
            "notify": [NOTIFY, f"json://127.0.0.1:{target.port}{HEARS}"],
            "ping": f"http://127.0.0.1:{target.port}{PING}",
        }
        (directory / "metrics").mkdir()
        self.shown: dict[str, str] = {}

    def run(self, name: str, command: str, *words: str) -> Run:
        self.shop.write()
        inventory = self.shop.inventory()
        with inventory.open("a") as file:
            file.write(f"hosts[0][1]['ssh_password'] = {SSH_PASSWORD!r}\n")
        env = {"STACKMEND_REPORTS": str(self.shop.reports)}
        with Controller(
            command, str(inventory), *words, env=env, cwd=self.directory, program=[COMMAND]
        ) as running:
            done = running.wait(180)
        self.shown[name] = done.out
        return done

    def show(self, page: str) -> None:
        """Write the page of the last run, and keep what that shows."""
        latest, path = self.shop.reports / "latest.json", self.directory / page
        with Controller("report", str(latest), "--html", str(path), program=[COMMAND]) as running:
            self.shown[f"report of {page}"] = running.wait(60).out


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    """What hears of the runs."""
    with listening() as found:
        yield found


@pytest.fixture(scope="module")
def secretive(lab: Lab, target: Target, tmp_path_factory: pytest.TempPathFactory) -> Secretive:
    """The shop after runs of all kinds: that change, fail, look, and show all of it."""
    made = Secretive(tmp_path_factory.mktemp("secrets"), lab, target)
    done = made.run("site", "site", "-vvvv")
    assert done.rc == 0, done.out
    web = made.shop.services["web"]
    web["healthcheck"] = {"test": ["CMD", "sh", "-c", "env | base64; exit 1"], **HEALTH}
    web["healthcheck"] |= {"start_period": "0s", "interval": "1s"}
    made.shop.settings["health_timeout"] = 10
    done = made.run("failing", "site", "-vvvv")
    assert done.rc == 1, done.out
    made.show("failing.html")
    web["image"] = "lab/none-such:1"
    done = made.run("failing, in JSON", "site", "--json")
    assert done.rc == 1, done.out
    done = made.run("doctor", "doctor", "-vvvv", "--bundle", str(made.directory / "support.tar.gz"))
    assert done.rc == 1, done.out
    made.run("doctor, in JSON", "doctor", "--json")
    made.show("run.html")
    return made


def read_shown(made: Secretive) -> Iterator[tuple[str, str]]:
    yield from made.shown.items()


def read_files(made: Secretive) -> Iterator[tuple[str, str]]:
    for path in sorted(made.directory.rglob("*")):
        # The inventory and the project's own files are where the secrets are from.
        if path.is_file() and path.suffix != ".gz" and path.name != "lab_inventory.py":
            yield str(path.relative_to(made.directory)), path.read_text(errors="replace")


def read_heard(made: Secretive) -> Iterator[tuple[str, str]]:
    """The bodies alone: an address is what one is sent to."""
    for number, (path, body) in enumerate(made.target.requests):
        yield f"{'ping' if path.startswith(PING) else 'message'} {number}", body


def read_bundle(made: Secretive) -> Iterator[tuple[str, str]]:
    with tarfile.open(made.directory / "support.tar.gz") as tar:
        for member in tar.getmembers():
            file = tar.extractfile(member)
            assert file is not None
            yield member.name, file.read().decode()


def read_host(made: Secretive) -> Iterator[tuple[str, str]]:
    host = made.shop.host
    kept = host.sh(f"stat -c '%a %U' {' '.join(KEPT)}").splitlines()
    assert set(kept) == {"600 root"}
    yield "the system's journal", host.journal()
    yield "the journal of changes", host.read("/var/lib/stackmend/journal.jsonl").decode()
    yield (
        "what processes are called with",
        host.sh("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '", check=False),
    )
    for path in host.sh(
        "find /tmp /var/tmp /var/log /var/lib/stackmend /run/user -xdev -type f -size -2000k "
        f"! -path '/var/log/journal/*' ! -path {KEPT[0]} ! -path '{KEPT[1]}'",
        check=False,
    ).splitlines():
        yield path, host.sh(f"cat -- {shlex.quote(path)}", check=False)


PLACES: dict[str, tuple[Callable[[Secretive], Iterator[tuple[str, str]]], str]] = {
    "what runs show": (read_shown, "doctor"),
    "files of the controller": (read_files, "failing.html"),
    "what others hear": (read_heard, "message 1"),
    "the support bundle": (read_bundle, "stackmend-support/README.txt"),
    "the host": (read_host, "the journal of changes"),
}


@pytest.mark.parametrize("place", PLACES)
def test_no_secret_is_there_in_any_encoding(secretive: Secretive, place: str) -> None:
    read, known = PLACES[place]
    texts = dict(read(secretive))
    assert texts.get(known), sorted(texts)
    found = {name: hits for name, text in texts.items() if (hits := find(text, SECRETS))}
    assert not found, found


def test_what_is_looked_for_is_found_where_it_is(secretive: Secretive) -> None:
    """So that its absence elsewhere means something: the log has each secret in each notation."""
    raw = secretive.shop.host.docker("logs", "shop-web-1", check=False)
    env = secretive.shop.host.sh("cat /opt/shop/.env")
    for name, secret in ENV.items():
        assert find(env, {name: secret}), name
        notations = [hit.split(" as ", 1)[1].split(":", 1)[0] for hit in find(raw, {name: secret})]
        found = {notation.split(" ")[0] for notation in notations}
        assert {"plain", "hex", "base64"} <= found, (name, notations)


def test_who_is_on_call_heard_of_it(secretive: Secretive) -> None:
    """What was searched is what was sent: of the run that failed, and why."""
    texts = dict(read_heard(secretive))
    assert any("broke" in text and "unhealthy" in text for text in texts.values()), texts
    assert sum(name.startswith("ping") for name in texts) >= 2, texts


def test_the_bundle_is_its_owners_alone_and_says_what_is_in_it(secretive: Secretive) -> None:
    path = secretive.directory / "support.tar.gz"
    assert path.stat().st_mode & 0o777 == 0o600
    texts = dict(read_bundle(secretive))
    host = f"stackmend-support/hosts/{secretive.shop.host.name}"
    for name in ("diagnosis.txt", "versions.json", "settings.json", "journal.jsonl", "tables.txt"):
        assert texts[f"{host}/{name}"].strip(), name
    assert f"{host}/logs/shop-web-1.log" in texts
    assert "*MASKED*" in texts[f"{host}/logs/shop-web-1.log"]
    assert '"PLAIN_TOKEN": "*MASKED*"' in texts[f"{host}/settings.json"]
