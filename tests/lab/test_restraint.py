"""What keeps a host from being mended although it could be: pauses, limits and modes of drift."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.lab import controller
from tests.lab.controller import Controller, Run
from tests.lab.fixtures import Lab
from tests.lab.stacks import Shop

COMMAND = str(Path(sys.executable).with_name("stackmend"))
PAUSES = "/var/lib/stackmend/pauses.json"
LIMITS = "/var/lib/stackmend/limits.json"
COMPOSE: dict[str, Any] = {
    "services": {
        "redis": {"image": "lab/redis:7", "restart": "unless-stopped", "volumes": ["data:/data"]},
        "side": {
            "image": "lab/box:1",
            "restart": "unless-stopped",
            "init": True,
            "ports": ["127.0.0.1:8099:80"],
            "environment": {"LOG_LEVEL": "info", "MODE": "slow"},
        },
    },
    "volumes": {"data": {}},
}


class Kept(Shop):
    """A stack that a schedule keeps."""

    def reconcile(self, *words: str) -> Run:
        self.write()
        return controller.run(
            self.inventory(), "deploy/reconcile.py", *(words or ["-y"]), env=self._environment()
        )

    def command(self, name: str, *words: str) -> Run:
        """The command, in a process of its own: no controller before it is there any more."""
        self.write()
        env = {**self._environment(), "NO_COLOR": "1"}
        arguments = (name, str(self.inventory()), *words)
        with Controller(*arguments, env=env, cwd=self.directory, program=[COMMAND]) as command:
            done = command.wait(120)
        assert "Traceback" not in done.out, done.out
        return done

    def pause(self, name: str, **data: str) -> Run:
        """The deploy of a command, by pyinfra alone."""
        words = (f"--data=pause_{key}={value}" for key, value in data.items())
        return controller.run(
            self.inventory(), f"deploy/{name}.py", "-y", *words, env=self._environment()
        )

    @property
    def outcome(self) -> str:
        return str(self.report()["outcome"])

    def list_running(self) -> set[str]:
        names = self.host.docker("ps", "--format", "{{.Names}}").split()
        return {name.split("-")[1] for name in names}

    def stop(self, *services: str) -> None:
        self.host.docker("stop", "-t", "0", *(f"shop-{name}-1" for name in services))

    def remember(self, path: str, content: object) -> None:
        text = content if isinstance(content, str) else json.dumps(content)
        self.host.put(path, text.encode())

    def is_there(self, path: str) -> bool:
        return self.host.sh(f"test -e {path} && echo yes || true").strip() == "yes"

    def now(self) -> float:
        return float(self.host.sh("date +%s"))


@pytest.fixture(scope="module")
def deployed(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Kept:
    (host,) = lab.take(1)
    host.reset()
    shop = Kept(
        tmp_path_factory.mktemp("kept"), host, mend={"attempts": 100, "backoff": [0]}, stability=0
    )
    shop.compose = copy.deepcopy(COMPOSE)
    shop.deploy()
    return shop


@pytest.fixture
def shop(deployed: Kept) -> Kept:
    """The stack as it is well, with nothing that keeps it from being mended."""
    deployed.settings.pop("reconcile", None)
    deployed.settings.pop("drift", None)
    deployed.host.sh(f"rm -rf {PAUSES} {LIMITS}")
    if deployed.list_running() != {"redis", "side"}:
        deployed.deploy()
    return deployed


def test_what_is_paused_stays_broken_and_is_mended_once_it_is_resumed(shop: Kept) -> None:
    shop.stop("redis")
    paused = shop.command("pause", "--until", "2h", "--why", "Ann reads its disk")
    assert paused.rc == 0, paused.out
    assert shop.host.sh(f"stat -c '%a %U' {PAUSES}").split() == ["600", "root"]
    assert [entry["action"] for entry in shop.journal()][-1] == "pause"
    # Whoever runs it, and however: the pause lies on the host.
    for done in (shop.command("reconcile"), shop.run("-y")):
        assert done.rc == 0, done.out
        assert shop.outcome == "paused", done.out
        assert shop.list_running() == {"side"}
        assert "Ann reads its disk" in done.out
        assert "it exited with code" in done.out, "what is found is reported"
        assert "converged" not in done.out
        assert "not well: " in done.out
    dry = shop.command("site", "--dry")
    assert (dry.rc, shop.outcome) == (0, "paused"), dry.out
    doctor = shop.command("doctor")
    assert doctor.rc == 1, "it is broken, whoever paused it"
    assert "paused by" in doctor.out
    assert "service-down" in doctor.out
    resumed = shop.command("resume")
    assert resumed.rc == 0, resumed.out
    assert not shop.is_there(PAUSES)
    assert shop.list_running() == {"side"}, "the next run mends it"
    again = shop.pause("resume")
    assert (again.rc, shop.outcome) == (0, "converged"), again.out
    done = shop.reconcile()
    assert (done.rc, shop.outcome) == (0, "changed"), done.out
    assert shop.list_running() == {"redis", "side"}


def test_a_pause_of_a_service_keeps_no_other_from_being_mended(shop: Kept) -> None:
    redis = {"only": "service:redis", "why": "it loses keys"}
    assert shop.pause("pause", **redis).rc == 0
    before = shop.host.sh(f"cat {PAUSES}")
    again = shop.pause("pause", **redis)
    assert again.rc == 0, again.out
    assert "No changes" in again.out
    assert shop.host.sh(f"cat {PAUSES}") == before, "it is paused already"
    shop.stop("redis", "side")
    done = shop.reconcile()
    assert (done.rc, shop.outcome) == (0, "paused"), done.out
    assert shop.list_running() == {"side"}
    # What is well beside it is left alone.
    done = shop.reconcile()
    assert (done.rc, shop.outcome) == (0, "paused"), done.out
    assert shop.list_running() == {"side"}
    assert "until somebody resumes it: it loses keys" in done.out
    # Of a room as well.
    shop.stop("side")
    assert shop.pause("pause", only="compose").rc == 0
    assert shop.reconcile().rc == 0
    assert shop.list_running() == set()
    assert shop.pause("resume", only="compose").rc == 0
    assert shop.reconcile().rc == 0
    assert shop.list_running() == {"side"}


def test_a_pause_that_ran_out_has_no_effect_and_is_removed(shop: Kept) -> None:
    over = {"who": "ann", "why": "lunch", "since": 1000, "until": shop.now() - 1}
    shop.remember(PAUSES, {"version": 1, "pauses": [over]})
    shop.stop("redis")
    done = shop.reconcile()
    assert (done.rc, shop.outcome) == (0, "changed"), done.out
    assert shop.list_running() == {"redis", "side"}
    assert not shop.is_there(PAUSES)


@pytest.mark.parametrize(
    "lay",
    [
        f'echo \'{{"version": 1, "pauses": [\' >{PAUSES}',
        f": >{PAUSES}",
        f"ln -s /etc/passwd {PAUSES}",
        f"mkfifo {PAUSES}",
        f"head -c 3000000 /dev/zero >{PAUSES}",
    ],
    ids=["broken", "empty", "link", "fifo", "huge"],
)
def test_what_cannot_be_read_counts_as_a_pause_and_fails(shop: Kept, lay: str) -> None:
    shop.host.sh(lay)
    shop.stop("redis")
    done = shop.reconcile()
    assert (done.rc, shop.outcome) == (1, "refused"), done.out
    assert shop.list_running() == {"side"}
    assert "the host's pauses cannot be read" in done.out
    assert "stackmend resume INVENTORY HOST" in done.out
    if "ln -s" in lay:
        resumed = shop.pause("resume")
        assert resumed.rc == 0, resumed.out
        assert shop.host.sh("head -c 5 /etc/passwd") == "root:"
        done = shop.reconcile()
        assert (done.rc, shop.list_running()) == (0, {"redis", "side"}), done.out


def test_what_does_not_last_is_left_alone_until_somebody_runs_site(shop: Kept) -> None:
    shop.settings["reconcile"] = {"mends": 2, "within": "1h"}
    for _ in range(2):
        shop.stop("redis")
        done = shop.reconcile()
        assert (done.rc, shop.outcome) == (0, "changed"), done.out
    shop.stop("redis")
    # In a process of its own: the count lies on the host.
    for done in (shop.command("reconcile"), shop.reconcile()):
        assert (done.rc, shop.outcome) == (1, "refused"), done.out
        assert shop.list_running() == {"side"}
        assert "mended it 2 times within" in done.out
        assert "run `stackmend site" in done.out
    # Another one is mended all the same.
    shop.stop("side")
    assert shop.reconcile().rc == 1
    assert shop.list_running() == {"side"}
    done = shop.run("-y")
    assert (done.rc, shop.outcome) == (0, "changed"), done.out
    assert "redis" not in shop.host.sh(f"cat {LIMITS} 2>/dev/null || true"), (
        "it begins to count anew"
    )
    shop.stop("redis")
    done = shop.reconcile()
    assert (done.rc, shop.outcome) == (0, "changed"), done.out


def test_a_host_where_runs_fail_is_left_alone_for_a_while(shop: Kept) -> None:
    shop.stop("side")
    taker = "setsid python3 -m http.server --bind 127.0.0.1 8099"
    shop.host.sh(f"{taker} >/dev/null 2>&1 & echo $! >/tmp/taker")
    shop.host.wait_for("ss -ltn | grep -q 127.0.0.1:8099", 20)
    try:
        done = shop.reconcile()
        assert (done.rc, shop.outcome) == (1, "failed"), done.out
        done = shop.reconcile()
        assert (done.rc, shop.outcome) == (1, "failed"), done.out
        assert "the last run failed here" in done.out
        assert "stackmend mends it again from" in done.out
        assert shop.report()["operations"][-1]["done"] == []
        known = json.loads(shop.host.sh(f"cat {LIMITS}"))
        assert known["failing"]["runs"] == 1, "it was not tried"
        # Its time is over: it is tried, fails again, and waits twice as long.
        known["failing"] |= {"at": shop.now() - 301, "until": shop.now() - 1}
        shop.remember(LIMITS, known)
        assert shop.reconcile().rc == 1
        known = json.loads(shop.host.sh(f"cat {LIMITS}"))
        assert known["failing"]["runs"] == 2
        assert known["failing"]["until"] - known["failing"]["at"] == 600
    finally:
        shop.host.sh("kill $(cat /tmp/taker); rm /tmp/taker")
    done = shop.run("-y")
    assert (done.rc, shop.outcome) == (0, "changed"), done.out
    assert 'failing": {' not in shop.host.sh(f"cat {LIMITS} 2>/dev/null || true")


def test_limits_that_cannot_be_read_are_said_and_counted_anew(shop: Kept) -> None:
    shop.remember(LIMITS, '{"version": 7}')
    shop.stop("redis")
    done = shop.reconcile()
    assert (done.rc, shop.outcome) == (0, "changed"), done.out
    assert "cannot be read, and is counted anew" in done.out
    assert json.loads(shop.host.sh(f"cat {LIMITS}"))["version"] == 1


def test_a_run_with_nothing_to_do_costs_no_further_channel(shop: Kept) -> None:
    done = shop.reconcile()
    assert (done.rc, shop.outcome) == (0, "converged"), done.out
    operations = shop.report()["operations"]
    channels = [each["measured"]["channels"]["value"] for each in operations]
    assert channels == [1]


def test_each_field_that_drifts_has_its_mode(shop: Kept) -> None:
    """Limits of the engine's that a person changes while it runs, by hand."""
    paths = ("services.redis.mem_limit", "services.*.memswap_limit")

    def list_drift() -> list[tuple[str, bool]]:
        found = [each for op in shop.report()["operations"] for each in op["findings"]]
        return [(each["cause"], each["blocks"]) for each in found if each["kind"] == "drift"]

    shop.host.docker("update", "--memory", "64m", "--memory-swap", "64m", "shop-redis-1")
    shop.settings["drift"] = dict.fromkeys(paths, "warn")
    warned = shop.reconcile()
    assert (warned.rc, shop.outcome) == (0, "converged"), warned.out
    assert ("mem_limit: 67108864 → (none); left as it is", False) in list_drift()
    assert len(list_drift()) == 2
    shop.settings["drift"] = dict.fromkeys(paths, "ignore") | {"services.redis": "warn"}
    ignored = shop.run("-y")
    assert (ignored.rc, shop.outcome) == (0, "converged"), ignored.out
    assert list_drift() == []
    assert shop.container("redis")["HostConfig"]["Memory"] == 64 * 1024**2
    shop.settings["drift"] = {"services.redis.environment": "ignore"}
    mended = shop.reconcile()
    assert (mended.rc, shop.outcome) == (0, "changed"), mended.out
    assert shop.container("redis")["HostConfig"]["Memory"] == 0


def test_a_path_of_drift_that_no_project_has_is_an_error_before_contact(shop: Kept) -> None:
    shop.settings["drift"] = {"services.rediss.image": "warn"}
    wrong = shop.command("site")
    assert wrong.rc == 2, wrong.out
    assert "there is no service 'rediss'; there are redis, side" in wrong.out
    shop.settings["drift"] = {"services.redis.imag": "warn"}
    wrong = shop.command("site")
    assert wrong.rc == 2, wrong.out
    assert "did you mean image?" in wrong.out
