"""The five incidents of the runbook, injected: ``python -m tests.lab.incidents --orders 10``.

In each order they are injected on one lab host one after the other and healed together, and before
that each alone: the doctor has to name them, ``stackmend site`` to heal them, and the run after it
to change nothing. Whether one is there, and healed, the host itself says, without stackmend. A line
is printed of each, and 1 is the exit status where one missed.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import secrets
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import yaml

from tests.lab import gpus
from tests.lab.ai import OBSERVED, Ai, describe_changes, list_found, standing
from tests.lab.names import DATA, FIRST, SECOND, serve, stop_serving
from tests.lab.observed import HostCommandError
from tests.lab.reference_stack import DIRECTORY, put_through

#: A name that only the host's DNS server knows.
OUTSIDE = "outside.lab.test"
OVERRIDE = "compose.override.yaml"


def take_accelerator(ai: Ai) -> None:
    """Somebody takes the reservation of the GPU out, and starts the model server again."""
    ai.host.sh(
        f"rm {DIRECTORY}/{OVERRIDE} && cd {DIRECTORY} && "
        "docker compose -p ai up -d --no-build --no-deps ollama 2>&1"
    )


def disconnect(ai: Ai) -> None:
    """The worker is taken off its network, and goes on running."""
    ai.host.docker("network", "disconnect", "ai_default", "ai-worker-1")


def take_port(ai: Ai) -> None:
    """Something else has the port of the api, which does not run."""
    ai.host.docker("stop", "-t", "1", "ai-api-1")
    ai.host.sh(
        "systemd-run -q --collect --unit=squatter python3 -m http.server --bind 127.0.0.1 8000"
    )
    ai.host.wait_for("ss -ltn | grep -q :8000")


def remove_model(ai: Ai) -> None:
    """Somebody removes the model that the worker asks for."""
    # A server that was just made anew may not answer yet.
    ai.host.wait_for(f"docker exec ai-ollama-1 ollama rm {ai.model}", 60)


def cut_off(ai: Ai) -> None:
    """The host asks a DNS server that does not answer."""
    ai.host.sh(f"echo 'nameserver {SECOND}' >/etc/resolv.conf")


def misaddress(ai: Ai) -> None:
    """The project's files send the worker to itself for redis, and it runs so.

    Its container is on the right network and cannot reach it all the same. The settings ask for
    the address to be corrected.
    """
    path = Path(ai.settings["source"]) / OVERRIDE
    layer = yaml.safe_load(path.read_text())
    worker = {"environment": {"REDIS_URL": "redis://localhost:6379/0"}}
    text = yaml.safe_dump({"services": {**layer["services"], "worker": worker}})
    path.write_text(text)
    ai.host.put(f"{DIRECTORY}/{OVERRIDE}", text)
    ai.host.sh(
        f"cd {DIRECTORY} && docker compose -p ai up -d --no-build --no-deps worker 2>&1", timeout=60
    )
    ai.settings["links"] = {"on_conflict": "override"}


INJECTIONS: dict[str, Callable[[Ai], None]] = {
    "worker-unaccelerated": take_accelerator,
    "service-unreachable": disconnect,
    "port-taken": take_port,
    "model-missing": remove_model,
    "network-outside": cut_off,
}


_REACH_REDIS = r"""
import os, socket, urllib.parse
at = urllib.parse.urlsplit(os.environ["REDIS_URL"])
with socket.create_connection((at.hostname, at.port), 5) as to:
    to.sendall(b"PING\r\n")
    assert to.recv(7) == b"+PONG\r\n"
"""

#: Incident → what a person would look at on the host: commands that fail while it is there, the
#: quickest first. ``$model`` is the model that the worker asks for.
PROOFS: Mapping[str, str] = {
    # The engine gave the server the GPU, and it can be opened in there.
    "worker-unaccelerated": (
        "[ \"$(docker inspect -f '{{.HostConfig.Runtime}}' ai-ollama-1)\" = nvidia ] && "
        "docker exec ai-ollama-1 nvidia-smi | grep '^GPU 0: '"
    ),
    # The worker is on the network, and redis answers it under the address that it has.
    "service-unreachable": (
        "docker inspect -f '{{json .NetworkSettings.Networks}}' ai-worker-1 | "
        "grep '\"ai_default\":' && "
        f"docker exec ai-worker-1 python3 -c {shlex.quote(_REACH_REDIS)}"
    ),
    # The port is the container's, nobody else has it, and the api answers on it.
    "port-taken": (
        "ss -Hltnp 'sport = :8000' | grep '\"docker-proxy\"' && "
        "! ss -Hltnp 'sport = :8000' | grep -v '\"docker-proxy\"' && "
        "docker port ai-api-1 8000/tcp | grep -x 127.0.0.1:8000 && "
        "curl -sS -m 10 -f http://127.0.0.1:8000/healthz"
    ),
    # The server lists the model, and says so over the network as well.
    "model-missing": (
        'docker exec ai-ollama-1 ollama list | grep -F "$model " && '
        "at=$(docker inspect -f '{{.NetworkSettings.Networks.ai_default.IPAddress}}' ai-ollama-1) "
        '&& curl -sS -m 10 -f "http://$at:11434/api/tags" | grep -F "\\"$model\\""'
    ),
    # The host asks the server that answers, and reaches what only that knows.
    "network-outside": (
        f"[ \"$(grep ^nameserver /etc/resolv.conf)\" = 'nameserver {FIRST}' ] && "
        f"getent ahostsv4 {OUTSIDE} && curl -sS -m 10 -f -o /dev/null http://{OUTSIDE}:9999/"
    ),
}


def find_traces(ai: Ai, name: str) -> str:
    """Look at the host for the traces of an incident; empty where there are none."""
    done = ai.host.run(f"exec 2>&1; model={shlex.quote(ai.model)}; set -x; {PROOFS[name]}")
    return "" if done.returncode == 0 else done.stdout.decode(errors="replace")[-2000:]


@contextlib.contextmanager
def runbook(ai: Ai) -> Iterator[Ai]:
    """The stack on a host with a GPU and a DNS server of its own, which all five can be done to."""
    with gpus.bus(ai.host) as bus:
        bus.nvidia()
        bus.toolkit()
        _serve_names(ai)
        ai.settings["source"] = str(_reserve_gpu(Path(ai.settings["source"]), ai.directory))
        ai.settings["resolver"] = {"servers": [FIRST], "check_names": [OUTSIDE]}
        ai.settings["connectivity"]["endpoints"] = [f"http://{OUTSIDE}:9999/"]
        ai.settings["allow"] = ["restart:resolver"]
        ai.deploy()
        try:
            yield ai
        finally:
            stop_serving(ai.host)


def _serve_names(ai: Ai) -> None:
    registry = ai.model.partition(":")[0]
    known = {OUTSIDE: "172.17.0.1"}
    for name in (registry, registry.replace("registry", "storage", 1)):
        known[name] = ai.host.sh(f"getent ahostsv4 {name}").split()[0]
    serve(ai.host, FIRST, SECOND, name=OUTSIDE, address=known[OUTSIDE])
    ai.host.put(f"{DATA}/{FIRST}", "".join(f"{name} {to}\n" for name, to in known.items()))
    ai.host.put(f"{DATA}/{SECOND}", "dead\n")


def _reserve_gpu(source: Path, directory: Path) -> Path:
    """A copy of the project's files in which the model server has the GPU."""
    copied = directory / "source"
    shutil.copytree(source, copied, ignore=shutil.ignore_patterns("__pycache__", ".env"))
    device = {"runtime": "nvidia", "environment": {"NVIDIA_VISIBLE_DEVICES": "all"}}
    (copied / OVERRIDE).write_text(yaml.safe_dump({"services": {"ollama": device}}))
    return copied


def heal(
    ai: Ai, names: Sequence[str], injections: Mapping[str, Callable[[Ai], None]] = INJECTIONS
) -> list[str]:
    """Inject incidents in this order, diagnose and heal them; what missed, a line for each."""
    begun = time.monotonic()
    for name in names:
        injections[name](ai)
    injected = time.monotonic()
    wrong = [f"not there once injected: {name}" for name in names if not find_traces(ai, name)]
    told = ai.run("doctor")
    diagnosis = ai.report()["diagnosis"]
    found = list_found(diagnosis)
    roots = [each["incident"] for each in diagnosis["findings"] if not each["explained_by"]]
    mended = ai.run("site")
    outcome = ai.report()["outcome"]
    wrong += [
        f"still there: {name}\n{traces}" for name in names if (traces := find_traces(ai, name))
    ]
    try:
        put_through(ai.host)
    except HostCommandError as error:
        wrong.append(f"no task goes through: {error}")
    moment, before = ai.host.now(), ai.host.identities()
    files = ai.host.snapshot_files(*OBSERVED)
    again = ai.run("site")
    wrong += [f"not diagnosed: {name}" for name in names if name not in found]
    if len(names) == 1 and names[0] not in roots:
        wrong.append(f"no root cause: {names[0]}; these are: {', '.join(roots)}")
    if told.rc != 1:
        wrong.append(f"the doctor exited with {told.rc}")
    if (mended.rc, outcome) != (0, "changed"):
        wrong.append(f"not healed: exit {mended.rc}, {outcome}\n{mended.out}")
    if (again.rc, ai.report()["outcome"]) != (0, "converged"):
        wrong.append(f"the second run: exit {again.rc}, {ai.report()['outcome']}\n{again.out}")
    events = ai.host.events_since(moment)
    if ai.host.identities() != before or events:
        wrong.append(f"the second run touched containers: {events}")
    if changed := describe_changes(files, ai.host.snapshot_files(*OBSERVED)):
        wrong.append(f"the second run wrote files: {', '.join(changed)}")
    seconds = f"injected in {injected - begun:.1f} s, doctor {told.seconds:.1f} s, "
    seconds += f"site {mended.seconds:.1f} s, again {again.seconds:.1f} s"
    print(f"    {', '.join(names)}\n      {seconds}\n      found: {', '.join(found)}", flush=True)
    for line in wrong:
        print(f"      MISS: {line}", flush=True)
    return wrong


def main(arguments: Sequence[str] | None = None) -> int:
    """Inject the five, alone and together, in random orders; return 1 where one missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.incidents", description=__doc__)
    parser.add_argument("--orders", type=int, default=10)
    parser.add_argument("--alone", type=int, help="orders with each alone too; by default all")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    chosen = parser.parse_args(arguments)
    print(f"seed {chosen.seed}", flush=True)
    order = random.Random(chosen.seed)
    alone = chosen.orders if chosen.alone is None else chosen.alone
    missed: list[int] = []
    with tempfile.TemporaryDirectory() as directory, standing(Path(directory)) as ai, runbook(ai):
        for number in range(1, chosen.orders + 1):
            names = list(INJECTIONS)
            order.shuffle(names)
            print(f"order {number}", flush=True)
            wrong = [line for name in names if number <= alone for line in heal(ai, [name])]
            wrong += heal(ai, names)
            if wrong:
                missed.append(number)
    print(
        f"{chosen.orders - len(missed)} of {chosen.orders} orders: all five diagnosed by name, "
        f"healed and proven, and no change in the run after; missed: {missed or 'none'}"
    )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
