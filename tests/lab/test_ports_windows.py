"""WSL2 with Docker Desktop, end to end: the Windows side is read and freed through interop.

Windows itself is not here. A lab host calls itself a WSL2 machine, its engine calls itself Docker
Desktop (as the real one does, by its os-release), and programs of Windows' names answer in the form
of published recordings (``windows.sh``). Proven: what the probe asks and how, what is made of the
answers, what is ended and by which words. Not proven: that a Windows of today answers so.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from stackmend.ports import windows
from tests.lab.fixtures import Lab
from tests.lab.hosts import LabHost
from tests.lab.ports_runs import Runs

RECORDED = Path(__file__).parents[1] / "facts" / "ports_windows"
STUB = Path(__file__).with_name("windows.sh")
NAMES = ("netstat.exe", "tasklist.exe", "netsh.exe", "taskkill.exe")
ON_PATH, SYSTEM32 = "/usr/local/bin", "/mnt/c/Windows/System32"
HOME = "/srv/windows"

VERSION = (
    "Linux version 6.6.87.2-microsoft-standard-WSL2 (root@439a258ad544) (gcc (GCC) 11.2.0) "
    "#1 SMP PREEMPT_DYNAMIC Thu Jun  5 18:30:46 UTC 2025\n"
)
DESKTOP = 'PRETTY_NAME="Docker Desktop"\nNAME="Docker Desktop"\nID=docker-desktop\n'

#: What the recorded machine has: see tests/facts/ports_windows.
REDIS, REDIS_PID = 6379, 9120
SERVICE, SERVICE_PID = 6380, 9124
KERNEL, BACKEND, FORWARDED, RESERVED = 80, 8081, 8443, 7443


@dataclass
class Windows:
    """The Windows side of a host.

    + host: the lab host that is the distribution
    + where: the directory that its programs are in
    """

    host: LabHost
    where: str = ""
    files: dict[str, bytes] = field(default_factory=dict)

    def start(
        self, language: str, encoding: str, *, tasklist: str = "en", where: str = ON_PATH
    ) -> None:
        """Be the recorded machine anew, in this language and code page."""

        def recorded(name: str, language: str) -> bytes:
            text = (RECORDED / f"{name}_{language}.txt").read_text(encoding="utf-8")
            return text.replace("\n", "\r\n").encode(encoding)

        self.files = {
            "netstat": recorded("netstat", language),
            "tasklist": recorded("tasklist", tasklist),
            "excluded4tcp": recorded("excluded", language),
            # Without a range only the table's head and foot are printed.
            "excluded4udp": recorded("nothing_excluded", language),
            "refuses": b"0 1\n4 1\n",
            "respawns": b"",
            "follows": b"",
            "reused": b"",
            "log": b"",
            "version": VERSION.encode(),
            "os-release": DESKTOP.encode(),
        }
        self.where = where
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for path, content, mode in (
                *((f"{HOME}/{name}", content, 0o666) for name, content in self.files.items()),
                *((f"{where}/{name}", STUB.read_bytes(), 0o755) for name in NAMES),
            ):
                member = tarfile.TarInfo(path.lstrip("/"))
                member.size, member.mode = len(content), mode
                archive.addfile(member, io.BytesIO(content))
        done = self.host.run(
            f"umount /proc/version; rm -rf {HOME} {ON_PATH}/*.exe {SYSTEM32}; tar -C / -xf - && "
            f"chmod 0777 {HOME} && mount --bind {HOME}/version /proc/version && "
            f"rm -f /etc/os-release && cp {HOME}/os-release /etc/os-release",
            stdin=packed.getvalue(),
        )
        assert done.returncode == 0, done
        assert self.engine().startswith("Docker Desktop")

    def engine(self) -> str:
        """What the engine calls itself."""
        return self.host.docker("info", "--format", "{{.OperatingSystem}}")

    def leave_docker_desktop(self) -> None:
        """Let the engine be one that runs inside the distribution."""
        self.host.sh("cp /usr/lib/os-release /etc/os-release")
        assert not self.engine().startswith("Docker Desktop")

    def asked(self, program: str = "") -> list[str]:
        """What its programs were asked since the last call, in order."""
        lines = self.host.sh(f"cat {HOME}/log; : > {HOME}/log").splitlines()
        return [line for line in lines if line.startswith(program)]

    def unchanged(self) -> bool:
        """Whether every process and socket is as at the start."""
        return all(
            self.host.read(f"{HOME}/{name}") == self.files[name] for name in ("netstat", "tasklist")
        )

    def listens(self, pid: int) -> bool:
        """Whether a process of this number has a socket."""
        return self.host.run(f"grep -aq ' {pid}\r*$' {HOME}/netstat").returncode == 0

    def run(self, command: str) -> tuple[int, bytes, bytes]:
        """Run one of its programs from the distribution."""
        done = self.host.run(command)
        return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def machine(lab: Lab) -> Iterator[Windows]:
    """One host for all: each test starts Windows anew."""
    found = Windows(lab.take(1)[0])
    yield found
    found.host.sh("umount /proc/version", check=False)


@pytest.fixture
def side(machine: Windows) -> Windows:
    """A German Windows with Docker Desktop; its programs are on PATH."""
    machine.start("de", "cp850", tasklist="de")
    return machine


@pytest.fixture
def runs(tmp_path: Path, machine: Windows) -> Runs:
    return Runs(tmp_path, machine.host)


# The stubs are what was recorded.


def test_the_programs_answer_as_they_were_recorded(side: Windows) -> None:
    status, output, _ = side.run("netstat.exe -ano")
    assert status == 0
    english = (RECORDED / "netstat_en.txt").read_text(encoding="utf-8")
    assert windows.parse_sockets(output) == windows.parse_sockets(english)
    assert b"ABH\x99REN" in output  # code page 850
    _, output, _ = side.run("tasklist.exe /svc /fo csv /nh")
    english = (RECORDED / "tasklist_en.txt").read_text(encoding="utf-8")
    assert windows.parse_processes(output) == windows.parse_processes(english)
    _, output, _ = side.run("netsh.exe interface ipv4 show excludedportrange protocol=tcp")
    english = (RECORDED / "excluded_en.txt").read_text(encoding="utf-8")
    assert windows.parse_excluded(output) == windows.parse_excluded(english) != ()
    _, output, _ = side.run("netsh.exe interface ipv4 show excludedportrange protocol=udp")
    assert windows.parse_excluded(output) == ()
    assert output.strip()

    assert side.run("taskkill.exe /PID 4 /F")[0] == 1
    assert b"Access is denied" in side.run("taskkill.exe /PID 4 /F")[2]
    assert side.run("taskkill.exe /PID 77 /F")[0] == 128
    assert side.run("taskkill.exe /F /PID 9120")[0] == 1
    assert side.unchanged()
    assert side.run(f"taskkill.exe /PID {REDIS_PID} /F")[0] == 0
    assert not side.listens(REDIS_PID)
    assert side.run(f"taskkill.exe /PID {REDIS_PID} /F")[0] == 128
    assert side.listens(SERVICE_PID)


# What is told.


@pytest.mark.parametrize(("language", "encoding"), [("de", "cp850"), ("zh", "cp936")])
def test_the_holder_is_told_in_every_language(
    machine: Windows, runs: Runs, language: str, encoding: str
) -> None:
    side = machine
    side.start(language, encoding)
    found = runs.fact(f"{REDIS},{KERNEL},{FORWARDED},{RESERVED},9999,127.0.0.1:{SERVICE}")
    output = {
        key: [
            (
                one["kind"],
                (one.get("windows") or {}).get("pid"),
                (one.get("windows") or {}).get("image"),
            )
            for one in row.get("holders", ())
        ]
        for key, row in found["ports"].items()
    }
    assert found["system"] == "wsl"
    assert output == {
        f"{REDIS}/tcp": [("windows", REDIS_PID, "redis-server.exe")],
        f"{KERNEL}/tcp": [("windows", 4, "System")],
        f"{FORWARDED}/tcp": [("windows", 3600, "svchost.exe")],
        f"{RESERVED}/tcp": [("reserved", None, None)],
        f"{SERVICE}/tcp": [("windows", SERVICE_PID, "memurai.exe")],
        "9999/tcp": [],
    }
    assert {key: row["status"] for key, row in found["ports"].items()} == {
        **dict.fromkeys(output, "held"),
        "9999/tcp": "free",
    }
    assert side.unchanged()
    assert sorted(side.asked()) == [
        "netsh.exe interface ipv4 show excludedportrange protocol=tcp",
        "netsh.exe interface ipv4 show excludedportrange protocol=udp",
        "netstat.exe -ano",
        "tasklist.exe /svc /fo csv /nh",
    ]


def test_without_docker_desktop_the_windows_side_is_in_nobodys_way(
    side: Windows, runs: Runs
) -> None:
    # An engine inside the distribution binds there: WSL's NAT keeps the two apart.
    side.leave_docker_desktop()
    found = runs.fact(f"{REDIS},{RESERVED}")
    assert {row["status"] for row in found["ports"].values()} == {"free"}


def test_what_docker_desktop_holds_for_a_container_is_that_container(
    side: Windows, runs: Runs
) -> None:
    side.host.docker(
        "run", "-d", "--name", "elsewhere-web-1", "-p", f"{BACKEND}:80",
        "--label", "com.docker.compose.project=elsewhere",
        "--label", "com.docker.compose.service=web", "lab/box:1",
    )  # fmt: skip
    side.host.put(f"{HOME}/follows", "24180 elsewhere-web-1\n")
    row = runs.fact(str(BACKEND))["ports"][f"{BACKEND}/tcp"]
    assert row["status"] == "held"
    assert [one["kind"] for one in row["holders"]] == ["container"]
    result = runs.stop([BACKEND])
    assert result.run.rc == 0, result.run.out
    assert side.asked("taskkill.exe") == []
    assert side.host.inspect("elsewhere-web-1")["State"]["Running"] is False
    side.host.docker("rm", "elsewhere-web-1")


# What is done.


def test_without_consent_nothing_happens_and_the_rule_is_named(side: Windows, runs: Runs) -> None:
    result = runs.free([REDIS])
    assert result.run.rc != 0
    assert side.asked("taskkill.exe") == []
    assert side.unchanged()
    assert result.rules(REDIS) == ["exe:redis-server.exe"]
    result = runs.free([REDIS], on_conflict="stop", allow=["exe:other.exe", "user:*"])
    assert result.run.rc != 0
    assert side.asked("taskkill.exe") == []
    assert side.unchanged()


def test_with_the_consent_that_was_named_it_is_freed_and_stays_free(
    side: Windows, runs: Runs
) -> None:
    rules = ["exe:redis-server.exe"]
    dry = runs.free([REDIS], "--dry", on_conflict="stop", allow=rules)
    assert dry.run.rc == 0, dry.run.out
    assert "redis-server.exe" in str(dry.all("planned"))
    assert side.unchanged()
    assert side.asked("taskkill.exe") == []
    result = runs.free([REDIS], on_conflict="stop", allow=rules, settle=1)
    assert result.run.rc == 0, result.run.out
    assert side.asked("taskkill.exe") == [f"taskkill.exe /PID {REDIS_PID} /F"]
    assert not side.listens(REDIS_PID)
    assert side.listens(SERVICE_PID)
    assert "redis-server.exe" in str(result.all("done"))
    again = runs.free([REDIS], on_conflict="stop", allow=rules, settle=1)
    assert again.run.rc == 0, again.run.out
    assert again.all("done") == []
    assert side.asked("taskkill.exe") == []


def test_with_sudo_the_programs_are_found_where_windows_has_them(
    side: Windows, tmp_path: Path
) -> None:
    # sudo's PATH has no /mnt/c.
    side.start("es", "cp850", where=SYSTEM32)
    result = Runs(tmp_path, side.host, "operator").stop([REDIS])
    assert result.run.rc == 0, result.run.out
    assert side.asked("taskkill.exe") == [f"taskkill.exe /PID {REDIS_PID} /F"]
    assert not side.listens(REDIS_PID)


def test_what_windows_or_docker_desktop_hangs_on_is_never_ended(side: Windows, runs: Runs) -> None:
    words = {
        KERNEL: "http.sys",
        BACKEND: "restart Docker Desktop",
        FORWARDED: "netsh interface portproxy",
        RESERVED: "net stop winnat",
    }
    result = runs.stop(list(words))
    assert result.run.rc != 0
    assert side.asked("taskkill.exe") == []
    assert side.unchanged()
    output = {port: str(result.about("refusals", port)) for port in words}
    assert [port for port, word in words.items() if word not in output[port]] == []


@pytest.mark.parametrize("status", [1, 128])
def test_a_process_that_windows_will_not_end_fails_this_host(
    side: Windows, runs: Runs, status: int
) -> None:
    side.host.put(f"{HOME}/refuses", f"{REDIS_PID} {status}\n")
    result = runs.stop([REDIS])
    assert result.run.rc != 0
    assert side.asked("taskkill.exe") == [f"taskkill.exe /PID {REDIS_PID} /F"]
    assert side.unchanged()
    assert "Access is denied" in result.run.out
    assert "is gone" not in result.run.out


def test_a_number_that_another_program_has_by_now_is_not_ended(side: Windows, runs: Runs) -> None:
    side.host.put(f"{HOME}/reused", f"{REDIS_PID} winword.exe\n")
    result = runs.stop([REDIS])
    assert result.run.rc != 0
    assert b"winword.exe" in side.host.read(f"{HOME}/tasklist")
    assert side.asked("taskkill.exe") == []
    assert side.listens(REDIS_PID)


def test_a_service_that_comes_back_is_named_and_not_fought(side: Windows, runs: Runs) -> None:
    side.host.put(f"{HOME}/respawns", f"{SERVICE_PID} 9999\n")
    result = runs.stop([f"127.0.0.1:{SERVICE}"])
    assert result.run.rc != 0
    assert side.asked("taskkill.exe") == [f"taskkill.exe /PID {SERVICE_PID} /F"]
    assert side.listens(9999)
    assert "memurai.exe" in result.run.out


def test_a_windows_that_does_not_answer_is_never_taken_for_free(side: Windows, runs: Runs) -> None:
    # Interop is off: the programs are there and cannot be run.
    for name in NAMES:
        side.host.put(f"{ON_PATH}/{name}", b"MZ\x90\x00", "0755")
    row = runs.fact(str(REDIS))["ports"][f"{REDIS}/tcp"]
    assert row["status"] == "unknown", row
    result = runs.stop([REDIS])
    assert result.run.rc != 0
