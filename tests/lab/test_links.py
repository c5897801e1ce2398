"""Links between services: wrong ones found, proven, corrected, and the correction taken away again.

What a repair is worth is judged by the container's own environment and tools, never by our probe.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from tests.lab import controller
from tests.lab.fixtures import Lab
from tests.lab.hosts import LabHost
from tests.lab.stacks import Shop

OVERRIDE = "/opt/shop/compose.stackmend.yaml"
#: An @ and a character that URLs have to quote.
PASSWORD = "p%40ss@w0rd-of-redis"

#: What a container does with its own tools and its own environment: each as its application would.
PING = "printf 'PING\\r\\n' | nc -w 3 {} | grep -q PONG"
PAGE = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 3 {} | grep -q '200 OK'"
OF_URL = '$(echo "${}" | sed "s#.*://##; s#/.*##; s#:# #")'

#: Each service has one wrong address: what it is, the cause in words, what belongs there, and what
#: works once it does. What a proxy is for is asked from the host, see `Links.fetches`.
FAULTS: dict[str, tuple[dict[str, str], str, str, str]] = {
    "loop": (
        {"REDIS_URL": "redis://localhost:6379/0"},
        "localhost:6379 is loop itself; redis has port 6379",
        "redis:6379",
        PING.format(OF_URL.format("REDIS_URL")),
    ),
    "pair": (
        {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": "6379"},
        "127.0.0.1 is pair itself; redis has port 6379",
        "redis",
        PING.format("$REDIS_HOST $REDIS_PORT"),
    ),
    "published": (
        {"UPSTREAM": "http://page:8080"},
        "8080 is the port of page on the host; in its network it is 80",
        "page:80",
        PAGE.format(OF_URL.format("UPSTREAM")),
    ),
    "named": (
        {"REDIS_URL": "redis://rediss:6379"},
        "no service, alias or container of the project is called rediss, and the name does not "
        "resolve in named",
        "redis:6379",
        PING.format(OF_URL.format("REDIS_URL")),
    ),
    "ported": (
        {"REDIS_URL": "redis://redis:6380"},
        "nothing in redis listens on port 6380",
        "redis:6379",
        PING.format(OF_URL.format("REDIS_URL")),
    ),
    "schemed": (
        {"CLICKHOUSE_URL": "http://clickhouse:9000"},
        "port 9000 of clickhouse speaks clickhouse, and port 8123 http",
        "clickhouse:8123",
        PAGE.format(OF_URL.format("CLICKHOUSE_URL")),
    ),
    "proxied": (
        {"HTTP_PROXY": "http://192.0.2.9:3128", "UPSTREAM": "http://page:80"},
        "proxied sends what is for page to its proxy, which does not know the name",
        "",
        "",
    ),
    "beyond": (
        {"BACKEND_URL": "http://host.docker.internal:9100"},
        "Docker on Linux does not know host.docker.internal without extra_hosts",
        "",
        PAGE.format(OF_URL.format("BACKEND_URL")),
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

    def succeed(self, calls: Mapping[str, str]) -> dict[str, bool]:
        """Whether each service's command succeeds in its container, all at once."""
        script = "".join(
            f"(docker exec {self.id(name)} timeout 5 sh -c {shlex.quote(command)} "
            f">/dev/null 2>&1; echo {name} $?) &\n"
            for name, command in calls.items()
        )
        lines = self.host.sh(f"{script}wait", timeout=60).splitlines()
        return {name: code == "0" for name, code in map(str.split, lines)}

    def fetches(self, name: str, url: str) -> bool:
        """Whether the host's curl gets a URL in a container's network, by its proxies."""
        container = self.container(name)
        upstream = urlsplit(url).hostname or ""
        networks = self.container(upstream)["NetworkSettings"]["Networks"]
        address = next(iter(networks.values()))["IPAddress"]
        env = [f"{k}={v}" for k, v in self.env(name).items() if k.upper().endswith("_PROXY")]
        # It takes a proxy for HTTP from the name in small letters alone.
        env += [f"http_proxy={self.env(name)['HTTP_PROXY']}"]
        command = [
            *("nsenter", "-t", str(container["State"]["Pid"]), "-n", "env", *env),
            *("curl", "-sf", "-m", "3", "-o", "/dev/null"),
            *("--resolve", f"{upstream}:{urlsplit(url).port}:{address}", url),
        ]
        return self.host.run(shlex.join(command), timeout=20).returncode == 0

    def reaches(self, name: str, host: str, port: int | str) -> bool:
        """Whether the container's own nc gets a connection."""
        return self.answers_inside(name, host, int(port))

    def explains(self, name: str, cause: str) -> bool:
        """Whether a finding of a service's addresses has exactly this cause."""
        found = [
            value for subject, value in self.findings().items() if subject.startswith(f"{name}.")
        ]
        lines = [line for value in found for line in (value["cause"], *value["evidence"])]
        # What is corrected is named by where it stands, what answers by that it does.
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
    for name, (environment, *_) in FAULTS.items():
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
    calls = {name: command for name, (*_, command) in FAULTS.items() if command}
    assert shop.succeed(calls) == dict.fromkeys(calls, False)
    assert not shop.fetches("proxied", "http://page:80/")

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
    for name, (_, cause, right, _) in FAULTS.items():
        text = json.dumps(
            [value for subject, value in found.items() if subject.startswith(f"{name}.")],
            ensure_ascii=False,
        )
        assert shop.explains(name, cause), (name, found)
        written = f" → {right}" if right else "compose.stackmend.yaml corrects it"
        assert written in text, text
        assert re.search(r"compose\.yaml:\d+: then compose\.stackmend\.yaml goes away", text), text
    assert not [subject for subject in found if subject.startswith(("well.", "legacy."))]
    assert shop.reaches("legacy", "store", 6379)
    assert seen.recreated == set(FAULTS), seen.events
    assert seen.touched == set(FAULTS), seen.events

    assert shop.env("loop")["REDIS_URL"] == "redis://redis:6379/0"
    assert shop.succeed(calls) == dict.fromkeys(calls, True)
    assert shop.fetches("proxied", "http://page:80/")
    exempt = {key: value for key, value in shop.env("proxied").items() if key.upper() == "NO_PROXY"}
    assert any("page" in value for value in exempt.values()), exempt

    with shop.watching() as seen:
        again = shop.run("-y")
    assert again.rc == 0, again.out
    assert "No changes" in again.out, again.out
    assert seen.quiet, seen.events

    # One of them the user corrects by hand: the file holds the others, and nothing is touched.
    shop.services["loop"]["environment"]["REDIS_URL"] = "redis://redis:6379/0"
    with shop.watching() as seen:
        done = shop.run("-y")
    assert done.rc == 0, done.out
    assert seen.touched == set(), seen.events
    left = yaml.safe_load(host.read(OVERRIDE))["services"]
    assert set(left) == set(FAULTS) - {"loop"}
    assert "loop.REDIS_URL" not in shop.findings()
    assert shop.succeed(calls) == dict.fromkeys(calls, True)
    with shop.watching() as seen:
        again = shop.run("-y")
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
    assert seen.touched == set(), seen.events
    assert not shop.findings()
    assert shop.succeed(calls) == dict.fromkeys(calls, True)
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
            "apart and page have no network in common: apart is on back, page is on default",
        ),
    }
    for name, (body, _) in faults.items():
        shop.call(name, **body)
    # A name that resembles none and that nobody has: it is reported, and nothing is broken by it.
    shop.call("to_nobody", environment={"QUEUE": "redis://zzqq:6379"})
    faults["to_nobody"] = {}, "the name zzqq does not resolve in to_nobody; no service has it"
    calls = {
        "to_lonely": PING.format("lonely 6379"),
        "to_off": PAGE.format("off 80"),
        "to_host": PAGE.format("host.docker.internal 9300"),
        "to_barred": PAGE.format("host.docker.internal 9400"),
        "to_edge": PAGE.format("edge 9200"),
        "on_bridge": PING.format("redis 6379"),
        "apart": PAGE.format("page 80"),
        "to_nobody": PING.format("zzqq 6379"),
        # It has one address, of one of the two.
        "to_cache": '[ "$(nslookup cache | grep -c "^Address: ")" = 1 ]',
    }
    host.sh("iptables -I INPUT -p tcp --dport 9400 ! -i lo -j DROP")
    shop.deploy()
    assert shop.succeed(calls) == dict.fromkeys(calls, False)

    shop.settings["links"] = {}
    with shop.watching() as seen:
        done = shop.run("-y")
    assert done.rc == 1, done.out
    assert seen.quiet, seen.events
    assert not host.exists(OVERRIDE)
    found = shop.findings()
    for name, (_, cause) in faults.items():
        assert shop.explains(name, cause), (name, found)
    nobody = found["to_nobody.QUEUE"]["remedy"]
    assert nobody == "correct the name, or put what has it on a network of to_nobody"
    assert all(value["remedy"] for subject, value in found.items() if subject != "shop"), found
    broken = {subject.partition(".")[0] for subject, value in found.items() if value["blocks"]}
    # Of two that answer to one name either does: that is reported, and nothing is broken yet.
    assert broken == set(faults) - {"to_cache", "to_nobody"}, found

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
    # It is another project's after all.
    host.docker(
        *("run", "-d", "--network", "shop_default", "--network-alias", "zzqq", "--name", "queue"),
        "lab/redis:7",
    )
    calls["to_edge"] = PAGE.format("host.docker.internal 9200")
    with shop.watching() as seen:
        done = shop.run("-y")
    assert done.rc == 0, done.out
    assert not shop.findings(), shop.findings()
    changed = {"lonely", "off", "second", "on_bridge", "to_edge", "apart"}
    assert seen.recreated == seen.touched == changed, seen.events
    assert shop.succeed(calls) == dict.fromkeys(calls, True)
    shop.assert_converged()


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
    dry = shop.run("--dry", "-vvv")
    done = shop.run("-y", "-vvv")
    after = shop.run("-y")
    shown = dry.out + done.out + after.out + json.dumps(shop.report()) + json.dumps(shop.journal())
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
    # Where its own file has it a password may stand: nothing else holds it.
    found = shop.findings()
    for name, number, password in (("filed", 1, PASSWORD), ("written", 3, plain)):
        url = shop.env(name)["REDIS_URL"]
        assert url in (
            f"redis://:{password}@redis:6379/{number}",
            f"redis://:{password}@localhost:6379/{number}",
        )
        # What cannot be written without its password is reported, with what is to be done.
        if "localhost" in url:
            assert f"{name}.REDIS_URL" in found
    assert "filed.REDIS_URL" in found
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
    with shop.watching() as seen:
        done = shop.run("-y")
    assert done.rc == 1, done.out
    assert "wrong link: compose.yaml:" in done.out
    assert "right: redis" in done.out
    assert "no service is restarted for it: no restart corrects an address" in done.out
    assert "restart" not in seen.actions("api"), seen.events
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


def test_what_docker_itself_gives_containers_is_read_and_never_rewritten(
    lab: Lab, tmp_path: Path
) -> None:
    """Its client's configuration has a proxy: no file of the project says so."""
    host = lab.take(1)[0]
    proxies = {"default": {"httpProxy": "http://192.0.2.9:3128", "noProxy": "localhost"}}
    host.put("/root/.docker/config.json", json.dumps({"proxies": proxies}))
    shop = Links(tmp_path, host, links={"on_conflict": "override"})
    shop.call("app", environment={"UPSTREAM": "http://page:80"})
    done = shop.run("-y")
    assert done.rc == 0, done.out
    assert shop.env("app")["HTTP_PROXY"] == "http://192.0.2.9:3128"
    assert not shop.fetches("app", "http://page:80/")
    with shop.watching() as seen:
        again = shop.run("-y")
    assert again.rc == 0, again.out
    assert "No changes" in again.out, again.out
    assert seen.quiet, seen.events
    found = shop.findings()["app.UPSTREAM"]
    assert found["cause"] == "app sends what is for page to its proxy, which does not know the name"
    assert found["evidence"][0].startswith("running container shop-app-1: UPSTREAM is http://page")
    assert found["remedy"] == "add page to NO_PROXY and no_proxy of app"
    assert not found["blocks"]
    assert not host.exists(OVERRIDE)

    # What the finding says, done by hand.
    shop.services["app"]["environment"] |= {"NO_PROXY": "page", "no_proxy": "page"}
    done = shop.run("-y")
    assert done.rc == 0, done.out
    assert shop.fetches("app", "http://page:80/")
    assert not shop.findings()


def test_files_of_a_git_repository_and_mounted_ones(lab: Lab, tmp_path: Path) -> None:
    """The host fetches the files; what is corrected over them goes away with the patch in them."""
    host = lab.take(1)[0]
    shop = Links(tmp_path, host)
    loaded = "$(sed -n 's#.*redis://\\(.*\\):\\(.*\\)/.*#\\1 \\2#p' /etc/app.toml)"
    calls = {"loop": PING.format(OF_URL.format("REDIS_URL")), "mounted": PING.format(loaded)}
    shop.call("loop", environment={"REDIS_URL": "redis://localhost:6379/0"})
    shop.call("mounted", volumes=["./conf/app.toml:/etc/app.toml:ro"])
    toml = '[redis]\nurl = "redis://localhost:6379/1"  # the queue\n'
    tree = "/srv/git/tree/deploy"
    commit = "git add -A && git -c user.name=lab -c user.email=lab@example.com commit -qm lab"
    host.put(f"{tree}/compose.yaml", yaml.safe_dump(shop.compose, sort_keys=False))
    host.put(f"{tree}/conf/app.toml", toml)
    host.sh(
        f"cd {tree}/.. && git init -q -b main . && {commit} && "
        "git clone -q --bare . /srv/git/app.git && systemd-run -q --unit lab-links-git git daemon "
        "--base-path=/srv/git --export-all --listen=127.0.0.1 && timeout 20 sh -c "
        "'until git ls-remote -q git://127.0.0.1/app.git >/dev/null 2>&1; do sleep 0.1; done'"
    )
    shop.settings["source"] = {
        "git": "git://127.0.0.1/app.git", "ref": "main", "path": "deploy", "insecure": True,
    }  # fmt: skip
    shop.settings["links"] = {"on_conflict": "override", "files": True}

    # A mounted file is never rewritten: its fault stays, with its line.
    done = shop.run("-y")
    assert done.rc == 1, done.out
    assert host.read("/opt/shop/conf/app.toml").decode() == toml
    assert shop.env("loop")["REDIS_URL"] == "redis://redis:6379/0"
    assert host.exists(OVERRIDE)
    assert shop.succeed(calls) == {"loop": True, "mounted": False}
    assert "mounted.redis.url: localhost:6379 is mounted itself; redis has port 6379" in done.out
    found = shop.findings()["mounted.redis.url"]
    assert "conf/app.toml:2" in json.dumps(found), found
    assert "redis:6379" in json.dumps(found), found

    # The report's patch, in the repository.
    lines = shop.findings("patch")["shop"]["evidence"]
    assert {line for line in lines if line.startswith("+++")} == {
        "+++ b/compose.yaml",
        "+++ b/conf/app.toml",
    }
    host.put("/srv/git/links.patch", "".join(f"{line}\n" for line in lines))
    host.sh(
        f"cd {tree} && git apply /srv/git/links.patch && {commit} && "
        "git push -q /srv/git/app.git HEAD:main"
    )
    with shop.watching() as seen:
        done = shop.run("-y")
    assert done.rc == 0, done.out
    assert not host.exists(OVERRIDE), done.out
    assert seen.recreated <= {"mounted"}, seen.events
    assert seen.touched == {"mounted"}, seen.events
    assert "# the queue" in host.read("/opt/shop/conf/app.toml").decode()
    assert shop.succeed(calls) == {"loop": True, "mounted": True}
    assert not shop.findings()
    with shop.watching() as seen:
        again = shop.run("-y")
    assert again.rc == 0, again.out
    assert "No changes" in again.out, again.out
    assert seen.quiet, seen.events
