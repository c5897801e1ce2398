"""What services mount was replaced on the host: the container still holds what was there before."""

from __future__ import annotations

import pytest

from tests.lab.fixtures import Lab
from tests.lab.stacks import Shop
from tests.lab.standing import Standing


@pytest.fixture(scope="module")
def standing(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Standing:
    host = lab.take(1)[0]
    host.sh("mkdir -p /srv/data /srv/pages && echo one >/srv/pages/page && echo first >/srv/shared")
    shop = Shop(tmp_path_factory.mktemp("mounts"), host, mend={"attempts": 100, "backoff": [0]})
    # In this image /var/run is a link.
    shop.services["redis"]["volumes"] += ["/srv/shared:/var/run/shared:ro"]
    shop.services["side"]["volumes"] = [
        *("/srv/shared:/etc/shared:ro", "/srv/pages:/pages:ro", "/srv/data:/data")
    ]
    return Standing(shop)


@pytest.fixture
def shop(standing: Standing) -> Shop:
    return standing.renew()


def inside(shop: Shop, service: str, path: str) -> str:
    return shop.host.docker("exec", shop.id(service), "cat", path)


def replace(shop: Shop, path: str) -> None:
    """Have another file of the right content there, and a wrong one in the containers."""
    shop.host.sh(f"cp -p {path} {path}~ && echo wrong >{path} && mv {path}~ {path}")


def mend(shop: Shop, **restarted: str) -> None:
    """One run restarts these services, each for its path, and touches no other."""
    with shop.watching() as seen:
        done = shop.run("-y")
    assert done.rc == 0, done.out
    assert seen.touched == set(restarted), seen.events
    assert seen.recreated == set()
    for service, path in restarted.items():
        assert seen.actions(service).count("restart") == 1
        assert f"{service}: drift: {path} was replaced on the host" in done.out
    shop.assert_converged()


def test_a_project_file_replaced_by_mv(shop: Shop) -> None:
    replace(shop, "/opt/shop/conf/web.conf")
    assert inside(shop, "web", "/etc/web.conf") == "wrong"
    dry = shop.run("--dry")
    assert "web: drift: /opt/shop/conf/web.conf was replaced on the host" in dry.out
    assert inside(shop, "web", "/etc/web.conf") == "wrong"
    mend(shop, web="/opt/shop/conf/web.conf")
    assert inside(shop, "web", "/etc/web.conf") == "answer = 42"


def test_a_config_and_a_secret_are_mounts_as_well(shop: Shop) -> None:
    replace(shop, "/opt/shop/licence.txt")
    assert inside(shop, "web", "/run/secrets/licence") == "wrong"
    mend(shop, web="/opt/shop/licence.txt")
    assert inside(shop, "web", "/run/secrets/licence") == "first-licence"


def test_a_file_of_two_services_deleted_and_made_again(shop: Shop) -> None:
    shop.host.sh("echo wrong >/srv/shared && rm /srv/shared && echo first >/srv/shared")
    assert inside(shop, "redis", "/run/shared") == inside(shop, "side", "/etc/shared") == "wrong"
    mend(shop, redis="/srv/shared", side="/srv/shared")
    assert inside(shop, "redis", "/run/shared") == inside(shop, "side", "/etc/shared") == "first"


def test_a_directory_replaced_by_another(shop: Shop) -> None:
    shop.host.sh(
        "cd /srv && rm -rf before && mv pages before && mkdir pages && echo two >pages/page"
    )
    assert inside(shop, "side", "/pages/page") == "one"
    mend(shop, side="/srv/pages")
    assert inside(shop, "side", "/pages/page") == "two"
    # What was there before is still somebody's.
    assert shop.host.read("/srv/before/page") == b"one\n"
    shop.host.sh("echo one >/srv/pages/page")


def test_a_data_directory_replaced_by_an_empty_one(shop: Shop) -> None:
    """As where a disk is unmounted: a restart would begin without the data, and is refused."""
    host = shop.host
    host.docker("exec", shop.id("side"), "sh", "-c", "echo precious >/data/order")
    host.sh("rm -rf /srv/moved && mv /srv/data /srv/moved && mkdir /srv/data")
    try:
        with shop.watching() as seen:
            done = shop.run("-y")
        assert done.rc != 0, done.out
        assert seen.quiet, seen.events
        assert '"allow": ["volume:side:/data"]' in done.out
        assert inside(shop, "side", "/data/order") == "precious"
    finally:
        host.sh("rmdir /srv/data && mv /srv/moved /srv/data")
    shop.assert_converged()


def test_a_socket_made_again_by_its_daemon(shop: Shop) -> None:
    """As the engine's own, which many a service mounts: what is held leads to nobody."""
    listen = (
        "rm -f /srv/socket; systemd-run -q --unit lab-socket "
        "--socket-property=ListenStream=/srv/socket true; test -S /srv/socket"
    )
    shop.host.sh(listen)
    shop.services["side"]["volumes"] += ["/srv/socket:/var/run/socket"]
    try:
        shop.deploy()
        shop.host.sh(f"systemctl stop lab-socket.socket; {listen}")
        held = ("exec", shop.id("side"), "stat", "-c", "%i", "/var/run/socket")
        assert shop.host.docker(*held) != shop.host.sh("stat -c %i /srv/socket")
        mend(shop, side="/srv/socket")
        assert shop.host.docker(*held) == shop.host.sh("stat -c %i /srv/socket")
    finally:
        shop.host.sh("systemctl stop lab-socket.socket")


# What is left alone


def test_another_file_of_the_same_content_is_left_alone(shop: Shop) -> None:
    """So git, rsync and editors write what has not changed."""
    shop.host.sh("cp -p /srv/shared /srv/same && mv /srv/same /srv/shared")
    with shop.watching() as seen:
        done = shop.run("-y")
    assert done.rc == 0, done.out
    assert "No changes" in done.out
    assert seen.quiet


def test_a_directory_where_a_file_was(shop: Shop) -> None:
    """No container starts on that: it is told, and nothing is stopped for it."""
    shop.host.sh("rm -rf /srv/before; mv /srv/pages /srv/before; echo x >/srv/pages")
    try:
        with shop.watching() as seen:
            done = shop.run("-y")
        assert done.rc == 1, done.out
        assert seen.quiet, seen.events
        assert "/srv/pages on the host is of another kind" in done.out
        assert "remedy: put back at /srv/pages what was there" in done.out
    finally:
        shop.host.sh("rm /srv/pages; mv /srv/before /srv/pages")
    shop.assert_converged()


def test_a_directory_gone_from_the_host(shop: Shop) -> None:
    shop.host.sh("rm -rf /srv/before; mv /srv/pages /srv/before")
    try:
        with shop.watching() as seen:
            done = shop.run("-y")
        assert done.rc == 0, done.out
        assert seen.quiet, seen.events
        assert "/srv/pages, which it mounts, is gone from the host" in done.out
    finally:
        shop.host.sh("mv /srv/before /srv/pages")
