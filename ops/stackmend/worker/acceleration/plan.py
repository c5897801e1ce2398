"""What keeps a model server from computing as fast as its host can. Pure; there is no action."""

from collections.abc import Iterator

from stackmend.decision import Action, Finding, Plan
from stackmend.engine.accelerators.state import Accelerators
from stackmend.worker.acceleration.advice import assess_cpu
from stackmend.worker.acceleration.chain import build_chain
from stackmend.worker.acceleration.expected import is_accelerated
from stackmend.worker.acceleration.reloads import assess_reloads
from stackmend.worker.acceleration.spec import AccelerationSpec
from stackmend.worker.acceleration.state import AcceleratorChain, WorkerAcceleration

#: Lines of evidence that a finding has; a server may have hundreds of models.
MOST_EVIDENCE = 8


def plan(
    spec: AccelerationSpec, accelerators: Accelerators, state: WorkerAcceleration
) -> Plan[Action]:
    """What was found.

    :param spec: what models have to be on.
    :param accelerators: what the host has of accelerators.
    :param state: what the server computes with.
    """
    found = _list_findings(spec, accelerators, state)
    return Plan(findings=tuple(map(_limit_evidence, found)))


def _limit_evidence(finding: Finding) -> Finding:
    more = len(finding.evidence) - MOST_EVIDENCE
    if more <= 0:
        return finding
    evidence = (*finding.evidence[:MOST_EVIDENCE], f"and {more} more")
    return finding.model_copy(update={"evidence": evidence})


def _list_findings(
    spec: AccelerationSpec, accelerators: Accelerators, state: WorkerAcceleration
) -> Iterator[Finding]:
    chain = build_chain(spec, accelerators, state)
    expected = is_accelerated(spec, accelerators, state)
    fails = expected and spec.on_fault == "fail"
    if missing := _assess_server(spec, state, blocks=fails):
        yield missing
    elif not state.answers:
        yield _describe_silence(spec, state)
    broken = chain.broken
    if broken and spec.processor != "cpu":
        yield Finding(
            subject=spec.service,
            kind=broken.kind,
            cause=broken.reason,
            evidence=broken.evidence,
            remedy=broken.remedy,
            blocks=fails and broken.blocks,
        )
    yield from assess_reloads(spec, state)
    if not expected and state.is_local and state.reason == "":
        yield from _assess_cpu(spec, chain, state)


def _describe_silence(spec: AccelerationSpec, state: WorkerAcceleration) -> Finding:
    where = f"at {spec.endpoint}" if spec.endpoint else "in its container"
    return Finding(
        subject=spec.service,
        kind="no answer",
        cause=f"the server {where} does not answer, so that its models are not known: "
        f"{state.reason}",
        remedy="read the server's log, and restart it where it hangs",
        blocks=False,
    )


def _assess_cpu(
    spec: AccelerationSpec, chain: AcceleratorChain, state: WorkerAcceleration
) -> Iterator[Finding]:
    if chain.processor not in ("", "cpu"):
        return
    for finding in assess_cpu(spec, state):
        if spec.on_fault == "report":
            yield finding.model_copy(update={"blocks": False})
        else:
            yield finding


def _assess_server(
    spec: AccelerationSpec, state: WorkerAcceleration, *, blocks: bool
) -> Finding | None:
    """The server that is not there; one that answers in another protocol than Ollama's is."""
    if state.engine.reason and spec.endpoint is None:
        return Finding(
            subject=spec.service,
            kind="unreadable",
            cause=f"cannot ask Docker for the server's container: {state.engine.reason}",
            remedy="start the engine, or name the server's address as endpoint",
            blocks=blocks,
        )
    if spec.endpoint is None and state.container is None:
        of = f" of the project {spec.project}" if spec.project else ""
        return Finding(
            subject=spec.service,
            kind="no server",
            cause=f"there is no container of the service {spec.service}{of}",
            remedy='start it, or name the model server as "service" or "endpoint"',
            blocks=blocks,
        )
    if state.container is not None and state.container.status != "running":
        return Finding(
            subject=spec.service,
            kind="no server",
            cause=f"its container {state.container.name} is {state.container.status}",
            remedy="start it",
            blocks=blocks,
        )
    return None
