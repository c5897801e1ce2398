"""What is found of the links of a project. Pure."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from stackmend import addresses
from stackmend.addresses.secrecy import show
from stackmend.addresses.state import Judgement
from stackmend.checks.state import CheckResult
from stackmend.compose.plan.draft import Draft
from stackmend.compose.plan.keepers import find_keeper
from stackmend.compose.plan.link_checks import MAXIMUM_LINKS, name_check
from stackmend.compose.plan.links import OF_A_MOMENT, Links, is_correcting
from stackmend.compose.state import LINKS_FILE, Change

#: What holds an address, at the end of the name of its check.
_HOLDER = re.compile(r" \([^()]*\)$")
#: A line of a log that reports a call that failed.
_FAILED_CALL = re.compile(
    r"refused|unreachable|resolv|cannot|can't|could not|fail|error|timed? ?out", re.I
)
#: Why a project has no correction at all, although one is desired.
_NAMED = "the project's .env names its compose files, and no other one can be laid over them"
_CONSENT = 'have stackmend do it: add to the stack "links": {"on_conflict": "override"}'


def find_unheard(
    changes: Collection[Change], logs: Mapping[str, Sequence[str]]
) -> tuple[tuple[Change, str], ...]:
    """The values that were corrected and whose service still calls the address before.

    :param logs: the last lines of services since they were started with the right one.
    """
    found = []
    for change in changes:
        host, colon, port = change.old.rpartition(":")
        lines = [
            line
            for line in logs.get(change.service, ())
            if colon and is_failed_call(line, host, port)
        ]
        found += [(change, lines[-1])] if lines else []
    return tuple(found)


def is_failed_call(line: str, host: str, port: int | str) -> bool:
    """Whether a line of a log reports that a call to an address failed."""
    # A name alone, without its port, may stand in a log for anything.
    pattern = rf"(?<![\w.-]){re.escape(host)}(?::|\W.{{0,40}}?port\W{{0,3}}){port}(?![\w-])"
    return bool(re.search(pattern, line, re.I) and _FAILED_CALL.search(line))


def find_links(draft: Draft, links: Links) -> None:
    """Note what is known of each link that is not as it should be."""
    equal: dict[str, list[Judgement]] = {}
    for judgement in links.judgements:
        result = links.get_result(judgement)
        if judgement.status == "right" and result is not None:
            equal.setdefault(result.name, []).append(judgement)
    for judgement in links.judgements:
        result = links.get_result(judgement)
        if judgement.status == "right":
            if result is not None and equal[result.name][0] is judgement:
                _find_unproven(draft, equal[result.name], result)
        elif judgement.status == "ambiguous":
            evidence = [describe(judgement), *judgement.readings, *quote(result, judgement)]
            draft.find(
                judgement.subject,
                "link",
                judgement.cause,
                evidence=evidence,
                remedy=judgement.remedy,
                blocks=False,
            )
        elif result is not None and result.ok:
            cause = f"it answers, so it is left alone, although {judgement.cause}"
            draft.find(
                judgement.subject, "link", cause, blocks=False, evidence=quote(result, judgement)
            )
        else:
            _find_wrong(draft, judgement, links)
    for judgement in links.running:
        _find_running(draft, judgement, links)
    for line in links.unread:
        subject, _, cause = line.partition(" is ")
        remedy = f'shorten it, or add "{subject}" to "ignore" of the section "links"'
        draft.find(subject, "link", f"it is {cause}", remedy=remedy, blocks=False)
    correction = links.correction
    for change in correction.changes if correction else ():
        draft.find(
            f"{change.service}.{change.variable}",
            "link",
            f"{LINKS_FILE} corrects it" + (f": {change.old} → {change.new}" if change.new else ""),
            evidence=[f"{change.origin}: {change.cause}"],
            remedy=f"correct it in {change.origin}: then {LINKS_FILE} goes away",
            blocks=False,
        )
    if correction and correction.problem:
        cause = f"wrong links are not corrected by {LINKS_FILE}: {correction.problem}"
        draft.find(draft.spec.project, "link", cause, blocks=False)
    for change, line in links.unheard:
        _find_unheard(draft, change, line)
    unheard = [change for change, _ in links.unheard]
    for change in correction.changes if correction else ():
        if change.kept and change not in unheard:
            _find_kept(draft, change)
    _find_unused_ignores(draft, links)
    count = len({name_check(link) for link in links.links if 0 < link.port < 65536})
    if count > MAXIMUM_LINKS:
        cause = f"of {count} links {MAXIMUM_LINKS} are proven by one run, and the others are not"
        remedy = 'name those that matter less in "ignore" of the section "links"'
        draft.find(draft.spec.project, "link", cause, remedy=remedy, blocks=False)
    if links.patch and links.omitted:
        cause = "the patch leaves wrong links as they are"
        draft.find(draft.spec.project, "link", cause, evidence=links.omitted, blocks=False)
    if links.patch:
        left = dict.fromkeys(line.partition(": ")[0] for line in links.omitted)
        but = f", but for {', '.join(left)}" if left else ""
        draft.find(
            draft.spec.project,
            "patch",
            "this change to the project's own files makes its links right" + but,
            evidence=links.patch,
            remedy="apply it in the source's directory with `git apply`",
            blocks=False,
        )


def _find_unused_ignores(draft: Draft, links: Links) -> None:
    """Tell of what is to be left alone and is nowhere: it may be a slip of the pen."""
    ignored = draft.spec.links.ignore if draft.spec.links else ()
    known = {f"{name}.{key}" for name, keys in links.variables.items() for key in keys}
    for pattern in ignored:
        if any(fnmatchcase(name, pattern) for name in known):
            continue
        similar = get_close_matches(pattern, sorted(known), n=3, cutoff=0.7)
        remedy = f"name one that there is, such as {', '.join(similar)}" if similar else "remove it"
        cause = f'"{pattern}" in "ignore" of the section "links" matches no variable of a service'
        draft.find(draft.spec.project, "warning", cause, remedy=remedy, blocks=False)


def _find_unproven(draft: Draft, judgements: Sequence[Judgement], result: CheckResult) -> None:
    """Note a link that does not work, once for all that hold its address."""
    address = judgements[0].address
    # What is done to either end may well be why it does not answer yet.
    if result.ok or {address.place.service, address.target} & {*draft.steps}:
        return
    cause = result.evidence.removeprefix(f"{result.name}: ")
    lines = dict.fromkeys(line.removeprefix(f"{result.name}: ") for line in result.details)
    details = [line for line in lines if line not in cause]
    needed = not all(addresses.is_for_browsers(judgement.address) for judgement in judgements)
    draft.find(
        _name_link(result, judgements),
        "link",
        cause,
        evidence=[*dict.fromkeys(map(describe, judgements)), *details],
        remedy=result.remedy,
        blocks=needed and result.outcome == "failed",
    )


def _find_wrong(draft: Draft, judgement: Judgement, links: Links) -> None:
    result, address = links.get_result(judgement), judgement.address
    if judgement.reason in OF_A_MOMENT and address.target in draft.steps:
        return
    evidence = [describe(judgement)]
    reason = links.correction.left.get(judgement.subject, "") if links.correction else _NAMED
    if reason and is_correcting(draft.spec):
        evidence.append(f"{LINKS_FILE} leaves it as it is: {reason}")
    remedy = judgement.remedy
    if judgement.right and not remedy:
        remedy = f"put {show(judgement.right)} in place of {address.text} in {address.place.source}"
    offered = judgement.correctable and judgement.subject not in links.refused
    if offered and not is_correcting(draft.spec):
        remedy += f", or {_CONSENT}"
    draft.find(
        judgement.subject,
        "link",
        judgement.cause,
        evidence=[*evidence, *quote(result, judgement)],
        remedy=remedy,
        blocks=links.is_broken(judgement),
    )


def _find_running(draft: Draft, judgement: Judgement, links: Links) -> None:
    """Note what a container has otherwise than its declaration, where this run leaves it so."""
    recreated = judgement.address.place.service in draft.steps
    if judgement.status == "right" or recreated or links.get_outcome(judgement) == "passed":
        return
    draft.find(
        judgement.subject,
        "link",
        judgement.cause,
        evidence=[
            describe(judgement),
            *judgement.readings,
            *quote(links.get_result(judgement), judgement),
        ],
        remedy=judgement.remedy,
        blocks=False,
    )


def _find_unheard(draft: Draft, change: Change, line: str) -> None:
    _find_stored(
        draft,
        change,
        f"it is {change.new} now, and {change.service} still calls {change.old}: the application "
        "keeps what it was set to at its first start, and ignores its environment",
        "change it in the settings of the application itself",
        ", or ",
        evidence=(line,),
    )


def _find_kept(draft: Draft, change: Change) -> None:
    """Note what no call can tell: whether an application uses what it has now, or stored before.

    It fails no run: what is corrected would be taken back, and never be in place.
    """
    _find_stored(
        draft,
        change,
        f"stackmend cannot prove that {change.service} uses {change.new}: it was started with "
        f"{change.old} before, and may keep what it stored then; only its own settings show that",
        "look at the settings of the application itself, and correct it there",
        ", or put ",
        blocks=False,
    )


def _find_stored(
    draft: Draft,
    change: Change,
    cause: str,
    remedy: str,
    otherwise: str,
    *,
    evidence: Sequence[str] = (),
    blocks: bool = True,
) -> None:
    """Note what an application may have stored; how it reads its environment again where known."""
    keeper = find_keeper(draft.name_image(change.service))
    if keeper:
        remedy += otherwise + keeper.remedy
    subject = f"{change.service}.{change.variable}"
    draft.find(subject, "link", cause, evidence=evidence, remedy=remedy, blocks=blocks)


def describe(judgement: Judgement) -> str:
    """Where an address stands, what it is, by which networks it leads, and what it should be."""
    place = judgement.address.place
    right = f"; right: {show(judgement.right)}" if judgement.right else ""
    networks = judgement.address.networks
    over = f", over network {', '.join(networks)}" if networks else ""
    return f"{place.source}: {place.name} is {show(judgement.address.url)}{over}{right}"


def _name_link(result: CheckResult, judgements: Iterable[Judgement]) -> str:
    """The name of a link's check, with all that hold its address."""
    names = dict.fromkeys(judgement.address.place.name for judgement in judgements)
    return _HOLDER.sub(lambda _: f" ({', '.join(names)})", result.name)


def quote(result: CheckResult | None, judgement: Judgement) -> list[str]:
    """What asking for an address found, as of the variable that holds it."""
    if result is None:
        return []
    message = result.evidence.removeprefix(f"{result.name}: ")
    if message == result.evidence:
        return [message]
    return [f"{_name_link(result, [judgement])}: {message}"]


def explain_wrong(judgement: Judgement) -> str:
    """A wrong address as evidence of what fails because of it."""
    return f"wrong link: {describe(judgement)}; {judgement.cause}"
