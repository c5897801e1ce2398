"""What containers and users of a host plant in a project's directory leads root nowhere."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator

import pytest

from tests.lab.fixtures import Lab
from tests.lab.hosts import LabHost
from tests.lab.stacks import Shop
from tests.lab.standing import Standing
from tests.lab.untouched import untouched


@pytest.fixture(scope="module")
def standing(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Standing:
    shop = Shop(tmp_path_factory.mktemp("planted"), lab.take(1)[0])
    # A container that may write where the project's files lie, as root.
    shop.services["side"]["volumes"] = ["./conf:/conf"]
    shop.put("conf/app.cfg", "one\n")
    shop.host.sh("mkdir -p /etc/appx; echo theirs >/etc/appx/app.cfg; chmod 0600 /etc/appx/app.cfg")
    shop.host.sh("echo precious >/etc/victim; chmod 0600 /etc/victim")
    return Standing(shop)


@pytest.fixture
def shop(standing: Standing) -> Shop:
    shop = standing.shop
    shop.host.sh("[ ! -L /opt/shop/conf ] || rm /opt/shop/conf; find /opt -type l -delete")
    return standing.renew()


def inside(shop: Shop, script: str) -> None:
    """Run something in the container that mounts the project's ``conf``."""
    shop.host.docker("exec", shop.id("side"), "sh", "-c", script)


def test_a_container_that_mounts_a_directory_leads_root_nowhere(shop: Shop) -> None:
    """Links under the names of temporary files, of files, and of those that are to go."""
    inside(
        shop,
        "ln -s /etc/victim /conf/.stackmend-new.app.cfg; "
        "ln -s /etc/not-there /conf/.stackmend-new.web.conf; "
        "ln /conf/motd /conf/.stackmend-new.motd",
    )
    shop.put("conf/app.cfg", "two\n")
    shop.put("conf/web.conf", "answer = 2\n")
    with untouched(shop.host, "/opt/shop"):
        done = shop.run("-y")
    assert done.rc == 0, done.out
    assert shop.host.read("/opt/shop/conf/app.cfg") == b"two\n"
    assert not shop.host.sh("find /opt/shop -name '.stackmend.*'")

    # A link in the place of a file is named before anything is done, and also where it is to go.
    inside(shop, "rm /conf/app.cfg; ln -s /etc/victim /conf/app.cfg")
    shop.put("conf/app.cfg", "three\n")
    with untouched(shop.host), shop.watching() as seen:
        done = shop.run("-y")
    assert done.rc == 1
    assert "/opt/shop/conf/app.cfg is a link" in done.out
    assert "remove /opt/shop/conf/app.cfg" in done.out
    (shop.source / "conf/app.cfg").unlink()
    with untouched(shop.host):
        done = shop.run("-y")
    assert done.rc == 1
    assert "/opt/shop/conf/app.cfg is a link" in done.out
    assert seen.quiet


def test_a_mount_below_a_mount_leads_the_engine_nowhere(shop: Shop) -> None:
    """One container may write where what another one mounts lies."""
    shop.services["web"]["volumes"].append("./conf/cache/deep:/cache")
    assert shop.run("-y").rc == 0
    before = shop.id("web")
    inside(shop, "mv /conf/cache /conf/cache.old; ln -s /etc/appx /conf/cache")
    shop.services["web"]["environment"]["GREETING"] = "once more"
    with untouched(shop.host, "/opt/shop"):
        done = shop.run("-y")
    assert done.rc == 1
    assert "/opt/shop/conf/cache is a link, which the engine would follow to mount it" in done.out
    assert shop.id("web") == before
    # Neither is what stopped started on it.
    shop.services["web"]["environment"]["GREETING"] = "good morning"
    shop.host.docker("stop", before)
    with untouched(shop.host, "/opt/shop"):
        done = shop.run("-y")
    assert done.rc == 1
    assert "/opt/shop/conf/cache is a link" in done.out
    assert not shop.host.exists("/etc/appx/deep")
    inside(shop, "rm /conf/cache; mv /conf/cache.old /conf/cache")
    done = shop.run("-y")
    assert done.rc == 0, done.out


def test_files_that_compose_would_find_by_itself_count_for_nothing(shop: Shop) -> None:
    """What would be laid over the project's own file, or stand in for it, or say where it is."""
    host = shop.host
    evil = "services: {web: {privileged: true, environment: {EVIL: '1'}}}\n"
    planted = ["compose.override.yaml", "docker-compose.override.yml", "evil.yaml"]
    for name in planted:
        host.put(f"/opt/shop/{name}", evil)
    assert not host.exists("/opt/shop/.env")
    host.put("/opt/shop/.env", "COMPOSE_FILE=compose.yaml:evil.yaml\nCOMPOSE_PROFILES=all\n")
    before = shop.id("web")
    host.docker("rm", "-f", before)
    done = shop.run("-y")
    assert done.rc == 0, done.out
    web = host.inspect(shop.id("web"))
    assert web["Id"] != before
    assert not web["HostConfig"]["Privileged"]
    assert not any(one.startswith("EVIL") for one in web["Config"]["Env"])
    assert host.read("/opt/shop/evil.yaml").decode() == evil
    with shop.watching() as seen:
        assert shop.run("-y").rc == 0
    assert seen.quiet
    host.sh(f"cd /opt/shop && rm .env {' '.join(planted)}")


def test_links_fifos_and_new_files_in_the_way_are_named(shop: Shop) -> None:
    """Whether the record knows of the file or not, and although nothing else is to be done."""
    host = shop.host
    inside(shop, "rm /conf/app.cfg; mkfifo /conf/app.cfg; ln -s nowhere /conf/new.cfg")
    with untouched(host):
        done = shop.run("-y", timeout=60)
    assert done.rc == 1
    assert "/opt/shop/conf/app.cfg is neither the file" in done.out
    shop.put("conf/new.cfg", "new\n")
    with untouched(host):
        done = shop.run("-y", timeout=60)
    assert done.rc == 1
    assert "/opt/shop/conf/new.cfg is a link" in done.out
    inside(shop, "rm /conf/app.cfg /conf/new.cfg")


def test_a_user_who_owns_the_directory_leads_root_nowhere(shop: Shop) -> None:
    host = shop.host
    host.sh(
        "chown keeper /opt/shop && mv /opt/shop/conf /opt/shop/away && chown keeper /opt/shop/*"
    )
    host.sh("su keeper -s /bin/sh -c 'ln -s /etc/appx /opt/shop/conf'")
    shop.put("conf/app.cfg", "two\n")
    for gone in (False, True):
        if gone:
            (shop.source / "conf/app.cfg").unlink()
        with untouched(host):
            done = shop.run("-y")
        assert done.rc == 1
        assert "/opt/shop/conf is a link" in done.out
        assert "Traceback" not in done.out
    host.sh("rm /opt/shop/conf && mv /opt/shop/away /opt/shop/conf && chown -R root: /opt/shop")


@contextlib.contextmanager
def flipping(host: LabHost) -> Iterator[None]:
    """A user turns a directory into a link, and a file, and back, as fast as a shell can."""
    script = (
        "cd /opt/shop; n=0; while :; do n=$((n + 1)); mv conf away-$n; ln -s /etc/appx conf; "
        "rm -f conf; mv away-$n conf; for d in conf/.stackmend*; do "
        "ln -sf /etc/appx/app.cfg $d/app.cfg; done; rm -f conf/app.cfg; "
        "ln -s /etc/appx/app.cfg conf/app.cfg; rm -f conf/app.cfg; done"
    )
    pid = host.sh(f"setsid sh -c {shlex.quote(script)} >/dev/null 2>&1 & echo $!")
    try:
        yield
    finally:
        host.sh(
            f"kill -9 -{pid.strip()}; cd /opt/shop; [ -L conf ] || rm -f conf/app.cfg", check=False
        )


def test_what_flips_while_files_are_installed_leads_nowhere(shop: Shop) -> None:
    with untouched(shop.host, "/opt/shop"), flipping(shop.host):
        for turn in range(3):
            shop.put("conf/app.cfg", f"turn {turn}\n")
            done = shop.run("-y")
            assert "Traceback" not in done.out
    shop.host.sh(
        "cd /opt/shop; [ ! -L conf ] || rm conf; for d in away-*; do "
        "[ ! -d $d ] || mv -T $d conf; done; rm -rf away-*"
    )
    assert shop.run("-y").rc == 0
