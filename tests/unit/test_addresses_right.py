"""Addresses that are right: nothing is found in stacks of public shape."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from stackmend.addresses import make_override
from stackmend.addresses.state import Running, RunningService
from stackmend.checks.state import CheckResult
from stackmend.compose.plan.decide import plan
from stackmend.compose.plan.link_checks import make_link_checks
from stackmend.compose.plan.links import classify_links, describe_others
from tests.unit.addresses_world import (
    RIGHT,
    findings,
    judge,
    project,
    read_files,
    read_resolved,
    unescape,
)
from tests.unit.compose_world import PROJECT, Desired, World, classify_asked, well

#: What is reported with both readings: a URL for browsers by its name, on the service's own
#: loopback, with a port that another service publishes on the host.
AMBIGUOUS = {
    "frontends": {
        "api.FRONTEND_URL",
        "api.WEBHOOK_URL",
        "next.NEXT_PUBLIC_API_URL",
        "next.NEXT_PUBLIC_WS_URL",
        "react.REACT_APP_API_URL",
        "vite.VITE_API_BASE",
        "vite.VITE_MINIO",
    },
    "langfuse": {
        "langfuse-worker.LANGFUSE_S3_MEDIA_UPLOAD_ENDPOINT",
        "langfuse-worker.LANGFUSE_S3_BATCH_EXPORT_EXTERNAL_ENDPOINT",
        "langfuse-worker.NEXTAUTH_URL",
        "langfuse-web.LANGFUSE_S3_MEDIA_UPLOAD_ENDPOINT",
        "langfuse-web.LANGFUSE_S3_BATCH_EXPORT_EXTERNAL_ENDPOINT",
    },
    "monitoring": {"grafana.GF_AUTH_GENERIC_OAUTH_AUTH_URL"},
    "supabase": {"auth.API_EXTERNAL_URL", "studio.SUPABASE_PUBLIC_URL"},
}


@pytest.mark.parametrize("path", RIGHT, ids=lambda path: path.name)
def test_nothing_is_found_in_a_right_stack(path: Path) -> None:
    config = unescape(read_resolved(path))
    found = findings(config)
    assert [subject for subject, status, *_ in found if status == "wrong"] == []
    doubtful = {subject for subject, status, *_ in found if status == "ambiguous"}
    assert doubtful == AMBIGUOUS.get(path.name, set())
    assert make_override(judge(config), config, read_files(path)).content == b""


#: Names that no service has: a host says that they do not resolve, and they are never rewritten.
NOBODYS = {
    "extra_hosts_webui": {"open-webui.OLLAMA_BASE_URLS"},
    "redis_replicas": {"web.OTHER_REDIS"},
    "supabase": {"auth.GOTRUE_SMTP_HOST"},
}


@pytest.mark.parametrize("path", RIGHT, ids=lambda path: path.name)
def test_nothing_is_found_where_the_names_of_a_right_stack_alone_resolve(path: Path) -> None:
    config = unescape(read_resolved(path))
    names = {one.address.host: False for one in judge(config) if one.reason == "unknown-name"}
    running = Running(services={key: RunningService(names=names) for key in config["services"]})
    found = judge(config, running)
    assert {one.subject for one in found if one.status == "wrong"} == NOBODYS.get(path.name, set())
    assert not [one.subject for one in found if one.correctable]


#: Those that call nothing but the host's own loopback, and names of others' networks.
UNASKED = {"external_network", "host_network"}


@pytest.mark.parametrize("path", RIGHT, ids=lambda path: path.name)
def test_a_run_finds_nothing_in_a_right_stack_whose_links_all_answer(path: Path) -> None:
    """As a run reads it, asks it and plans: each address that it asks for has an answer."""
    config = unescape(read_resolved(path)) | {"name": PROJECT}
    for key, network in (config.get("networks") or {}).items():
        if network.get("name") == f"right_{key}":
            network["name"] = f"{PROJECT}_{key}"
    desired = Desired(config, settings={"links": {"on_conflict": "override"}})
    images = [desired.ref(name) for name in desired.services]
    host = well(desired, World(images=images))
    files, declared, state = read_files(path), host.declared(desired), host.state()
    known = classify_links(desired.spec, files, declared, describe_others(state))
    checks = make_link_checks(desired.spec, known.links, declared, state)
    assert bool(checks) == (path.name not in UNASKED)
    results = {
        check.name: CheckResult(name=check.name, outcome="passed", evidence="it answers")
        for check in checks
    }
    links = classify_asked(desired, declared, state, results, files=files)
    assert not links.wrong
    decided = plan(desired.spec, desired.files, desired.digest, state, links=links)
    found = {one.subject for one in decided.findings if one.kind in ("link", "patch")}
    assert found == AMBIGUOUS.get(path.name, set())
    assert not [one for one in decided.findings if one.kind == "link" and one.blocks]


FIELD = yaml.safe_load((Path(__file__).parent / "right_field.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", FIELD)
def test_nothing_is_found_in_applications_of_the_field(name: str) -> None:
    config = project(FIELD[name])
    assert findings(config) == []
