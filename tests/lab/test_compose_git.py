"""A stack whose files the host fetches from git: moved refs, faults of the server, half fetches."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.lab.controller import Run
from tests.lab.fixtures import Lab
from tests.lab.hosts import LabHost
from tests.lab.stacks import Shop

ROOT = "/srv/git"
PORT = 7418
SECRET = "t0k3n-%/x"
SERVE = Path(__file__).with_name("git_serve.py")
MEMORY = "/var/lib/stackmend/shop"


class GitShop(Shop):
    """The shop in a repository on a git server of the host's own."""

    def __init__(self, directory: Path, host: LabHost) -> None:
        super().__init__(directory, host)
        self.settings["source"] = {
            "git": f"http://deploy:t0k3n-%25%2Fx@127.0.0.1:{PORT}/app.git",
            "ref": "main",
            "path": "deploy",
            "insecure": True,
        }
        self.settings["health_timeout"] = 8
        health = {"interval": "1s", "timeout": "2s", "retries": 2}
        self.compose = {
            "services": {
                "web": {
                    "build": "./image",
                    "ports": ["127.0.0.1:8080:80"],
                    "healthcheck": {"test": ["CMD", "wget", "-q", "-O", "-", "http://127.0.0.1/"],
                                    **health},
                },
                "side": {"image": "lab/box:1", "volumes": ["./conf/motd:/etc/motd:ro"]},
            }
        }  # fmt: skip

    def serve(self) -> None:
        """Start the server, with an empty repository."""
        self.host.put(f"{ROOT}/serve.py", SERVE.read_bytes())
        self.host.sh(
            f"cd {ROOT} && git init -q --bare -b main app.git && git init -q -b main tree && "
            f"systemd-run -q --unit lab-git python3 {ROOT}/serve.py {ROOT} {PORT} && "
            f"timeout 20 sh -c 'until curl -so /dev/null 127.0.0.1:{PORT}; do sleep 0.1; done'"
        )
        self.fault()

    def push(self, page: str, ref: str = "main", **files: str) -> str:
        """Commit what is declared now, with this page in the image; the commit's id."""
        tree = f"{ROOT}/tree/deploy"
        contents = {
            "compose.yaml": yaml.safe_dump(self.compose, sort_keys=False),
            "image/Dockerfile": f"FROM lab/box:1\nRUN echo {shlex.quote(page)} >/www/index.html\n",
            "conf/motd": "welcome\n",
            **{name.replace("__", "/"): content for name, content in files.items()},
        }
        self.host.sh(f"rm -rf {tree}")
        for path, content in contents.items():
            self.host.put(f"{tree}/{path}", content)
        author = "-c user.name=lab -c user.email=lab@example.com"
        return self.host.sh(
            f"cd {ROOT}/tree && git add -A && git {author} commit -q --allow-empty -m {page!r} && "
            f"git push -q -f {ROOT}/app.git HEAD:refs/heads/{ref} && git rev-parse HEAD"
        )

    def fault(self, kind: str = f"login deploy:{SECRET}") -> None:
        """What is wrong with the server from now on; by default it wants a login."""
        self.host.put(f"{ROOT}/fault", kind)
        self.host.sh(f"rm -f {ROOT}/sent {ROOT}/requests")

    def requests(self) -> list[str]:
        """What the server was asked since."""
        return self.host.sh(f"cat {ROOT}/requests 2>/dev/null", check=False).splitlines()

    def write(self) -> None:
        """Nothing: the controller has no files of it."""

    def untouched(self, *, says: str) -> Run:
        """A run that fails with these words, and changes nothing of the stack."""
        before = self.host.sh(f"cd {self.home} && find . -type f | sort | xargs sha256sum")
        with self.watching() as seen:
            done = self.run("-y")
        assert done.rc == 1, done.out
        assert says in done.out, done.out
        assert seen.quiet, seen.events
        assert self.host.sh(f"cd {self.home} && find . -type f | sort | xargs sha256sum") == before
        self.assert_clean(done)
        return done

    def assert_clean(self, done: Run) -> None:
        """No secret is shown, and nothing of a fetch stays."""
        assert "t0k3n" not in done.out
        record = (self.reports / "latest.json").read_text()
        assert "t0k3n" not in record
        assert self.host.sh("ls -d /tmp/stackmend* 2>/dev/null", check=False) == ""
        grep = f"grep -rl t0k3n /var/lib/stackmend {self.home} 2>/dev/null"
        assert self.host.sh(grep, check=False) == ""

    def applied(self) -> dict[str, str]:
        """What the host remembers of where the files came from."""
        record = json.loads(self.host.read(f"{MEMORY}/applied.json"))
        found: dict[str, str] = record["checkout"]
        return found


@pytest.fixture(scope="module")
def git_shop(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitShop]:
    """Deployed once, from its first commit."""
    shop = GitShop(tmp_path_factory.mktemp("git"), lab.take(1)[0])
    shop.serve()
    first = shop.push("first")
    dry = shop.run("--dry")
    assert dry.rc == 0, dry.out
    assert f"main of http://127.0.0.1:{PORT}/app.git is commit {first}" in dry.out
    # Looking leaves nothing.
    assert not shop.host.exists(MEMORY)
    shop.assert_clean(dry)
    done = shop.deploy()
    assert shop.page() == "first"
    assert shop.applied() == {
        "url": f"http://127.0.0.1:{PORT}/app.git", "ref": "main", "path": "deploy", "commit": first,
    }  # fmt: skip
    assert first in (shop.reports / "latest.json").read_text()
    shop.assert_clean(done)
    yield shop
    shop.host.sh("systemctl stop lab-git", check=False)


@pytest.fixture
def shop(git_shop: GitShop) -> Iterator[GitShop]:
    """The same, whatever the last test left of the server and of the settings."""
    source = dict(git_shop.settings["source"])
    git_shop.fault()
    yield git_shop
    git_shop.settings["source"] = source
    git_shop.fault()


def test_a_ref_that_moved_is_a_change_with_its_cause(shop: GitShop) -> None:
    before = shop.applied()["commit"]
    side = shop.id("side")
    with shop.watching() as seen:
        again = shop.run("-y")
    assert again.rc == 0, again.out
    assert "No changes" in again.out, again.out
    assert seen.quiet
    # What was proven is on the host: only the refs were asked for.
    assert not [line for line in shop.requests() if "POST" in line and line.count("upload") > 1]

    commit = shop.push("second")
    done = shop.run("-y")
    assert done.rc == 0, done.out
    assert f"main moved from {before[:12]} to {commit[:12]}" in done.out, done.out
    assert "image/Dockerfile of its build context changed" in done.out
    assert shop.page() == "second"
    assert shop.id("side") == side
    assert shop.applied()["commit"] == commit
    assert commit in (shop.reports / "latest.json").read_text()
    shop.assert_clean(done)
    again = shop.run("-y")
    assert "No changes" in again.out, again.out


def test_what_does_not_exist_leaves_the_stack_as_it_is(shop: GitShop) -> None:
    source = shop.settings["source"]
    shop.settings["source"] = {**source, "ref": "nope"}
    done = shop.untouched(says="has no ref nope")
    assert "what was proven before stays as it is" in done.out
    shop.settings["source"] = {**source, "path": "nowhere"}
    shop.untouched(says="nowhere does not exist in commit")
    shop.settings["source"] = {**source, "git": source["git"].replace("app.git", "gone.git")}
    shop.fault()
    shop.untouched(says="the provider does not have it")
    # Asked once without a login and once with it, and not tried again.
    assert len(shop.requests()) == 2, shop.requests()


def test_a_commit_that_is_no_stack_leaves_the_stack_as_it_is(shop: GitShop) -> None:
    compose = shop.compose
    shop.compose = {"services": {"web": {"imagee": "lab/box:1"}}}
    shop.push("no stack", ref="broken")
    shop.compose = compose
    shop.settings["source"] = {**shop.settings["source"], "ref": "broken"}
    shop.untouched(says="services.web.imagee: unknown key")


@pytest.mark.parametrize(
    ("fault", "title", "attempts"),
    [
        ("reset", "something on the way resets the connection", 4),
        ("status 403", "the provider denies it", 1),
        ("login deploy:another", "the provider denies it", 2),
        ("status 407", "the proxy", 1),
    ],
)
def test_a_server_that_fails_is_told_by_its_class(
    shop: GitShop, fault: str, title: str, attempts: int
) -> None:
    shop.push("never seen", ref="waiting")
    shop.settings["source"] = {**shop.settings["source"], "ref": "waiting"}
    shop.fault(fault)
    done = shop.untouched(says=title)
    assert len(shop.requests()) == attempts, shop.requests()
    assert ("next attempt in" in done.out) is (attempts > 2)


def test_what_was_proven_is_mended_while_the_server_fails(shop: GitShop) -> None:
    shop.fault("status 404")
    shop.host.docker("kill", shop.id("side"))
    done = shop.run("-y")
    assert done.rc == 1, done.out
    assert "the provider does not have it" in done.out
    assert shop.health()["side"] == "running"
    shop.untouched(says="the provider does not have it")


def test_what_passes_is_tried_again(shop: GitShop) -> None:
    commit = shop.push("third")
    shop.fault("first 2 reset")
    done = shop.run("-y")
    assert done.rc == 0, done.out
    assert "something on the way resets the connection" in done.out
    assert shop.applied()["commit"] == commit
    assert shop.page() == "third"


def test_a_fetch_that_is_cut_at_ten_moments_and_then_is_not(shop: GitShop) -> None:
    """No half-fetched tree is ever built; the next run has all of it."""
    noise = shop.host.sh("head -c 60000 /dev/urandom | base64 -w 0")
    shop.fault("cut 100000000")
    commit = shop.push("fourth", image__noise=noise)
    dry = shop.run("--dry")
    assert dry.rc == 0, dry.out
    total = int(shop.host.sh(f"cat {ROOT}/sent"))
    assert total > 40_000
    page = shop.page()
    # The first cuts off the refs, the others the commit: four attempts of a run, four of the next,
    # and the first one of the last.
    moments = " ".join(str(total * number // 10) for number in range(10))
    shop.fault(f"cut {moments}")
    for _ in range(2):
        done = shop.untouched(says="cannot fetch")
        assert ("resets the connection" in done.out) or ("without an answer" in done.out), done.out
        assert shop.page() == page
    left = shop.host.sh(f"cat {ROOT}/fault")
    assert left == f"cut {total * 9 // 10}"
    done = shop.run("-y")
    assert done.rc == 0, done.out
    assert shop.host.sh(f"cat {ROOT}/fault") == ""
    assert shop.page() == "fourth"
    assert shop.applied()["commit"] == commit


def test_a_controller_that_is_killed_while_it_is_fetched(shop: GitShop) -> None:
    commit = shop.push("fifth")
    shop.fault("hang")
    page = shop.page()
    with shop.start("-y") as run:
        shop.host.sh(f"timeout 60 sh -c 'until grep -q GET {ROOT}/requests; do sleep 0.1; done'")
        # What it runs on the host cannot clean up after itself either.
        left = shop.host.sh("ls -d /tmp/stackmend-git.*")
        process = left.split(".")[1]
        shop.host.sh(f"kill -KILL {process}; pkill -KILL -f '[s]elf/fd/9'; true")
        run.kill()
    assert shop.host.exists(left)
    assert shop.host.sh("grep -rl t0k3n /tmp /dev/shm /run/user 2>/dev/null", check=False) == ""
    assert shop.page() == page
    shop.fault()
    shop.host.sh("systemctl restart lab-git")
    done = shop.run("-y")
    assert done.rc == 0, done.out
    assert shop.page() == "fifth"
    assert shop.applied()["commit"] == commit
    shop.host.sh(
        "timeout 60 sh -c 'while ls -d /tmp/stackmend* >/dev/null 2>&1; do sleep 0.2; done'"
    )


def test_a_version_that_fails_is_rolled_back_to_the_commit_before(shop: GitShop) -> None:
    before = shop.applied()["commit"]
    page = shop.page()
    health = shop.compose["services"]["web"]["healthcheck"]["test"]
    shop.compose["services"]["web"]["healthcheck"]["test"] = ["CMD", "false"]
    shop.push("sixth")
    shop.compose["services"]["web"]["healthcheck"]["test"] = health
    done = shop.run("-y")
    assert done.rc == 1, done.out
    assert "the files and images before are back" in done.out, done.out
    assert shop.page() == page
    assert shop.applied()["commit"] == before
    commit = shop.push("seventh")
    done = shop.run("-y")
    assert done.rc == 0, done.out
    assert shop.page() == "seventh"
    assert shop.applied()["commit"] == commit


def test_a_build_is_tried_again_where_that_can_help(shop: GitShop) -> None:
    shop.compose["services"]["web"]["build"] = {"context": "./image", "network": "host"}
    fetch = f"FROM lab/box:1\nRUN wget -O /www/index.html http://127.0.0.1:{PORT}/app.git/"
    shop.push("fetched", image__Dockerfile=f"{fetch}HEAD\n")
    shop.fault("at /app.git/HEAD first 2 reset")
    done = shop.run("-y")
    assert done.rc == 0, done.out
    assert done.out.count("web: something on the way resets the connection") == 2, done.out
    assert shop.page() == "ref: refs/heads/main"
    page = shop.id("web")
    shop.push("not there", image__Dockerfile=f"{fetch}nothing\n")
    shop.fault("at /nowhere reset")
    done = shop.run("-y")
    assert done.rc == 1, done.out
    assert "web: cannot build its image: the provider does not have it (" in done.out, done.out
    assert len([line for line in shop.requests() if "/nothing " in line]) == 1
    assert shop.id("web") == page
