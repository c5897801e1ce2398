"""How long a run takes that finds nothing to do, against Ansible, stock pyinfra and the floor.

``python -m tests.benchmarks.noop`` measures on 4 lab hosts that carry the same healthy stack, in
interleaved rounds; ``--scale`` measures 1, 4, 8 and 16 hosts, ``--crowded`` a host with 200
containers and 5,000 sockets. Nothing is asserted but that every contender truly found nothing to
do: a time of anything else would say nothing. Numbers are also written as JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.lab.engine import outer
from tests.lab.hosts import LabHost, lease, prepare
from tests.lab.images import reference
from tests.lab.names import serve, stop_serving
from tests.lab.paths import KEY, KNOWN_HOSTS, PROJECT, VAR

HERE = Path(__file__).parent
WORK = VAR.parent / "bench"
STACK: dict[str, Any] = {
    "project": "ai",
    "source": str(HERE / "stack"),
    "directory": "/opt/ai",
    "env": {"BOX_IMAGE": "lab/box:1", "REDIS_IMAGE": "lab/redis:7"},
    "checks": [
        {"kind": "http", "url": "http://127.0.0.1:8000/"},
        {"kind": "exec", "service": "redis", "command": ["redis-cli", "ping"], "contains": "PONG"},
    ],
}
URL = "http://127.0.0.1:8000/"
# Settings of a developer's shell or of CI would slow some contenders more than others.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
#: What the lab's hosts have: a section that finds its servers set.
RESOLVER = {"servers": ["192.0.2.53"], "check_names": ["registry.lab.test"]}
#: The section that proves each address of a service, and would correct wrong ones.
LINKS = {"on_conflict": "override"}
CONTENDERS = ("floor", "stackmend", "resolver", "links", "stock", "ansible")
TARGETS = (
    ("times faster than ansible", "ansible", "stackmend", 10.0, True),
    ("times the stock operations", "stackmend", "stock", 1.0, False),
    ("times the floor", "stackmend", "floor", 1.8, False),
    ("times a run without the section resolver", "resolver", "stackmend", 1.15, False),
    ("times a run without the section links", "links", "stackmend", 1.15, False),
)


@dataclass(frozen=True)
class Sample:
    """One run: how long it took, the most memory the controller held, and its processor time."""

    seconds: float
    peak_mib: float
    output: str
    cpu: float = 0.0


class NotANoop(Exception):
    """A contender failed or changed something, so its time says nothing."""


def timed(argv: Sequence[str], *, env: dict[str, str] | None = None) -> Sample:
    """Run a controller and measure it; raises `NotANoop` if it fails."""
    with tempfile.TemporaryFile() as out:
        began = time.perf_counter()
        process = subprocess.Popen(
            argv,
            cwd=PROJECT,
            env={**ENVIRONMENT, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        output = out.read().decode(errors="replace")
    if process.returncode != 0:
        raise NotANoop(f"{shlex.join(argv)}: exit {process.returncode}\n{output[-4000:]}")
    return Sample(seconds, usage.ru_maxrss / 1024, output, usage.ru_utime + usage.ru_stime)


def write_inventory(
    path: Path,
    hosts: Sequence[LabHost],
    names: int | None = None,
    stack: Mapping[str, Any] = STACK,
) -> Path:
    """An inventory of `names` names, which share the hosts where there are more of them."""
    entries = [
        (
            f"h{number}-{hosts[number % len(hosts)].name}",
            {
                **hosts[number % len(hosts)].ssh_data(),
                "stack": dict(stack),
                "env_file": str(WORK / "env"),
                "directory_mode": (WORK / "mode").read_text(),
            },
        )
        for number in range(names or len(hosts))
    ]
    path.write_text(f"bench = {entries!r}\n")
    return path


def pyinfra(inventory: Path, deploy: str, *options: str) -> Sample:
    """Run a deploy as a user would."""
    return timed(
        [sys.executable, "-m", "pyinfra", str(inventory), deploy, "-y", *options],
        env={"STACKMEND_REPORTS": str(WORK / "reports")},
    )


def stackmend(inventory: Path) -> Sample:
    """One run of ours that must prove every host converged and change nothing."""
    sample = pyinfra(inventory, "deploy/site.py")
    record = json.loads((WORK / "reports/latest.json").read_bytes())
    outcomes = {host["outcome"] for host in record["hosts"].values()}
    if outcomes != {"converged"}:
        raise NotANoop(f"stackmend: {outcomes}\n{sample.output[-4000:]}")
    return sample


def stock(inventory: Path) -> Sample:
    """One run of pyinfra's own operations. compose always counts as a change to pyinfra."""
    # Our config.py is not its burden.
    return pyinfra(inventory, str(HERE / "stock.py"), "--config", "none")


def ansible(hosts: Sequence[LabHost]) -> Sample:
    """One playbook run that must find nothing to do."""
    sample = ansible_playbook(
        hosts,
        HERE / "ansible/site.yml",
        project=STACK["project"],
        source=STACK["source"],
        directory=STACK["directory"],
        env_file=str(WORK / "env"),
        directory_mode=f"0{(WORK / 'mode').read_text()}",
        url=URL,
    )
    recap = [line for line in sample.output.splitlines() if "changed=" in line]
    if len(recap) != len(hosts) or any("changed=0" not in line for line in recap):
        raise NotANoop(f"ansible changed something:\n{sample.output[-4000:]}")
    return sample


def ansible_playbook(hosts: Sequence[LabHost], playbook: Path, **variables: str) -> Sample:
    """One playbook run, pipelining on, 8 forks, from a cold connection as the others."""
    inventory = WORK / "hosts.json"
    common = {
        "ansible_user": "root",
        "ansible_ssh_private_key_file": str(KEY),
        "ansible_ssh_common_args": f"-o UserKnownHostsFile={KNOWN_HOSTS} -o IdentitiesOnly=yes",
        "ansible_python_interpreter": "/usr/bin/python3",
        **variables,
    }
    names = {h.name: {"ansible_host": "127.0.0.1", "ansible_port": h.port} for h in hosts}
    inventory.write_text(json.dumps({"all": {"hosts": names, "vars": common}}))
    with tempfile.TemporaryDirectory(prefix="cp-", dir="/tmp") as sockets:
        sample = timed(
            [
                str(WORK / "ansible/bin/ansible-playbook"),
                "-i",
                str(inventory),
                str(playbook),
            ],
            env={
                "ANSIBLE_PIPELINING": "true",
                "ANSIBLE_FORKS": "8",
                "ANSIBLE_SSH_CONTROL_PATH_DIR": sockets,
                "ANSIBLE_HOME": str(WORK / "ansible-home"),
                "ANSIBLE_NOCOLOR": "1",
                "LC_ALL": "C.UTF-8",
            },
        )
        # ssh leaves its masters behind for a minute: the next run would not be cold.
        for socket in Path(sockets).iterdir():
            subprocess.run(
                ["ssh", "-o", f"ControlPath={socket}", "-O", "exit", "x"], capture_output=True
            )
    return sample


def floor(hosts: Sequence[LabHost]) -> Sample:
    """One ssh per host, all at once, each asking the least there is to ask."""
    script = (HERE / "floor.sh").read_bytes()
    command = f"sh -s {STACK['directory']} {STACK['project']} {URL}"
    logins = [host.ssh_argv() for host in hosts]
    began = time.perf_counter()
    running = []
    for login in logins:
        process = subprocess.Popen(
            [*login, command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert process.stdin is not None
        process.stdin.write(script)
        process.stdin.close()
        running.append(process)
    for process in running:
        assert process.stdout is not None
        output = process.stdout.read().decode(errors="replace")
        if process.wait() != 0 or "PONG" not in output:
            raise NotANoop(f"floor: exit {process.returncode}\n{output[-2000:]}")
    return Sample(time.perf_counter() - began, 0.0, "")


def prepare_ansible(hosts: Sequence[LabHost]) -> None:
    """Ansible in an environment of its own here, and the python3 it needs there."""
    if not (WORK / "ansible/bin/ansible-playbook").exists():
        print("installing ansible …", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(WORK / "ansible")], check=True)
        pip = str(WORK / "ansible/bin/pip")
        subprocess.run([pip, "install", "--quiet", "ansible"], check=True)
    without = [host for host in hosts if host.run("command -v python3").returncode != 0]
    if not without:
        return
    print(f"installing python3 on {', '.join(host.name for host in without)} …", flush=True)
    # A host may have no way out: the packages are fetched where images are built.
    fetch = (
        "apt-get clean && apt-get update -qq && "
        "apt-get install -y -qq --no-install-recommends --download-only python3 >&2 "
        "&& cd /var/cache/apt/archives && tar -c ./*.deb"
    )
    debs = outer(
        "docker",
        "run",
        "--rm",
        "--network",
        "host",
        "--entrypoint",
        "sh",
        reference("bare"),
        "-c",
        fetch,
        timeout=300,
    ).stdout
    for host in without:
        done = host.run(
            "cd $(mktemp -d) && tar -x && apt-get install -y ./*.deb", stdin=debs, timeout=300
        )
        if done.returncode != 0:
            raise NotANoop(f"{host.name}: no python3: {done.stderr.decode(errors='replace')}")


@contextlib.contextmanager
def healthy_hosts(number: int) -> Iterator[list[LabHost]]:
    """So many hosts, each carrying the same healthy stack, brought up with nothing but Compose."""
    WORK.mkdir(parents=True, exist_ok=True)
    (WORK / "env").write_text("".join(f"{k}={v}\n" for k, v in STACK["env"].items()))
    (WORK / "mode").write_text("755")
    source = Path(STACK["source"])
    directory = STACK["directory"]
    with contextlib.ExitStack() as held:
        hosts = [held.enter_context(lease("managed")) for _ in range(number)]
        print(f"bringing the stack up on {', '.join(h.name for h in hosts)} …", flush=True)
        for host in hosts:
            host.reset()
            serve(host, *RESOLVER["servers"], name=RESOLVER["check_names"][0], address="192.0.2.10")
            for path in sorted(source.rglob("*")):
                if path.is_file():
                    host.put(f"{directory}/{path.relative_to(source)}", path.read_bytes())
            host.put(f"{directory}/.env", (WORK / "env").read_bytes(), "0600")
            host.sh(
                f"cd {directory} && docker compose -p {STACK['project']} up -d --wait", timeout=120
            )
        try:
            yield hosts
        finally:
            for host in hosts:
                stop_serving(host)


def adopt(hosts: Sequence[LabHost]) -> None:
    """Let stackmend take the stack over, and give the others the files that it leaves.

    Two contenders with different notions of a file's mode would undo each other's work for ever.
    """
    inventory = write_inventory(WORK / "inventory.py", hosts)
    pyinfra(inventory, "deploy/site.py")
    (WORK / "env").write_bytes(hosts[0].read(f"{STACK['directory']}/.env"))
    (WORK / "mode").write_text(hosts[0].sh(f"stat -c %a {STACK['directory']}"))
    write_inventory(inventory, hosts)


def compare(rounds: int, only: frozenset[str], number_of_hosts: int) -> dict[str, Any]:
    """Ansible, stock pyinfra, stackmend and the floor, in interleaved rounds on the same hosts."""
    with healthy_hosts(number_of_hosts) as hosts:
        inventory = write_inventory(WORK / "inventory.py", hosts)
        sections = write_inventory(
            WORK / "sections.py", hosts, stack={**STACK, "resolver": RESOLVER}
        )
        linked = write_inventory(WORK / "linked.py", hosts, stack={**STACK, "links": LINKS})
        if "resolver" in only:
            pyinfra(sections, "deploy/site.py")
        if "ansible" in only:
            prepare_ansible(hosts)
        if "stackmend" in only:
            adopt(hosts)
        everyone: dict[str, Callable[[], Sample]] = {
            "floor": lambda: floor(hosts),
            "stackmend": lambda: stackmend(inventory),
            "resolver": lambda: stackmend(sections),
            "links": lambda: stackmend(linked),
            "stock": lambda: stock(inventory),
            "ansible": lambda: ansible(hosts),
        }
        contenders = {name: run for name, run in everyone.items() if name in only}
        for name, contender in contenders.items():
            # Once unmeasured: files that only another contender's notion of them would change.
            with contextlib.suppress(NotANoop):
                contender()
            contender()
            print(f"{name} finds nothing to do", flush=True)
        before = [host.identities() for host in hosts]
        times: dict[str, list[float]] = {name: [] for name in contenders}
        peaks: dict[str, float] = dict.fromkeys(contenders, 0.0)
        for number in range(rounds):
            for name, contender in contenders.items():
                sample = contender()
                times[name].append(sample.seconds)
                peaks[name] = max(peaks[name], sample.peak_mib)
            shown = ", ".join(f"{name} {values[-1]:.2f} s" for name, values in times.items())
            print(f"round {number + 1}: {shown}", flush=True)
        if [host.identities() for host in hosts] != before:
            raise NotANoop("a container was touched")
    medians = {name: statistics.median(values) for name, values in times.items()}
    targets = []
    for words, above, below, limit, at_least in TARGETS:
        if not {above, below} <= medians.keys():
            continue
        ratio = medians[above] / medians[below]
        met = ratio >= limit if at_least else ratio <= limit
        targets.append({"what": words, "ratio": round(ratio, 2), "target": limit, "met": met})
    return {
        "hosts": number_of_hosts,
        "rounds": rounds,
        "versions": versions(),
        "seconds": {name: [round(value, 3) for value in values] for name, values in times.items()},
        "median": {name: round(value, 3) for name, value in medians.items()},
        "peak_mib": {name: round(value, 1) for name, value in peaks.items() if value},
        "targets": targets,
    }


def versions() -> dict[str, str]:
    """What was compared, as far as it is installed here."""
    found = {"pyinfra": version("pyinfra"), "paramiko": version("paramiko")}
    command = WORK / "ansible/bin/ansible-galaxy"
    if command.exists():
        output = timed([str(command), "collection", "list", "--format", "json"]).output
        collections = json.loads(output[output.index("{") :])
        found["ansible"] = timed([str(command), "--version"]).output.split("]")[0].split()[-1]
        found["community.docker"] = next(
            listed["community.docker"]["version"]
            for listed in collections.values()
            if "community.docker" in listed
        )
    return found


def scale(rounds: int) -> dict[str, Any]:
    """Time and controller memory of a run over 1, 4, 8 and 16 names on 4 hosts."""
    rows = []
    with healthy_hosts(4) as hosts:
        adopt(hosts)
        for names in (1, 4, 8, 16):
            inventory = write_inventory(WORK / "scale.py", hosts, names)
            stackmend(inventory)
            samples = [stackmend(inventory) for _ in range(rounds)]
            rows.append(
                {
                    "names": names,
                    "seconds": round(statistics.median(s.seconds for s in samples), 3),
                    "peak_mib": round(max(s.peak_mib for s in samples), 1),
                }
            )
            print(rows[-1], flush=True)
    first, last = rows[0], rows[-1]
    more = last["names"] - first["names"]
    return {
        "rows": rows,
        "seconds_per_further_host": round((last["seconds"] - first["seconds"]) / more, 3),
        "mib_per_further_host": round((last["peak_mib"] - first["peak_mib"]) / more, 2),
    }


CROWD = 200

# perl is on every Debian; both ends of each connection are sockets of this host.
_SOCKETS = r"""ulimit -n 20000; exec perl -MSocket -e '
  socket(my $l, PF_INET, SOCK_STREAM, 0) or die $!; setsockopt($l, SOL_SOCKET, SO_REUSEADDR, 1);
  bind($l, sockaddr_in(7999, INADDR_LOOPBACK)) or die $!; listen($l, 128) or die $!;
  my @held; for (1..2500) {
    socket(my $c, PF_INET, SOCK_STREAM, 0) or die $!;
    connect($c, sockaddr_in(7999, INADDR_LOOPBACK)) or die $!; accept(my $s, $l) or die $!;
    push @held, $c, $s;
  } sleep 100000'"""


def crowded(rounds: int) -> dict[str, Any]:
    """The same host with nothing but the stack, and then with 200 containers and 5,000 sockets."""
    with healthy_hosts(1) as hosts:
        (host,) = hosts
        adopt(hosts)
        inventory = WORK / "inventory.py"
        alone = statistics.median(stackmend(inventory).seconds for _ in range(rounds))
        alone_floor = statistics.median(floor(hosts).seconds for _ in range(rounds))
        print(f"starting {CROWD} containers and 2,500 connections …", flush=True)
        host.sh(
            f"seq {CROWD} | xargs -P 2 -I@ docker run -d --name crowd-@ --network none "
            "--entrypoint sleep lab/box:1 infinity > /dev/null",
            check=False,
            timeout=900,
        )
        # On a machine this busy runc fails now and then.
        host.sh("docker ps -aq --filter status=created | xargs -r docker start", timeout=300)
        host.sh(
            f"systemd-run --quiet --unit=crowd -p LimitNOFILE=20000 sh -c {shlex.quote(_SOCKETS)}"
        )
        host.wait_for("[ $(ss -Htan state established '( sport = :7999 )' | wc -l) -ge 2500 ]", 60)
        seen = {
            "containers": int(host.sh("docker ps -q | wc -l")),
            "sockets": int(host.sh("ss -Htan | wc -l")),
        }
        samples = [stackmend(inventory) for _ in range(rounds)]
        among_floor = statistics.median(floor(hosts).seconds for _ in range(rounds))
        host.sh(
            "systemctl stop crowd; docker ps -aq --filter name=crowd- | xargs docker rm -f",
            timeout=300,
        )
    return {
        **seen,
        "seconds_alone": round(alone, 3),
        "seconds": round(statistics.median(s.seconds for s in samples), 3),
        "floor_alone": round(alone_floor, 3),
        "floor": round(among_floor, 3),
        "peak_mib": round(max(s.peak_mib for s in samples), 1),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write the numbers as JSON. Returns 1 for a miss, or without a result."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.noop", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--hosts", type=int, default=4)
    parser.add_argument("--scale", action="store_true", help="measure 1, 4, 8 and 16 hosts")
    parser.add_argument("--crowded", action="store_true", help="200 containers, 5,000 sockets")
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=CONTENDERS)
    parser.add_argument("--json", type=Path, default=WORK / "noop.json")
    chosen = parser.parse_args(arguments)
    prepare()
    result: dict[str, Any] = {}
    try:
        if chosen.scale:
            result["scale"] = scale(chosen.rounds)
        if chosen.crowded:
            result["crowded"] = crowded(chosen.rounds)
        if not (chosen.scale or chosen.crowded):
            result["noop"] = compare(chosen.rounds, frozenset(chosen.only), chosen.hosts)
    except NotANoop as error:
        print(f"not measured: {error}", file=sys.stderr)
        return 1
    before = json.loads(chosen.json.read_text()) if chosen.json.exists() else {}
    chosen.json.write_text(json.dumps(before | result, indent=1) + "\n")
    for row in result.get("noop", {}).get("targets", []):
        bound = "at least" if row["what"].endswith("ansible") else "at most"
        verdict = "PASS" if row["met"] else "MISS"
        print(f"{verdict}: {row['ratio']} {row['what']} (to reach: {bound} {row['target']})")
    print(json.dumps(result, indent=1))
    print(f"written to {chosen.json}")
    return int(not all(row["met"] for row in result.get("noop", {}).get("targets", [])))


if __name__ == "__main__":
    sys.exit(main())
