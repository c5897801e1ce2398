"""The Windows side is read by its shape, in any language and code page, and told honestly.

Proven here: that texts in the form of published recordings (tests/facts/ports_windows, see its
README) are read and attributed as they should be. No Windows machine was asked.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackmend.ports import windows
from stackmend.ports.attribution import Tables
from stackmend.ports.classification import Evidence, classify
from stackmend.ports.spec import PortSpec
from stackmend.ports.state import Container, Holder, PortState, Socket, WindowsProcess
from stackmend.ports.windows import WindowsSide

RECORDED = Path(__file__).parents[1] / "facts" / "ports_windows"

CODE_PAGES = {
    "en": "cp437",
    "de": "cp850",
    "es": "cp850",
    "fr": "cp850",
    "ja": "cp932",
    "zh": "cp936",
}
EVERY = [
    pytest.param(language, encoding, id=f"{language}-{encoding}")
    for language, code_page in CODE_PAGES.items()
    for encoding in (code_page, "utf-8", "utf-8-sig", "utf-16", "utf-16-le")
]


def recorded(name: str) -> str:
    return (RECORDED / f"{name}.txt").read_text(encoding="utf-8")


def written(name: str, encoding: str) -> bytes:
    """As Windows writes it."""
    return recorded(name).replace("\n", "\r\n").encode(encoding)


NETSTAT = windows.parse_sockets(recorded("netstat_en"))
TASKLIST = windows.parse_processes(recorded("tasklist_en"))
EXCLUDED = windows.parse_excluded(recorded("excluded_en"))
SIDE = WindowsSide(NETSTAT, TASKLIST, EXCLUDED)


def holders(
    port: int, address: str = "0.0.0.0", protocol: str = "tcp", refused: bool = False
) -> tuple[Holder, ...]:
    desired = PortSpec.model_validate({"address": address, "port": port, "protocol": protocol})
    return windows.find_holders(desired, SIDE, refused=refused)


def images(*found: Holder) -> list[str]:
    return [one.windows.image for one in found if one.windows]


# Reading


@pytest.mark.parametrize(("language", "encoding"), EVERY)
def test_netstat_says_the_same_in_every_language_and_code_page(
    language: str, encoding: str
) -> None:
    assert windows.parse_sockets(written(f"netstat_{language}", encoding)) == {
        ("tcp", 80): (listener("0.0.0.0", 80, 4), listener("::", 80, 4)),
        ("tcp", 135): (listener("0.0.0.0", 135, 1052), listener("::", 135, 1052)),
        ("tcp", 6379): (listener("0.0.0.0", 6379, 9120),),
        ("tcp", 6380): (listener("127.0.0.1", 6380, 9124),),
        ("tcp", 8081): (
            listener("0.0.0.0", 8081, 24180),
            listener("::", 8081, 24180),
            listener("::1", 8081, 29716),
        ),
        ("tcp", 8443): (listener("0.0.0.0", 8443, 3600),),
        ("udp", 53): (bound("0.0.0.0", 53, 5388),),
        ("udp", 1900): (bound("fe80::1", 1900, 4012),),
        ("udp", 5353): (bound("0.0.0.0", 5353, 2448), bound("::", 5353, 2448)),
        ("udp", 54794): (bound("127.0.0.1", 54794, 3600),),
    }


def listener(address: str, port: int, pid: int) -> Socket:
    return Socket(protocol="tcp", address=address, port=port, state="LISTEN", pids=(pid,))


def bound(address: str, port: int, pid: int) -> Socket:
    return Socket(protocol="udp", address=address, port=port, state="UNCONN", pids=(pid,))


@pytest.mark.parametrize("language", ["en", "de", "zh"])
@pytest.mark.parametrize("encoding", ["own", "utf-8", "utf-16"])
def test_tasklist_says_the_same_in_every_language(language: str, encoding: str) -> None:
    encoding = CODE_PAGES[language] if encoding == "own" else encoding
    found = windows.parse_processes(written(f"tasklist_{language}", encoding))
    assert found == TASKLIST
    assert found[1052] == WindowsProcess(
        pid=1052, image="svchost.exe", services=("RpcEptMapper", "RpcSs")
    )
    assert found[9120] == WindowsProcess(pid=9120, image="redis-server.exe")
    assert found[7300].image == 'My "odd", app.exe'


def test_the_word_for_no_services_is_learnt_from_the_row_of_pid_0() -> None:
    text = '"System Idle Process","0","ei saatavilla"\r\n"node.exe","12","ei saatavilla"\r\n'
    assert windows.parse_processes(text)[12].services == ()


@pytest.mark.parametrize(("language", "encoding"), EVERY)
def test_netsh_says_the_same_in_every_language_and_code_page(language: str, encoding: str) -> None:
    assert windows.parse_excluded(written(f"excluded_{language}", encoding)) == (
        windows.Excluded(first=5357, last=5357),
        windows.Excluded(first=7400, last=7499),
        windows.Excluded(first=50000, last=50059, administered=True),
    )


@pytest.mark.parametrize("language", CODE_PAGES)
@pytest.mark.parametrize("what", ["netstat", "excluded"])
@pytest.mark.parametrize("encoding", ["own", "utf-16", "utf-16-le"])
def test_what_is_written_is_read_letter_by_letter(language: str, what: str, encoding: str) -> None:
    encoding = CODE_PAGES[language] if encoding == "own" else encoding
    name = f"{what}_{language}"
    assert windows.decode(written(name, encoding)).replace("\r\n", "\n") == recorded(name)


def test_a_line_without_end_is_passed_over() -> None:
    text = '"' + "x" * 200_000 + '","5"\r\n"node.exe","12","N/A"\r\n'
    assert list(windows.parse_processes(text)) == [12]


def test_what_the_probe_packed_is_unpacked() -> None:
    raw = written("netstat_de", "cp850")
    lines = [raw.hex()[at : at + 1000] for at in range(0, len(raw.hex()), 1000)]
    assert windows.unpack(lines) == raw
    assert windows.unpack([raw.hex()[:7]]) == raw[:3]
    assert windows.unpack([]) == windows.unpack(["", "\n"]) == b""


def test_a_refusal_of_a_program_is_no_socket() -> None:
    for text in (
        "Zugriff verweigert\r\n",
        "The requested operation requires elevation.\r\n",
        "/mnt/c/Windows/System32/netstat.exe: Exec format error\n",
    ):
        assert windows.parse_sockets(text) == {}
        assert windows.parse_processes(text) == {}
        assert windows.parse_excluded(text) == ()


@given(st.one_of(st.binary(max_size=400), st.text(max_size=400)))
@settings(max_examples=300, deadline=None)
def test_nothing_that_a_program_writes_can_break_it(raw: bytes | str) -> None:
    windows.decode(raw)
    table, images = windows.parse_sockets(raw), windows.parse_processes(raw)
    windows.find_holders(PortSpec(port=80), WindowsSide(table, images, windows.parse_excluded(raw)))


@given(st.sampled_from(sorted(CODE_PAGES)), st.integers(min_value=0, max_value=1700))
@settings(max_examples=200, deadline=None)
def test_a_text_that_was_cut_off_names_nobody_else(language: str, at: int) -> None:
    raw = written(f"netstat_{language}", CODE_PAGES[language])[:at]
    lines = windows.decode(raw).splitlines()
    # The last line may have lost digits of its pid: all before it are whole.
    whole = windows.parse_sockets("\n".join(lines[:-1]))
    for key, rows in whole.items():
        assert set(rows) <= set(NETSTAT[key])


# Who is in the way


def test_a_windows_process_holds_a_port() -> None:
    (found,) = holders(6379, "0.0.0.0")
    assert found.kind == "windows"
    assert found.windows == WindowsProcess(pid=9120, image="redis-server.exe")
    assert [socket.address for socket in found.sockets] == ["0.0.0.0"]
    assert found.evidence == ("netstat.exe", "tasklist.exe")
    assert not windows.is_protected(found)
    assert windows.explain(found) == ""


def test_a_free_port_has_no_holder() -> None:
    assert holders(9999) == ()
    assert holders(6379, protocol="udp") == ()


@pytest.mark.parametrize(
    ("port", "address", "refused", "expected"),
    [
        # Docker Desktop binds without options: only the very same address refuses for certain.
        (6380, "127.0.0.1", False, ["memurai.exe"]),
        (6380, "0.0.0.0", False, []),
        (6380, "192.0.2.10", False, []),
        (8443, "0.0.0.0", False, ["svchost.exe"]),
        (8443, "127.0.0.1", False, []),
        (8081, "0.0.0.0", False, ["com.docker.backend.exe"]),
        (8081, "::", False, ["com.docker.backend.exe"]),
        (8081, "::1", False, ["wslrelay.exe"]),
        # Where a bind was refused already, what overlaps is named as well.
        (6380, "0.0.0.0", True, ["memurai.exe"]),
        (6380, "192.0.2.10", True, []),
        (8443, "127.0.0.1", True, ["svchost.exe"]),
        (8443, "::", True, ["svchost.exe"]),
        (8443, "::1", True, []),
        (8081, "::1", True, ["com.docker.backend.exe", "wslrelay.exe"]),
        (8081, "127.0.0.1", True, ["com.docker.backend.exe"]),
    ],
)
def test_which_sockets_stand_in_the_way(
    port: int, address: str, refused: bool, expected: list[str]
) -> None:
    assert images(*holders(port, address, refused=refused)) == expected


def test_two_processes_on_one_port_are_both_named_and_each_once() -> None:
    table = windows.parse_sockets(
        "  TCP    0.0.0.0:80    0.0.0.0:0    LISTENING    4332\r\n"
        "  TCP    0.0.0.0:80    0.0.0.0:0    LISTENING    9676\r\n"
        "  TCP    0.0.0.0:80    0.0.0.0:0    LISTENING    4332\r\n"
    )
    found = windows.find_holders(PortSpec(port=80), WindowsSide(table))
    assert [one.windows.pid for one in found if one.windows] == [4332, 9676]
    assert [len(one.sockets) for one in found] == [2, 1]


def test_an_excluded_range_holds_a_port_and_an_administered_one_does_not() -> None:
    reserved = [one for one in holders(7443) if one.kind == "reserved"]
    assert len(reserved) == 1
    assert "7400 to 7499" in reserved[0].why_hidden
    assert windows.is_protected(reserved[0])
    assert "net stop winnat" in windows.explain(reserved[0])
    assert holders(50000) == ()
    assert holders(7450, protocol="udp") == ()
    assert holders(7450, "::") == ()
    assert [one.kind for one in holders(7450, "127.0.0.1")] == ["reserved"]


def test_the_shared_dns_of_wsl_is_in_nobodys_way() -> None:
    assert holders(53, protocol="udp") == ()
    (found,) = holders(53, protocol="udp", refused=True)
    assert windows.is_protected(found)
    assert "SharedAccess" in windows.explain(found)


def test_the_shared_dns_of_one_address_is_in_the_way_of_that_address() -> None:
    table = windows.parse_sockets("  UDP    192.0.2.10:53    *:*    5388\r\n")
    desired = PortSpec(address="192.0.2.10", port=53, protocol="udp")
    assert images(*windows.find_holders(desired, WindowsSide(table, TASKLIST))) == ["svchost.exe"]


def test_a_process_that_tasklist_does_not_name_is_known_by_its_number_and_protected() -> None:
    (found,) = windows.find_holders(PortSpec(port=6379), WindowsSide(NETSTAT))
    assert found.windows == WindowsProcess(pid=9120)
    assert found.evidence == ("netstat.exe",)
    assert windows.is_protected(found)
    assert "tasklist.exe" in windows.explain(found)


# What is protected, and what it is called


@pytest.mark.parametrize(
    ("process", "words"),
    [
        (WindowsProcess(pid=4, image="System"), "http.sys"),
        (WindowsProcess(pid=4, image="by any other name"), "http.sys"),
        (WindowsProcess(pid=3600, image="svchost.exe", services=("iphlpsvc",)), "portproxy"),
        (WindowsProcess(pid=77, image="svchost.exe", services=("Dnscache",)), "net stop Dnscache"),
        (WindowsProcess(pid=78, image="svchost.exe", services=("A", "B")), "A, B"),
        (WindowsProcess(pid=101, image="com.docker.backend.exe"), "restart Docker Desktop"),
        (WindowsProcess(pid=102, image="Docker Desktop.exe"), "restart Docker Desktop"),
        (WindowsProcess(pid=103, image="COM.DOCKER.BACKEND.EXE"), "restart Docker Desktop"),
        (WindowsProcess(pid=105, image="vpnkit.exe"), "restart Docker Desktop"),
        (WindowsProcess(pid=106, image="com.docker.proxy.exe"), "restart Docker Desktop"),
        (WindowsProcess(pid=107, image="wslrelay.exe"), "WSL distribution"),
        (WindowsProcess(pid=108, image="wslhost.exe"), "WSL distribution"),
    ],
    ids=lambda value: value.image if isinstance(value, WindowsProcess) else "",
)
def test_what_must_not_be_ended_is_protected_and_explained(
    process: WindowsProcess, words: str
) -> None:
    holder = Holder(kind="windows", windows=process)
    assert windows.is_protected(holder)
    assert words in windows.explain(holder)


def test_what_docker_desktop_runs_is_known() -> None:
    assert {
        "com.docker.backend.exe",
        "wslrelay.exe",
        "vpnkit.exe",
        "docker desktop.exe",
        "com.docker.proxy.exe",
        "wslhost.exe",
    } <= windows.DOCKER_DESKTOP


def test_a_service_of_its_own_program_may_be_ended_and_is_explained() -> None:
    (found,) = holders(6380, "127.0.0.1")
    assert not windows.is_protected(found)
    assert "net stop Memurai" in windows.explain(found)


# Both sides of a machine together


def judged(port: int, *, desktop: bool, refused: bool = False, **tables: object) -> PortState:
    desired = PortSpec(port=port)
    return classify(
        desired,
        Evidence(
            tables=Tables(wsl=True, **tables),  # type: ignore[arg-type]
            tool="python3",
            refused={desired: "EADDRINUSE"} if refused else {},
            project="shop",
            windows=WindowsSide(
                sockets=NETSTAT, processes=TASKLIST, excluded_tcp=EXCLUDED, desktop=desktop
            ),
        ),
    )


def web(project: str) -> Container:
    return Container(
        id="c1", name=f"{project}-web-1", project=project, published=("0.0.0.0:8081/tcp",)
    )


def test_docker_desktop_binds_on_the_windows_side() -> None:
    # The bind that the probe tried in the distribution proves nothing there.
    assert judged(6379, desktop=True).status == "held"
    assert images(*judged(6379, desktop=True).holders) == ["redis-server.exe"]
    assert judged(9999, desktop=True).status == "free"
    assert judged(7443, desktop=True).holders[0].kind == "reserved"


def test_an_engine_inside_the_distribution_does_not() -> None:
    assert judged(6379, desktop=False).status == "free"
    assert judged(7443, desktop=False).status == "free"


def test_in_mirrored_networking_a_bind_that_failed_is_explained_by_the_windows_side() -> None:
    for port, image in ((6379, "redis-server.exe"), (6380, "memurai.exe")):
        found = judged(port, desktop=False, refused=True)
        assert found.status == "held"
        assert images(*found.holders) == [image]


def test_what_docker_desktop_holds_stands_for_the_container_that_publishes_it() -> None:
    ours = judged(8081, desktop=True, containers=(web("shop"),))
    assert ours.status == "ours"
    theirs = judged(8081, desktop=True, containers=(web("elsewhere"),))
    assert theirs.status == "held"
    assert [one.kind for one in theirs.holders] == ["container"]
    leaked = judged(8081, desktop=True)
    assert leaked.status == "held"
    assert windows.is_protected(leaked.holders[0])
