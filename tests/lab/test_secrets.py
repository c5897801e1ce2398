"""Every secret of an inventory, looked for in all that stackmend leaves or shows."""

from __future__ import annotations

import contextlib
import functools
import io
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

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
HOST_PING = "/canary-host-ping-77ab-6c1d"
SSH_PASSWORD = "canary ssh 'pass\"word 2b64"
GIT_PASSWORD = "canary-git/p@ss+6e0d"

#: Where something answers that is no git server.
GIT_PORT = 7419

SECRETS = {
    **ENV,
    "notify": NOTIFY,
    "path of a target": HEARS,
    "ping": PING,
    "ping of the host": HOST_PING,
    "git password": GIT_PASSWORD,
    "ssh_password": SSH_PASSWORD,
    "sudo password": KEEPER_PASSWORD,
}

#: What the host mends itself by.
UNIT = "stackmend-host"
OWN = f"/var/lib/stackmend/schedule/{UNIT}"

#: The project's own files as they were applied, its .env among them, and the settings by which the
#: host mends itself: for root alone.
KEPT = (
    "/var/lib/stackmend/shop/applied.json",
    "/var/lib/stackmend/shop/good-*/*",
    "/var/lib/stackmend/shop/replaced/*/.env",
    f"{OWN}/generations/*/settings.json",
    f"{OWN}/generations/*/files/*/.env",
)

#: Whether the service is healthy; what it says where it is not is shown to whoever asks why.
BREAK = "/broken"
CHECK = f"! [ -e {BREAK} ] || {{ env | base64; exit 1; }}"

#: Found broken, and well again, at once.
QUICK = {"interval": "1s", "start_period": "0s"}

SAMPLER = Path(__file__).with_name("called_with.py")
SAMPLED = "/lab/called_with"

#: What a careless program writes into its log, in each encoding that a shell has.
CHATTY = r"""
env; env | sed 's/ /%20/g'; env | base64; env | base64 -w 20; env | xxd -p
for name in PLAIN QUOTED LINES PERCENT DOLLAR UNICODE BASE64 MARKUP SPACED LONG; do
  eval "printf %s \"\${${name}_TOKEN}\"" | tee /tmp/one
  echo; base64 /tmp/one; xxd -p /tmp/one; hexdump -ve '1/1 "%02x "' /tmp/one; echo
  base64 -w 0 /tmp/one | base64 -w 0; echo
  hexdump -ve '1/1 "\\%03o"' /tmp/one; echo; hexdump -ve '1/1 "%03o "' /tmp/one; echo
  sed 's/./&\n/g' /tmp/one | tr '\n' '\0'; echo
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
                    "healthcheck": {"test": ["CMD", "sh", "-c", CHECK], **HEALTH, **QUICK},
                }
            }
        }
        shop.put("chatty.sh", CHATTY)
        shop.settings["report"] |= {
            "metrics": str(directory / "metrics/stackmend.prom"),
            "notify": [NOTIFY, f"json://127.0.0.1:{target.port}{HEARS}"],
            "ping": f"http://127.0.0.1:{target.port}{PING}",
        }
        shop.settings["schedule"] = {
            "mode": "host",
            "every": "24h",
            "ping": f"http://127.0.0.1:9{HOST_PING}",
        }
        shop.settings["reconcile"] = {"backoff": 0}
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
            done = running.wait(400)
        self.shown[name] = done.out
        return done

    def run_own(self) -> None:
        """The host mends itself, and says why."""
        host = self.shop.host
        host.docker("exec", "shop-web-1", "touch", BREAK)
        self.shop.wait_state("web", "unhealthy")
        host.run(f"systemctl start {UNIT}.service", timeout=180)

    def run_refused(self) -> None:
        """The project is to come from a server that has none such, with a login."""
        before = self.shop.settings["source"]
        self.shop.host.sh(
            "systemd-run -q --collect --unit=nogit python3 -m http.server --bind 127.0.0.1 "
            f"--directory /srv {GIT_PORT} && "
            f"timeout 20 sh -c 'until curl -so /dev/null 127.0.0.1:{GIT_PORT}; do sleep 0.1; done'"
        )
        login = f"canary-login:{quote(GIT_PASSWORD, safe='')}"
        address = f"http://{login}@127.0.0.1:{GIT_PORT}/canary.git"
        self.shop.settings["source"] = {"git": address, "insecure": True}
        done = self.run("git", "site", "-vvvv")
        assert (done.rc, "the provider does not have it" in done.out) == (1, True), done.out
        self.shop.settings["source"] = before

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


@contextlib.contextmanager
def sampling(made: Secretive) -> Iterator[None]:
    """Keep what processes are called with, on the host and on this machine."""
    host, here = made.shop.host, made.directory / "called_with"
    host.put(f"{SAMPLED}.py", SAMPLER.read_bytes())
    host.sh(f"systemd-run -q --collect --unit=sampler python3 {SAMPLED}.py {SAMPLED}")
    local = subprocess.Popen([sys.executable, str(SAMPLER), str(here), "own"])
    try:
        yield
    finally:
        local.kill()
        local.wait()
        host.sh("systemctl stop sampler.service")


@pytest.fixture(scope="module")
def secretive(lab: Lab, target: Target, tmp_path_factory: pytest.TempPathFactory) -> Secretive:
    """The shop after runs of all kinds: that change, fail, look, and show all of it."""
    made = Secretive(tmp_path_factory.mktemp("secrets"), lab, target)
    with sampling(made):
        run_all(made)
    return made


def run_all(made: Secretive) -> None:
    """One run of each kind."""
    done = made.run("site", "site", "-vvvv")
    assert done.rc == 0, done.out
    (first,) = (str(path) for path in made.shop.reports.glob("2*.json"))
    made.run_own()
    web = made.shop.services["web"]
    web["healthcheck"] = {"test": ["CMD", "sh", "-c", "env | base64; exit 1"], **HEALTH, **QUICK}
    made.shop.settings["health_timeout"] = 10
    done = made.run("failing", "reconcile", "-vvvv")
    assert done.rc == 1, done.out
    made.show("failing.html")
    web["image"] = "lab/none-such:1"
    done = made.run("failing, in JSON", "site", "--json")
    assert done.rc == 1, done.out
    made.run_refused()
    done = made.run("doctor", "doctor", "-vvvv", "--bundle", str(made.directory / "support.tar.gz"))
    assert done.rc == 1, done.out
    bundle = str(made.directory / "anonymous.tar.gz")
    made.run("doctor, in JSON", "doctor", "--json", "--bundle", bundle, "--anonymous")
    made.show("run.html")
    done = made.run("undo", "undo", first, "-vvvv")
    assert done.rc in (0, 1), done.out


#: Where the secrets are from, and what is a place of its own.
NOT_SEARCHED = ("lab_inventory.py", "called_with")


def read_shown(made: Secretive) -> Iterator[tuple[str, str]]:
    yield from made.shown.items()


def read_files(made: Secretive) -> Iterator[tuple[str, str]]:
    for path in sorted(made.directory.rglob("*")):
        if path.is_file() and path.suffix != ".gz" and path.name not in NOT_SEARCHED:
            yield str(path.relative_to(made.directory)), path.read_text(errors="replace")


def read_heard(made: Secretive) -> Iterator[tuple[str, str]]:
    """The bodies alone: an address is what one is sent to."""
    for number, (path, body) in enumerate(made.target.requests):
        yield f"{'ping' if path.startswith(PING) else 'message'} {number}", body


def read_bundle(made: Secretive, name: str = "support.tar.gz") -> Iterator[tuple[str, str]]:
    with tarfile.open(made.directory / name) as tar:
        for member in tar.getmembers():
            file = tar.extractfile(member)
            assert file is not None
            yield member.name, file.read().decode()


def read_anonymous(made: Secretive) -> Iterator[tuple[str, str]]:
    yield from read_bundle(made, "anonymous.tar.gz")


def read_called_with(made: Secretive) -> Iterator[tuple[str, str]]:
    """The command lines that there were in all these runs, and those of now."""
    host = made.shop.host
    yield "on the controller", (made.directory / "called_with").read_text(errors="replace")
    yield "on the host", host.read(SAMPLED).decode(errors="replace")
    yield "now", host.sh("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '", check=False)


def read_host(made: Secretive) -> Iterator[tuple[str, str]]:
    yield from list_host(made).items()


@functools.cache
def list_host(made: Secretive) -> dict[str, str]:
    """All that is to be searched on the host, by what it is."""
    host = made.shop.host
    kept = host.sh(f"stat -c '%a %U' {' '.join(KEPT)}", check=False).splitlines()
    assert set(kept) == {"600 root"}
    found = {
        "the system's journal": host.journal(),
        "the journal of changes": host.read("/var/lib/stackmend/journal.jsonl").decode(),
        "the journal of its own runs": host.journal(f"-t {UNIT}"),
        "its units": host.sh(f"systemctl cat {UNIT}.service {UNIT}.timer"),
    }
    besides = " ".join(f"! -path '{path}'" for path in KEPT)
    packed = host.run(
        "find /tmp /var/tmp /var/log /var/lib/stackmend /run/user -xdev -type f -size -2000k "
        f"! -path '/var/log/journal/*' ! -path '{OWN}/programs/*' {besides} -print0 2>/dev/null | "
        "tar -c -P --null --ignore-failed-read -T -"
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        for member in tar.getmembers():
            if (file := tar.extractfile(member)) is not None:
                found[member.name] = file.read().decode(errors="replace")
    return found


PLACES: dict[str, tuple[Callable[[Secretive], Iterator[tuple[str, str]]], str]] = {
    "what runs show": (read_shown, "doctor"),
    "files of the controller": (read_files, "failing.html"),
    "what others hear": (read_heard, "message 1"),
    "the support bundle": (read_bundle, "stackmend-support/README.txt"),
    "the anonymous bundle": (read_anonymous, "stackmend-support/README.txt"),
    "what processes are called with": (read_called_with, "on the controller"),
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
        # UTF-16 is written as `sed` can: of ASCII in one line.
        wide = {"UTF-16"} if secret.isascii() and "\n" not in secret else set()
        assert {"plain", "hex", "base64", "octal", *wide} <= found, (name, notations)
        assert any("of base64" in notation for notation in notations), (name, notations)


def test_all_that_ran_was_met(secretive: Secretive) -> None:
    """What was searched is what there was: runs of each kind, and of the host's own."""
    texts = dict(read_called_with(secretive))
    for word in ("stackmend site ", "stackmend reconcile ", "stackmend undo ", "--anonymous"):
        assert word in texts["on the controller"], word
    assert f"{OWN}/" in texts["on the host"]
    assert "docker compose " in texts["on the host"]
    own = list_host(secretive)
    assert "unhealthy" in own["the journal of its own runs"]
    assert any(path.startswith(f"{OWN}/reports/") for path in own), sorted(own)


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
