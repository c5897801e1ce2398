"""The wrong addresses by which a service calls in vain now, for whoever explains a host. Pure.

A run that mends notes them as links (``link_findings.py``), and not where it recreates what has
them. An explanation needs each, with what says that it does harm: a call that fails, or a container
that does.
"""

from collections.abc import Callable, Collection, Iterator

from stackmend import addresses
from stackmend.addresses.secrecy import show
from stackmend.addresses.state import Address, Judgement
from stackmend.compose.plan.actions import Plan
from stackmend.compose.plan.health import has_failed, is_looping
from stackmend.compose.plan.link_findings import describe, is_failed_call, quote
from stackmend.compose.plan.links import BEYOND_CALLS, OF_A_MOMENT, Links, is_correcting
from stackmend.compose.spec import ComposeSpec
from stackmend.compose.state import LINKS_FILE, Container, StackState
from stackmend.decision import Finding

#: Steps that make a service's containers by its declaration.
_RENEWING = ("recreate", "up")


def find_wrong_addresses(
    spec: ComposeSpec,
    state: StackState,
    links: Links,
    decided: Plan,
    redact: Callable[[str], str],
) -> tuple[Finding, ...]:
    """What calls in vain by a wrong address, in the declaration or in a container alone.

    Each is a finding of the kind ``address`` that fails nothing.

    :param spec: the project's settings.
    :param state: what runs.
    :param links: its addresses, by what asking for them found as far as they were asked for.
    :param decided: what a run would do.
    :param redact: what a report makes of a line.
    """
    found: dict[str, Finding] = {}
    known = {finding.subject for finding in decided.problems if finding.kind == "link"}
    renewed = {action.subject for action in decided.actions if action.verb in _RENEWING}
    for judgement, lived in (
        *((each, True) for each in links.running),
        *((each, False) for each in links.judgements),
    ):
        if judgement.subject in found or judgement.subject in known:
            continue
        containers = _list_holders(judgement, state, lived=lived)
        evidence = [*_list_failures(judgement, links, containers, state, lived=lived)]
        if not evidence:
            continue
        remedy = judgement.remedy
        service = judgement.address.place.service
        if lived and service in renewed and not _is_declared_wrong(judgement, links):
            remedy = _explain_renewal(judgement, links)
        elif not lived:
            remedy = _explain_correction(judgement, links, spec)
        lines = [describe(judgement), *judgement.readings, *evidence]
        found[judgement.subject] = Finding(
            subject=judgement.subject,
            kind="address",
            cause=redact(judgement.cause or _explain_unknown(judgement)),
            evidence=tuple(map(redact, dict.fromkeys(lines))),
            remedy=remedy,
            blocks=False,
        )
    return tuple(found.values())


def _list_holders(judgement: Judgement, state: StackState, *, lived: bool) -> list[Container]:
    """The containers that have an address, as far as they show it."""
    place, text = judgement.address.place, judgement.address.text
    names = place.file.removeprefix("running ").removeprefix("container ").split(", ")
    found = []
    for container in state.list_containers(place.service):
        value = (container.shape.get("environment") or {}).get(place.key)
        other = place.kind == "environment" and value is not None and text not in str(value)
        if container.name in names if lived else not other:
            found.append(container)
    return found


def _list_failures(
    judgement: Judgement,
    links: Links,
    containers: Collection[Container],
    state: StackState,
    *,
    lived: bool,
) -> Iterator[str]:
    """What says that a call by an address fails; nothing where nothing does."""
    beyond = judgement.reason in BEYOND_CALLS or addresses.is_for_browsers(judgement.address)
    if beyond or not containers:
        return
    outcome = links.get_outcome(judgement)
    if outcome == "passed":
        return
    # A right one that fails is the target's trouble, and a name that a declaration has may lead to
    # what is off now.
    wrong = judgement.status != "right" and (lived or links.is_broken(judgement))
    if outcome == "failed" and (wrong or _is_unknown(judgement, links, lived=lived)):
        yield from quote(links.get_result(judgement), judgement)
        return
    if judgement.status != "wrong" or judgement.reason in OF_A_MOMENT:
        return
    for container in containers:
        if not (has_failed(container) or is_looping(container, state.now)):
            continue
        yield f"{container.name} is {container.status}, exit code {container.exit_code}"
        yield from _quote_log(container, judgement.address)


def _is_unknown(judgement: Judgement, links: Links, *, lived: bool) -> bool:
    """Whether a container alone has a name that does not resolve there."""
    result = links.get_result(judgement)
    unresolved = result is not None and "name-not-resolved" in result.hints
    return lived and judgement.reason == "unknown-name" and unresolved


def _explain_unknown(judgement: Judgement) -> str:
    address = judgement.address
    return f"the name {address.host} does not resolve in {address.place.service}; no service has it"


def _quote_log(container: Container, address: Address) -> Iterator[str]:
    """The last line that a container wrote of a call to an address that failed."""
    lines = [line for line in container.log if is_failed_call(line, address.host, address.port)]
    yield from (f"log of {container.name}: {line}" for line in lines[-1:])


def _is_declared_wrong(judgement: Judgement, links: Links) -> bool:
    """Whether what the declaration has in its place may be wrong as well."""
    return any(
        other.status != "right" for other in links.judgements if other.subject == judgement.subject
    )


def _explain_renewal(judgement: Judgement, links: Links) -> str:
    """What becomes of a container whose declaration is right."""
    place = judgement.address.place
    source, value = "its declaration", ""
    for address in links.addresses:
        if (address.place.service, address.place.key) == (place.service, place.key):
            source, value = address.place.source, f", which has {show(address.url)}"
    for change in links.correction.changes if links.correction else ():
        if (change.service, change.variable) == (place.service, place.name):
            source, value = LINKS_FILE, f", which corrects {change.origin}: {change.new}"
    return f"run `stackmend site`: it recreates {place.service} from {source}{value}"


def _explain_correction(judgement: Judgement, links: Links, spec: ComposeSpec) -> str:
    """What corrects an address in the project's own files."""
    remedy, address = judgement.remedy, judgement.address
    if judgement.right and not remedy:
        remedy = f"put {show(judgement.right)} in place of {address.text} in {address.place.source}"
    if judgement.correctable and not is_correcting(spec) and judgement.subject not in links.refused:
        remedy += ', or add to the stack "links": {"on_conflict": "override"}'
    return remedy
