"""``deploy/site.py`` frees what the stack needs, as the stack's ``ports`` section says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.fixtures import Lab
from tests.lab.holders import HOLD, HOME, Shelf, pids
from tests.lab.stacks import Shop

PORT = 21001
CONSENT = {"on_conflict": "stop", "allow": ["exe:/usr/bin/python3*"], "grace": 2, "settle": 1}


@pytest.fixture(scope="module")
def shelf(lab: Lab) -> Iterator[Shelf]:
    shelf = Shelf(lab.take(1)[0])
    shelf.put("python")
    yield shelf
    shelf.clear()


@pytest.fixture
def shop(shelf: Shelf, tmp_path: Path) -> Shop:
    """A stack of two services; one of them wants the port that is held."""
    shop = Shop(tmp_path, shelf.host)
    shop.compose = {
        "services": {
            "web": {"image": "lab/box:1", "ports": [f"{PORT}:80", "21101-21102:8001-8002"]},
            "side": {"image": "lab/box:1"},
        }
    }
    return shop


def test_without_the_section_ports_are_not_managed(shelf: Shelf, shop: Shop) -> None:
    before = shelf.picture("python")
    done = shop.run("-y")
    assert done.rc == 1, done.out
    # The engine's own words, whole.
    assert "address already in use" in done.out
    assert shelf.picture("python") == before
    shop.host.docker("compose", "-p", shop.project, "down")


def test_without_consent_the_stack_is_not_begun(shelf: Shelf, shop: Shop) -> None:
    before, moment = shelf.picture("python"), shelf.host.now()
    shop.settings["ports"] = {}
    done = shop.run("-y")
    assert done.rc == 1, done.out
    assert '"allow": ["exe:/usr/bin/python3.11"]' in done.out
    assert shop.report()["outcome"] == "refused"
    assert shelf.picture("python") == before
    assert [
        event for event in shelf.host.events_since(moment) if event["Type"] == "container"
    ] == []


def test_a_wrong_section_is_an_error_before_any_host_is_contacted(shop: Shop) -> None:
    shop.settings["ports"] = {"on_conflict": "stop", "allow": ["redis"]}
    mark = shop.host.mark()
    done = shop.run("-y")
    assert done.rc == 1, done.out
    assert "stack.ports.allow[0]: must be one of 'exe:…'" in done.out
    assert shop.host.logins_since(mark) == 0


def test_with_consent_the_port_is_freed_and_the_stack_has_it(shelf: Shelf, shop: Shop) -> None:
    shop.settings["ports"] = CONSENT
    done = shop.run("-y")
    assert done.rc == 0, done.out
    assert pids(shelf.host, PORT) == []
    assert shop.page(port=PORT) == "box 1"
    assert shop.report()["outcome"] == "changed"
    mark = shop.host.mark()
    with shop.watching() as observed:
        again = shop.run("-y")
    assert again.rc == 0, again.out
    assert "No changes" in again.out
    assert observed.quiet
    assert len(shop.host.sessions_since(mark)) == 1


def emptied(shelf: Shelf, shop: Shop) -> None:
    """Neither the stack nor anybody who holds its port is there, and no memory of either."""
    host = shelf.host
    host.sh(f"docker compose -p {shop.project} down; rm -rf {shop.home} /run/late")
    host.sh("systemctl stop late", check=False)
    for pid in pids(host, PORT):
        host.sh(f"kill -9 {pid}", check=False)


#: Takes the port when the engine is just about to: nobody could have seen it before.
LATE = f"""#!/bin/sh
case " $* " in
    *" up "*)
        [ -e /run/late ] || {{
            touch /run/late
            systemd-run -q --collect --unit=late {HOLD} tcp 0.0.0.0 {PORT}
            until ss -Hltn 'sport = :{PORT}' | grep -q .; do sleep 0.1; done
        }} ;;
esac
exec /usr/bin/docker "$@"
"""


def test_what_the_engine_itself_finds_held_is_answered_once(shelf: Shelf, shop: Shop) -> None:
    host = shelf.host
    assert host.exists(f"{HOME}/hold.py")
    emptied(shelf, shop)
    host.put("/usr/local/bin/docker", LATE, "0755")
    shop.settings["ports"] = {**CONSENT, "allow": ["unit:late.service"]}
    done = shop.run("-y")
    host.sh("rm /usr/local/bin/docker")
    assert host.exists("/run/late")
    assert done.rc == 0, done.out
    assert pids(host, PORT) == []
    assert shop.page(port=PORT) == "box 1"


def test_what_the_engine_finds_held_without_consent_is_named(shelf: Shelf, shop: Shop) -> None:
    host = shelf.host
    emptied(shelf, shop)
    host.put("/usr/local/bin/docker", LATE, "0755")
    shop.settings["ports"] = {}
    done = shop.run("-y")
    host.sh("rm /usr/local/bin/docker")
    assert done.rc == 1, done.out
    assert '"allow": ["unit:late.service"]' in done.out
    assert "address already in use" in done.out
    assert len(pids(host, PORT)) == 1


def test_on_a_host_with_ipv6_the_other_family_is_freed_as_well(shelf: Shelf, shop: Shop) -> None:
    """Docker then binds both, though nothing of the stack's files says so."""
    host = shelf.host
    emptied(shelf, shop)
    host.sh("sysctl -q -w net.ipv6.conf.all.disable_ipv6=0; systemctl restart docker")
    try:
        shelf.put("v6only")
        shop.services["web"]["ports"] = [f"{shelf['v6only'].port}:80"]
        shop.settings["ports"] = CONSENT
        done = shop.run("-y")
        assert done.rc == 0, done.out
        assert pids(host, shelf["v6only"].port) == []
        assert shop.page(port=shelf["v6only"].port) == "box 1"
    finally:
        host.sh("sysctl -q -w net.ipv6.conf.all.disable_ipv6=1; systemctl restart docker")
