"""What the files alone say to be impossible: named on the controller, and in the plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from stackmend.compose.plan.contradictions import find_contradictions, parse_bytes
from stackmend.compose.source import SourceError, load
from stackmend.compose.spec import ComposeSpec


def body(*ports: Any, **more: Any) -> dict[str, Any]:
    return {"image": "lab/box:1", **({"ports": list(ports)} if ports else {}), **more}


def pool(subnet: str) -> dict[str, Any]:
    return {"ipam": {"config": [{"subnet": subnet}]}}


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "two services, one port": (
        {"services": {"a": body("8080:80"), "b": body("8080:81")}},
        "b: port 8080/tcp is published by a as well: publish one of them on another port",
    ),
    "every address and one": (
        {"services": {"a": body("0.0.0.0:80:80"), "b": body("127.0.0.1:80:80")}},
        "b: port 127.0.0.1:80/tcp is published by a as well",
    ),
    "both families and one": (
        {"services": {"a": body("[::1]:80:80/udp"), "b": body("80:80/udp")}},
        "b: port 80/udp is published by a as well",
    ),
    "one service, two ports of it": (
        {"services": {"a": body("8080:80", "8080:81")}},
        "a: port 8080/tcp is published twice",
    ),
    "within a range": (
        {"services": {"a": body("8000-8003:80-83"), "b": body("8002:80")}},
        "b: port 8002/tcp is published by a as well",
    ),
    "in the long syntax": (
        {"services": {"a": body({"target": 80, "published": "8080"}), "b": body("8080:80")}},
        "b: port 8080/tcp is published by a as well",
    ),
    "replicas": (
        {"services": {"a": body("8080:80", deploy={"replicas": 2})}},
        "a: its 2 replicas would all publish port 8080/tcp",
    ),
    "little memory": (
        {"services": {"a": body(mem_limit="4m")}},
        "a: mem_limit is 4m, and the engine takes no less than 6m: raise mem_limit",
    ),
    "little memory of a deployment": (
        {"services": {"a": body(deploy={"resources": {"limits": {"memory": "4096kb"}}})}},
        "a: deploy.resources.limits.memory is 4096kb, and the engine takes no less than 6m",
    ),
    "less than is reserved": (
        {"services": {"a": body(mem_limit="64m", mem_reservation="128m")}},
        "a: mem_limit is 64m, and less than the memory that it reserves",
    ),
    "less swap than memory": (
        {"services": {"a": body(mem_limit="64m", memswap_limit="32m")}},
        "a: memswap_limit is 32m, and less than mem_limit",
    ),
    "subnets": (
        {
            "services": {"a": body(networks=["one", "two"])},
            "networks": {"one": pool("10.9.0.0/16"), "two": pool("10.9.8.0/24")},
        },
        "network two: its subnet 10.9.8.0/24 overlaps 10.9.0.0/16 of network one",
    ),
    "an address of another subnet": (
        {
            "services": {"a": body(networks={"one": {"ipv4_address": "10.8.0.7"}})},
            "networks": {"one": pool("10.9.0.0/16")},
        },
        "a: networks.one.ipv4_address is 10.8.0.7, which is in no subnet of network one "
        "(10.9.0.0/16)",
    ),
    "an address without a subnet": (
        {
            "services": {"a": body(networks={"one": {"ipv4_address": "10.8.0.7"}})},
            "networks": {"one": {}},
        },
        "which is in no subnet of network one (none declared)",
    ),
    "one address for two": (
        {
            "services": {
                name: body(networks={"one": {"ipv4_address": "10.9.0.7"}}) for name in "ab"
            },
            "networks": {"one": pool("10.9.0.0/16")},
        },
        "b: networks.one.ipv4_address is 10.9.0.7, which a has as well",
    ),
    "an external secret": (
        {
            "services": {"a": body(secrets=["key"])},
            "secrets": {"key": {"external": True}},
        },
        "a: secrets.key is external, which only a swarm has",
    ),
}

RIGHT: dict[str, dict[str, Any]] = {
    "other addresses": {
        "services": {"a": body("127.0.0.1:80:80"), "b": body("127.0.0.2:80:80", "80:80/udp")}
    },
    "other families": {"services": {"a": body("0.0.0.0:80:80"), "b": body("[::]:80:80")}},
    "the engine chooses": {
        "services": {
            "a": body("80", "0:81", deploy={"replicas": 3}),
            "b": body("80", "8000-8010:80", scale=2),
        }
    },
    "twice the same": {"services": {"a": body("80:80", "80:80")}},
    "on the host's network": {
        "services": {"a": body("80:80", network_mode="host"), "b": body("80:80")}
    },
    "no replica": {"services": {"a": body("80:80", scale=0), "b": body("80:80")}},
    "another profile": {"services": {"a": body("80:80"), "b": body("80:80", profiles=["debug"])}},
    "a variable": {"services": {"a": body("${PORT:-80}:80"), "b": body("80:80", mem_limit="$M")}},
    "enough memory": {
        "services": {"a": body(mem_limit="6m", memswap_limit=-1, mem_reservation=6291456)}
    },
    "subnets of networks that nobody uses": {
        "services": {"a": body(networks=["one"])},
        "networks": {"one": pool("10.9.0.0/16"), "two": pool("10.9.8.0/24")},
    },
    "subnets that a variable decides": {
        "services": {"a": body(networks={"one": {"ipv4_address": "10.8.0.7"}})},
        "networks": {"one": pool("${SUBNET}")},
    },
    "an address of an external network": {
        "services": {"a": body(networks={"one": {"ipv4_address": "10.8.0.7"}})},
        "networks": {"one": {"external": True}},
    },
    "what nobody uses": {"services": {"a": body()}, "secrets": {"key": {"external": True}}},
    "what is of another kind": {"services": {"a": body(scale="two", deploy=[1])}},
    "no list": {"services": {"a": body(configs=7, networks=3)}},
}


def read(directory: Path, compose: dict[str, Any]) -> None:
    (directory / "compose.yaml").write_text(yaml.safe_dump(compose))
    load(ComposeSpec(project="shop", source=directory, directory="/opt/shop"))


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_is_told_before_contact(tmp_path: Path, case: str) -> None:
    compose, message = WRONG[case]
    with pytest.raises(SourceError) as told:
        read(tmp_path, compose)
    assert message in str(told.value)


@pytest.mark.parametrize("case", RIGHT)
def test_what_can_be_passes(tmp_path: Path, case: str) -> None:
    read(tmp_path, RIGHT[case])


def test_all_is_told_at_once(tmp_path: Path) -> None:
    lacking = ["./one.conf:/etc/one.conf", "./two.conf:/etc/two.conf"]
    a = body("80:80", mem_limit="1m", volumes=lacking)
    compose = {"services": {"a": a, "b": body("80:80")}}
    with pytest.raises(SourceError) as told:
        read(tmp_path, compose)
    assert "a: mem_limit is 1m" in str(told.value)
    assert "b: port 80/tcp is published by a as well" in str(told.value)
    for path in ("./one.conf", "./two.conf"):
        assert f"{path} is not among the project's files" in str(told.value)


def test_what_compose_resolved_is_looked_at_as_well() -> None:
    """An override, an included file or a variable brings it in."""
    ports = [{"mode": "ingress", "target": 80, "published": "8080", "protocol": "tcp"}]
    services = {name: {"ports": ports, "mem_limit": "4194304"} for name in "ab"}
    found = [item.subject for item in find_contradictions({"services": services})]
    assert sorted(found) == ["a", "b", "b"]


def test_sizes() -> None:
    sizes = {"6m": 6291456, "6MB": 6291456, "1.5k": 1536, 7: 7, "2 GiB": 2147483648, "x": None}
    assert {text: parse_bytes(text) for text in sizes} == sizes


@pytest.mark.parametrize(
    "mount",
    [
        "./conf/app.conf:/etc/app.conf:ro",
        "./site.pem:/certs",
        {"type": "bind", "source": "./settings", "target": "/etc/settings.yaml"},
    ],
    ids=str,
)
def test_a_mounted_file_that_the_source_lacks(tmp_path: Path, mount: Any) -> None:
    with pytest.raises(
        SourceError, match=r"services\.a\.volumes\.0: .* is not among the project's"
    ):
        read(tmp_path, {"services": {"a": body(volumes=[mount])}})


@pytest.mark.parametrize(
    "mount",
    [
        "./data:/data",
        "./cache.d:/cache",
        ".:/src",
        "./conf:/etc/conf",
        "./conf/there.conf:/etc/app.conf",
        "/etc/nothing.conf:/etc/app.conf",
        "${CONF}/app.conf:/etc/app.conf",
        {
            "type": "bind",
            "source": "./made.conf",
            "target": "/etc/app.conf",
            "bind": {"create_host_path": False},
        },
    ],
    ids=str,
)
def test_what_is_mounted_otherwise_passes(tmp_path: Path, mount: Any) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "there.conf").touch()
    read(tmp_path, {"services": {"a": body(volumes=[mount])}})
