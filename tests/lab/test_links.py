"""Links between services: wrong ones found, proven, corrected, and the correction taken away again.

What a repair is worth is judged by the container's own environment and tools, never by our probe.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.lab import controller
from tests.lab.fixtures import Lab
from tests.lab.hosts import LabHost
from tests.lab.stacks import Shop

OVERRIDE = "/opt/shop/compose.stackmend.yaml"
#: An @ and a character that URLs have to quote.
PASSWORD = "p%40ss@w0rd-of-redis"

#: Each service has one wrong address: what it is, the cause in words, and what belongs there.
FAULTS: dict[str, tuple[dict[str, str], str, str]] = {
    "loop": (
        {"REDIS_URL": "redis://localhost:6379/0"},
        "localhost:6379 is loop itself; redis has port 6379",
        "redis:6379",
    ),
    "pair": (
        {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": "6379"},
        "127.0.0.1 is pair itself; redis has port 6379",
        "redis",
    ),
    "published": (
        {"UPSTREAM": "http://page:8080"},
        "8080 is the port of page on the host; in its network it is 80",
        "page:80",
    ),
    "named": (
        {"REDIS_URL": "redis://rediss:6379"},
        "no service, alias or container of the project is called rediss",
        "redis:6379",
    ),
    "ported": (
        {"REDIS_URL": "redis://redis:6380"},
        "nothing in redis listens on port 6380",
        "redis:6379",
    ),
    "schemed": (
        {"CLICKHOUSE_URL": "http://clickhouse:9000"},
        "port 9000 of clickhouse speaks clickhouse, and port 8123 http",
        "clickhouse:8123",
    ),
    "proxied": (
        {"HTTP_PROXY": "http://192.0.2.9:3128", "UPSTREAM": "http://page:80"},
        "proxied sends what is for page to its proxy, which does not know the name",
        "",
    ),
    "beyond": (
        {"BACKEND_URL": "http://host.docker.internal:9100"},
        "Docker on Linux does not know host.docker.internal without extra_hosts",
        "",
    ),
}


class Links(Shop):
    """A redis, a page, and callers that are given addresses of theirs."""

    def __init__(self, directory: Path, host: LabHost, **settings: Any) -> None:
        super().__init__(directory, host, **settings)
        self.compose = {
            "services": {
                "redis": {"image": "lab/redis:7", "restart": "unless-stopped"},
                "page": {"image": "lab/box:1", "ports": ["127.0.0.1:8080:80"]},
            }
        }
        for path in ("web.env", "conf/web.conf", "conf/motd", "licence.txt"):
            (self.source / path).unlink()

    def call(self, name: str, **body: Any) -> None:
        """Add a service that calls."""
        self.services[name] = {"image": "lab/box:1", **body}

    def env(self, name: str) -> dict[str, str]:
        """The environment that a container really has."""
        pairs = (item.partition("=") for item in self.container(name)["Config"]["Env"])
        return {key: value for key, _, value in pairs}

    def reaches(self, name: str, host: str, port: int | str) -> bool:
        """Whether the container's own nc gets a connection."""
        return self.answers_inside(name, host, int(port))

    def explains(self, name: str, cause: str) -> bool:
        """Whether a finding of a service's addresses has exactly this cause."""
        found = [
            value for subject, value in self.findings().items() if subject.startswith(f"{name}.")
        ]
        lines = [line for value in found for line in (value["cause"], *value["evidence"])]
        # What is corrected is told by where it stands, what answers by that it does.
        return any(
            re.fullmatch(rf"(?:[\w./-]+:\d+: |.*, although )?{re.escape(cause)}", line)
            for line in lines
        )

    def findings(self, kind: str = "link") -> dict[str, dict[str, Any]]:
        """What the last run found of links, by subject."""
        return {
            finding["subject"]: finding
            for operation in self.report()["operations"]
            for finding in operation["findings"]
            if finding["kind"] == kind
        }


@pytest.fixture
def host(lab: Lab) -> LabHost:
    """A host with ports of its own: 9100 and 9400 open to all, 9300 on its loopback."""
    host = lab.take(1)[0]
    for name, port in (("open", "9100"), ("local", "127.0.0.1:9300"), ("barred", "9400")):
        host.docker(
            *("run", "-d", "--network", "host", "--name", name, "lab/box:1"),
            *("httpd", "-f", "-p", port, "-h", "/www"),
        )
    return host


def test_each_fault_is_corrected_and_the_correction_goes_away(
    host: LabHost, tmp_path: Path
) -> None:
    shop = Links(tmp_path, host)
    for name, (environment, _, _) in FAULTS.items():
        shop.call(name, environment=environment)
    # By its name the image says what it runs, and which of its ports speaks HTTP.
    host.docker("tag", "lab/box:1", "clickhouse:lab")
    shop.services["clickhouse"] = {
        "image": "clickhouse:lab",
        "command": [
            *("sh", "-c"),
            "trap 'exit 0' TERM; nc -ll -p 9000 -e cat & httpd -f -p 8123 -h /www & wait",
        ],
    }
    # What is right on loopback, or without a proxy, is nobody's fault.
    shop.call(
        "well",
        environment={
            "REDIS_URL": "redis://redis:6379/0",
            "PUBLIC_URL": "http://localhost:8080",
            "LISTEN_ADDRESS": "0.0.0.0:80",
            "GREETING": "no place like localhost",
        },
        healthcheck={"test": ["CMD", "wget", "-qO-", "http://localhost:80/"], "interval": "5s"},
    )
    # A name that one service alone has for another.
    shop.call("legacy", links=["redis:store"], environment={"REDIS_URL": "redis://store:6379"})
    shop.deploy()
    for name, port in (("loop", 6379), ("pair", 6379)):
        assert not shop.reaches(name, "127.0.0.1", port)

    shop.settings["links"] = {"on_conflict": "override"}
    dry = shop.run("--dry")
    assert (
        "loop: changed: environment.REDIS_URL: redis://localhost:6379/0 → redis://redis:6379/0"
        in dry.out
    )
    assert not host.exists(OVERRIDE)

    with shop.watching() as seen:
        done = shop.run("-y")
    assert done.rc == 0, done.out
    found = shop.findings()
    for name, (_, cause, right) in FAULTS.items():
        told = [value for subject, value in found.items() if subject.startswith(f"{name}.")]
        text = json.dumps(told)
        assert shop.explains(name, cause), (name, found)
        assert right in text, text
        assert "compose.yaml:" in text, text
    assert not [subject for subject in found if subject.startswith(("well.", "legacy."))]
    assert shop.reaches("legacy", "store", 6379)
    assert shop.reaches("proxied", "page", 80)
    assert seen.recreated == set(FAULTS), seen.events
    assert seen.touched == set(FAULTS), seen.events

    # Each container's own tools, with what its environment says now.
    def url(name: str, key: str) -> tuple[str, int]:
        match = re.fullmatch(r"\w+://([^:/]+):(\d+).*", shop.env(name)[key])
        assert match, shop.env(name)
        return match[1], int(match[2])

    assert url("loop", "REDIS_URL") == ("redis", 6379)
    assert shop.env("loop")["REDIS_URL"] == "redis://redis:6379/0"
    for name, key in (
        ("loop", "REDIS_URL"),
        ("published", "UPSTREAM"),
        ("named", "REDIS_URL"),
        ("ported", "REDIS_URL"),
        ("schemed", "CLICKHOUSE_URL"),
        ("beyond", "BACKEND_URL"),
    ):
        assert shop.reaches(name, *url(name, key)), (name, shop.env(name))
    assert shop.reaches("pair", shop.env("pair")["REDIS_HOST"], shop.env("pair")["REDIS_PORT"])
    exempt = {key: value for key, value in shop.env("proxied").items() if key.upper() == "NO_PROXY"}
    assert any("page" in value for value in exempt.values()), exempt

    with shop.watching() as seen:
        again = shop.run("-y")
    assert again.rc == 0, again.out
    assert "No changes" in again.out, again.out
    assert seen.quiet, seen.events

    # The user takes over the patch of the report: nothing is left of the correction.
    lines = shop.findings("patch")["shop"]["evidence"]
    subprocess.run(["git", "init", "-q", shop.source], check=True)
    patch = "".join(f"{line}\n" for line in lines).encode()
    subprocess.run(["git", "apply"], input=patch, cwd=shop.source, check=True)
    shop.compose = yaml.safe_load((shop.source / "compose.yaml").read_text())
    assert shop.services["loop"]["environment"]["REDIS_URL"] == "redis://redis:6379/0"
    with shop.watching() as seen:
        done = shop.run("-y")
    assert done.rc == 0, done.out
    assert not host.exists(OVERRIDE)
    assert seen.recreated == set(), seen.events
    assert not shop.findings()
    shop.assert_converged()


def test_what_only_the_running_stack_shows(host: LabHost, tmp_path: Path) -> None:
    shop = Links(tmp_path, host)
    gateway = ["host.docker.internal:host-gateway"]
    shop.compose["services"] |= {
        "lonely": {"image": "lab/redis:7", "command": ["redis-server", "--bind", "127.0.0.1"]},
        "first": {"image": "lab/box:1", "networks": {"default": {"aliases": ["cache"]}}},
        "second": {
            "image": "other:lab",
            "command": ["/bin/serve"],
            "networks": {"default": {"aliases": ["cache"]}},
        },
        "edge": {"image": "lab/box:1", "network_mode": "host", "environment": {"PORT": "9200"}},
        "off": {"image": "lab/box:1", "scale": 0},
    }
    host.docker("tag", "lab/box:1", "other:lab")
    shop.compose["networks"] = {"default": {}, "back": {}}
    faults: dict[str, tuple[dict[str, Any], str]] = {
        "to_lonely": (
            {"environment": {"REDIS_URL": "redis://lonely:6379"}},
            "lonely listens on port 6379 of its own loopback alone",
        ),
        "to_off": ({"environment": {"UPSTREAM": "http://off:80"}}, "off does not run"),
        "to_host": (
            {
                "environment": {"UPSTREAM": "http://host.docker.internal:9300"},
                "extra_hosts": gateway,
            },
            "what listens on port 9300 of the host does so on its loopback alone",
        ),
        "to_barred": (
            {
                "environment": {"UPSTREAM": "http://host.docker.internal:9400"},
                "extra_hosts": gateway,
            },
            "the host's packet filter keeps containers from its port 9400",
        ),
        "to_cache": (
            {"environment": {"UPSTREAM": "http://cache:80"}},
            "first and second both answer to cache; which does is chance",
        ),
        "to_edge": (
            {"environment": {"UPSTREAM": "http://edge:9200"}},
            "edge is on the host's network, where no container finds it by name",
        ),
        "on_bridge": (
            {"environment": {"REDIS_URL": "redis://redis:6379"}, "network_mode": "bridge"},
            "on_bridge is on Docker's default bridge, where names lead nowhere",
        ),
        "apart": (
            {"environment": {"UPSTREAM": "http://page:80"}, "networks": ["back"]},
            "apart and page have no network in common",
        ),
    }
    for name, (body, _) in faults.items():
        shop.call(name, **body)
    host.sh("iptables -I INPUT -p tcp --dport 9400 ! -i lo -j DROP")
    shop.deploy()

    shop.settings["links"] = {}
    with shop.watching() as seen:
        done = shop.run("-y")
    assert done.rc == 1, done.out
    assert seen.quiet, seen.events
    assert not host.exists(OVERRIDE)
    found = shop.findings()
    for name, (_, cause) in faults.items():
        assert shop.explains(name, cause), (name, found)
    broken = {subject.partition(".")[0] for subject, value in found.items() if value["blocks"]}
    # Of two that answer to one name either does: that is told, and nothing is broken yet.
    assert broken == set(faults) - {"to_cache"}, found

    # What the findings say, done by hand.
    host.sh("iptables -D INPUT -p tcp --dport 9400 ! -i lo -j DROP")
    host.docker("rm", "-f", "local")
    host.docker(
        *("run", "-d", "--network", "host", "--name", "local", "lab/box:1"),
        *("httpd", "-f", "-p", "9300", "-h", "/www"),
    )
    del shop.services["lonely"]["command"], shop.services["off"]["scale"]
    del shop.services["second"]["networks"], shop.services["on_bridge"]["network_mode"]
    shop.services["to_edge"] |= {
        "environment": {"UPSTREAM": "http://host.docker.internal:9200"},
        "extra_hosts": gateway,
    }
    shop.services["apart"]["networks"] = ["back", "default"]
    done = shop.run("-y")
    assert done.rc == 0, done.out
    assert not shop.findings(), shop.findings()
    assert shop.reaches("to_lonely", "lonely", 6379)
    assert shop.reaches("to_host", "host.docker.internal", 9300)
    assert shop.reaches("to_barred", "host.docker.internal", 9400)
    assert shop.reaches("on_bridge", "redis", 6379)
    assert shop.reaches("apart", "page", 80)
    assert shop.reaches("to_off", "off", 80)
    assert shop.reaches("to_cache", "cache", 80)
    assert shop.reaches("to_edge", "host.docker.internal", 9200)


def test_passwords_in_urls(lab: Lab, tmp_path: Path) -> None:
    """They arrive as they were, and stand nowhere else, wherever they come from."""
    shop = Links(tmp_path, lab.take(1)[0])
    plain = "p@ss@w0rd-of-redis"
    shop.services["redis"]["command"] = ["redis-server", "--requirepass", plain]
    shop.put("app.env", f"REDIS_URL=redis://:{PASSWORD}@localhost:6379/1\n")
    # The same in other forms: a user alone, a parameter, no scheme at all, a dollar that is none.
    others = {
        "CACHE_URL": "redis://us3r-0f-redis@localhost:6379/1",
        "STORE_URL": "redis://localhost:6379/1?auth=qu3ry-0f-redis",
        "REDIS_DSN": "default:b4re-0f-redis@localhost:6379/1",
        "QUEUE_URL": "redis://:$d0llar0fRedis@localhost:6379/1",
        "HOOK_URL": "redis://localhost:6379/p4th-0f-redis-00000000",
    }
    shop.put("more.env", "".join(f"{name}='{value}'\n" for name, value in others.items()))
    shop.call("others", env_file=["more.env"])
    shop.call(
        "worded",
        command="sh -c 'exec sleep 100000' -a ${QUEUE_PASSWORD} --redis-host localhost",
    )
    shop.put(".env", f"QUEUE_PASSWORD={PASSWORD}\n")
    shop.call("filed", env_file=["app.env"])
    shop.call(
        "interpolated",
        environment={"CELERY_BROKER_URL": "redis://:${QUEUE_PASSWORD}@127.0.0.1:6379/2"},
    )
    shop.call("written", environment={"REDIS_URL": f"redis://:{plain}@localhost:6379/3"})
    shop.settings["links"] = {"on_conflict": "override"}
    done = shop.run("-y")
    after = shop.run("-y")
    shown = done.out + after.out + json.dumps(shop.report()) + json.dumps(shop.journal())
    override = shop.host.read(OVERRIDE).decode()
    for secret in (PASSWORD, plain, "ss@w0rd", "w0rd-of-redis"):
        assert secret not in shown
    for secret in ("us3r-0f", "qu3ry-0f", "b4re-0f", "d0llar0f", "p4th-0f"):
        assert secret not in shown + override
    assert {name: shop.env("others")[name] for name in others} == others
    assert "${QUEUE_PASSWORD}" in override
    assert PASSWORD not in override
    env = shop.env("interpolated")["CELERY_BROKER_URL"]
    assert env == f"redis://:{PASSWORD}@redis:6379/2"
    for name, number, password in (("filed", 1, PASSWORD), ("written", 3, plain)):
        url = shop.env(name)["REDIS_URL"]
        assert url in (
            f"redis://:{password}@redis:6379/{number}",
            f"redis://:{password}@localhost:6379/{number}",
        )
        # What cannot be written without its password is told, with what is to be done.
        if "localhost" in url:
            assert f"{name}.REDIS_URL" in shop.findings()
            assert done.rc == after.rc == 1


def test_without_the_section_a_failing_check_names_wrong_links(lab: Lab, tmp_path: Path) -> None:
    check = {
        "kind": "exec",
        "name": "the shop",
        "service": "api",
        "command": "nc -w 2 $REDIS_HOST $REDIS_PORT </dev/null",
        "deadline": 0,
    }
    shop = Links(tmp_path, lab.take(1)[0], checks=[check], on_failure="keep")
    shop.call("api", environment={"REDIS_HOST": "localhost", "REDIS_PORT": "6379"})
    done = shop.run("-y")
    assert done.rc == 1, done.out
    assert "wrong link: compose.yaml:" in done.out
    assert "right: redis" in done.out
    assert not shop.host.exists(OVERRIDE)

    # The operation by itself, in a deploy of the user's own.
    deploy = tmp_path / "deploy.py"
    deploy.write_text(
        "from stackmend import links\n"
        f"links.repaired(project='shop', source={str(shop.source)!r}, directory='/opt/shop', "
        "stability=1, on_conflict='override')\n"
    )
    done = controller.run(shop.inventory(), str(deploy), "-y")
    assert done.rc == 0, done.out
    assert shop.env("api")["REDIS_HOST"] == "redis"
    assert shop.reaches("api", "redis", 6379)
    again = controller.run(shop.inventory(), str(deploy), "-y")
    assert again.rc == 0, again.out
    assert "No changes" in again.out, again.out


def test_an_application_that_keeps_what_it_was_first_told(lab: Lab, tmp_path: Path) -> None:
    script = (
        "trap 'exit 0' TERM; [ -f /data/url ] || echo $REDIS_URL >/data/url; "
        "while :; do u=$(cat /data/url); u=${u#redis://}; nc -w 1 ${u%:*} ${u#*:} </dev/null "
        '|| echo "error: cannot connect to $u"; sleep 1 & wait $!; done'
    )
    shop = Links(tmp_path, lab.take(1)[0])
    shop.call(
        "app",
        environment={"REDIS_URL": "redis://localhost:6379"},
        command=["sh", "-c", script.replace("$", "$$")],
        volumes=["kept:/data"],
    )
    shop.compose["volumes"] = {"kept": {}}
    shop.deploy()
    shop.settings["links"] = {"on_conflict": "override"}
    done = shop.run("-y")
    assert done.rc == 1, done.out
    assert "app still calls localhost:6379" in done.out
    assert "ignores its environment" in done.out
    # A correction that changes nothing is taken back.
    assert not shop.host.exists(OVERRIDE)
    assert shop.env("app")["REDIS_URL"] == "redis://localhost:6379"
