"""How long it takes to read, find and classify the addresses of a large stack, and to correct them.

``python -m tests.benchmarks.links`` takes a stack of 50 services with 2,000 environment values, of
which one in twelve is an address, half of them in one env file, and prints the median of several
rounds, in seconds of this process's CPU, against what it may take: of each part once, and of a run,
which classifies the addresses once more by what asking for them found. It exits with 1 where either
is more. No host is needed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from itertools import pairwise
from typing import Any, NamedTuple

import yaml

from stackmend.addresses import Sources, classify, locate, make_override, make_patch, read
from stackmend.checks.state import CheckResult
from stackmend.compose.plan.link_checks import make_link_checks
from stackmend.compose.plan.link_correction import add_patch
from stackmend.compose.plan.links import add_results, classify_links, describe_others
from tests.unit.compose_world import Desired, World, compose, well

#: Seconds of the controller's CPU for what each run does once the files are parsed: all but making
#: the override.
TARGET = 0.2

_SERVERS = ("redis:7", "postgres:16", "ollama/ollama", "rabbitmq:4", "mongo:7")


class Measured(NamedTuple):
    """One round.

    :param parsing: seconds to parse the compose file, which happens once in a process.
    :param reading: seconds to read the addresses.
    :param locating: seconds to find their lines.
    :param classifying: seconds to classify them.
    :param patching: seconds to make the patch.
    :param correcting: seconds to make the override.
    :param found: addresses that are wrong.
    """

    parsing: float
    reading: float
    locating: float
    classifying: float
    patching: float
    correcting: float
    found: int

    @property
    def in_all(self) -> float:
        """Seconds of what each run does."""
        return self.reading + self.locating + self.classifying + self.patching


def make_large() -> dict[str, Any]:
    """A resolved project of 50 services with 40 values each and more."""
    services: dict[str, Any] = {}
    for number, image in enumerate(_SERVERS * 2):
        services[f"server-{number}"] = {"image": image, "networks": {"default": None}}
    for number in range(40):
        environment = {f"SETTING_{index}": f"value {index} of {number}" for index in range(26)}
        environment |= {f"FLAG_{index}": "true" for index in range(20)}
        environment |= {
            "REDIS_URL": "redis://:p%40ss@server-0:6379/0",
            "DATABASE_URL": "postgresql+asyncpg://app:s3cret@localhost:5432/app",
            "OLLAMA_BASE_URLS": "http://server-2:11434;http://server-7:11434",
            "AMQP_HOST": "server-3",
            "AMQP_PORT": "5672",
            "MONGO_URI": f"mongodb://server-{4 + 5 * (number % 2)}:27017/app",
            "PEER_URL": f"http://app-{(number + 1) % 40}:9999",
            "PUBLIC_URL": f"http://localhost:{20000 + number}",
            "TYPO_URL": "redis://serverr-0:6379",
            "LONG": "x" * 2000,
        }
        services[f"app-{number}"] = {
            "image": f"example/app-{number}:1",
            "environment": environment,
            "command": ["sh", "-c", f"exec app --port 9999 --peer http://app-{number}:9999"],
            "ports": [
                {"target": 9999, "published": str(20000 + number), "protocol": "tcp"},
            ],
            "networks": {"default": None},
            "depends_on": {"server-0": {"condition": "service_healthy"}},
        }
    # One database alone, so that an address of nobody can be meant for it.
    services["server-6"]["image"] = "example/other:1"
    return {"name": "large", "services": services, "networks": {"default": {}}}


def write_files(config: dict[str, Any]) -> dict[str, bytes]:
    """The files of the project: half of the services share an env file with all their values."""
    shared: dict[str, str] = {}
    bodies: dict[str, Any] = {}
    for number, (name, body) in enumerate(config["services"].items()):
        environment = body.get("environment") or {}
        bodies[name] = {**body, "environment": dict(environment)}
        if number % 2 and environment:
            shared |= environment
            bodies[name] = {**body, "environment": {}, "env_file": "shared.env"}
    lines = [f"FILLER_{number}=value" for number in range(2000)]
    lines += [f"{name}={value}" for name, value in shared.items()]
    return {
        "compose.yaml": yaml.safe_dump({"services": bodies}).encode(),
        "shared.env": "\n".join(lines).encode(),
    }


def measure(config: dict[str, Any], files: dict[str, bytes]) -> Measured:
    """Read, find, classify and correct once."""
    marks = [time.process_time()]
    sources = Sources(files)
    marks.append(time.process_time())
    addresses = read(config)
    marks.append(time.process_time())
    addresses = locate(addresses, sources)
    marks.append(time.process_time())
    judgements = classify(addresses, config)
    marks.append(time.process_time())
    make_patch(judgements, sources)
    marks.append(time.process_time())
    make_override(judgements, config, sources)
    marks.append(time.process_time())
    took = [after - before for before, after in pairwise(marks)]
    return Measured(*took, found=sum(one.status == "wrong" for one in judgements))


def measure_run(config: dict[str, Any], files: dict[str, bytes]) -> float:
    """Seconds of what a run does about links, where each that it asks for answers."""
    desired = Desired(compose(config["services"]), settings={"links": {}})
    images = {str(body.get("image")) for body in desired.services.values()}
    world = well(desired, World(images=images))
    declared, state, sources = world.declared(desired), world.state(), Sources(files)
    began = time.process_time()
    links = classify_links(desired.spec, sources, declared, describe_others(state))
    checks = make_link_checks(desired.spec, links.links, declared, state)
    asked = time.process_time()
    results = {
        check.name: CheckResult(name=check.name, outcome="passed", evidence="it answers")
        for check in checks
    }
    answered = time.process_time()
    links = add_results(desired.spec, sources, declared, links, state, results, {})
    add_patch(links, sources, None)
    return asked - began + time.process_time() - answered


def main() -> int:
    """Measure, print, and say whether it is within what it may take."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.links", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    chosen = parser.parse_args()
    config = make_large()
    values = sum(len(body.get("environment") or {}) for body in config["services"].values())
    files = write_files(config)
    rounds = [measure(config, files) for _ in range(chosen.rounds)]
    print(f"{len(config['services'])} services, {values} values, {rounds[0].found} wrong")
    print(f"{'first parse':12} {rounds[0].parsing * 1000:7.1f} ms")
    for name in ("reading", "locating", "classifying", "patching", "correcting"):
        print(f"{name:12} {statistics.median(getattr(one, name) for one in rounds) * 1000:7.1f} ms")
    in_all = statistics.median(one.in_all for one in rounds)
    run = statistics.median(measure_run(config, files) for _ in range(chosen.rounds))
    for name, median in (("in all", in_all), ("in a run", run)):
        status = "within" if median <= TARGET else "MISSED:"
        print(f"{name:12} {median * 1000:7.1f} ms, {status} {TARGET * 1000:.0f} ms")
    return 0 if max(in_all, run) <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
