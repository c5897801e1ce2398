"""The decision about the whole project: its parts, and the order of all that follows."""

from collections.abc import Collection, Mapping, Sequence

from stackmend.checks.spec import Check, RedisCheck
from stackmend.checks.state import CheckResult
from stackmend.compose.plan.actions import Kind, Plan, Record, Recreate, Remove, Restart, Start, Up
from stackmend.compose.plan.declaration import count_replicas, is_redis, sort_into_levels
from stackmend.compose.plan.draft import Draft
from stackmend.compose.plan.foreign import (
    plan_claimants,
    plan_foreign_networks,
    plan_foreign_volumes,
    plan_names_and_addresses,
    refuse_elsewhere,
    sort_out,
)
from stackmend.compose.plan.format import explain_warning
from stackmend.compose.plan.gates import is_declaration_needed, refuse_crowded, refuse_engine
from stackmend.compose.plan.leftovers import plan_leftovers, restart_doomed
from stackmend.compose.plan.link_findings import explain_wrong, find_links
from stackmend.compose.plan.links import Links, drop_hops, list_wrong
from stackmend.compose.plan.losses import find_losses
from stackmend.compose.plan.order import arrange
from stackmend.compose.plan.path import (
    BENEATH,
    find_blame,
    find_hops,
    list_checked,
    list_unknown,
    make_checks,
)
from stackmend.compose.plan.record import read_declaration
from stackmend.compose.plan.requirements import refuse_unfit, refuse_unmet
from stackmend.compose.plan.resources import (
    check_volumes,
    plan_files,
    plan_images,
    plan_networks,
    plan_places,
    report_left_volumes,
)
from stackmend.compose.plan.service import plan_service
from stackmend.compose.spec import ComposeSpec
from stackmend.compose.state import OUR_FILES, Checkout, Declared, StackState
from stackmend.steering import find_ignored


def plan(
    spec: ComposeSpec,
    files: Mapping[str, str],
    digest: str,
    state: StackState,
    declared: Declared | None = None,
    checks: Sequence[CheckResult] = (),
    tried: Collection[str] = (),
    ignored: Mapping[str, frozenset[str]] | None = None,
    hops: Sequence[CheckResult] = (),
    checkout: Checkout | None = None,
    links: Links | None = None,
) -> Plan:
    """Decide what brings the host from ``state`` to what is desired.

    :param files: the project's files as they should be: path to digest.
    :param digest: one digest over all of them.
    :param declared: what Compose makes of them; left out where
        :func:`~stackmend.compose.plan.gates.is_declaration_needed` is false.
    :param checks: the results of the declared checks.
    :param tried: services that were already mended in this run; they get the stronger remedy.
    :param hops: what the calls between services found, of :func:`list_hop_checks`, where a check
        fails.
    :param ignored: per build context (relative to the project), the files that it leaves out.
    :param checkout: the commit that the files are of, where they come from git.
    :param links: what is known of the addresses between services, as far as somebody asks for it.
    """
    if refused := refuse_engine(state):
        return refused
    if declared is None:
        assert state.applied is not None, "is_declaration_needed() says when one is"
        declared = read_declaration(state.applied, state)
    state = sort_out(state, spec.project, declared.config)
    if crowded := refuse_crowded(spec, declared):
        return crowded
    known = frozenset(tried), ignored or {}, checkout
    draft = Draft(spec, files, digest, state, declared, checks, *known)
    if refuse_elsewhere(draft):
        return Plan(refusals=tuple(draft.refusals))
    if state.applied_problem:
        draft.find(spec.project, "unknown", state.applied_problem, blocks=False)
    _find_ignored(draft)
    if checkout is not None:
        cause = f"{checkout.ref} of {checkout.url} is commit {checkout.commit}"
        draft.find(spec.project, "source", cause, blocks=False)
    for warning in declared.warnings:
        draft.find(spec.project, "warning", warning, blocks=False, remedy=explain_warning(warning))
    refuse_unmet(draft)
    check_volumes(draft)
    report_left_volumes(draft)
    plan_names_and_addresses(draft)
    doomed = plan_leftovers(draft)
    plan_files(draft)
    plan_images(draft)
    for name in draft.services:
        plan_service(draft, name)
    plan_networks(draft)
    plan_places(draft)
    _plan_orphans(draft)
    _plan_dependants(draft)
    if links is not None and spec.links is not None:
        find_links(draft, links)
    _plan_failing_checks(draft, {result.name: result for result in hops}, links)
    plan_claimants(draft)
    plan_foreign_networks(draft)
    plan_foreign_volumes(draft)
    created = [name for name in _sort_services(draft) if draft.has_step(name, Recreate, Up)]
    refuse_unfit(draft, created)
    draft.refusals += find_losses(spec, draft.state, declared, created)
    restart_doomed(draft, doomed)
    actions = arrange(draft.services, draft.first, draft.steps, draft.last)
    decided = Plan(findings=tuple(draft.findings), refusals=tuple(draft.refusals))
    if decided.refusals:
        return decided
    if not actions and not decided.problems:
        _offer_checks(draft)
        decided = decided.model_copy(update={"findings": tuple(draft.findings)})
    moved = checkout is not None and (not state.applied or state.applied.checkout != checkout)
    needed = moved or state.staged or is_declaration_needed(spec, digest, state)
    if actions or decided.problems or needed:
        cause = "the next run compares the host with what this one proves"
        if state.staged and not actions:
            cause = "a run that was cut off left files that it had sent; recording removes them"
        if moved and not actions and (move := draft.explain_move()):
            cause = f"{move}, with the same files"
        actions.append(Record(subject=spec.project, cause=cause))
    return decided.model_copy(update={"actions": tuple(actions)})


def _find_ignored(draft: Draft) -> None:
    """Tell of what others would take for the project's, and what counts for nothing here."""
    project, state = draft.spec.project, draft.state
    draft.findings += find_ignored(project, state.ignored)
    recorded = state.applied.files if state.applied else {}
    known = {*draft.files, *recorded, *OUR_FILES}
    strays = [name for name in state.defaults if name not in known]
    if strays:
        names = ", ".join(f"{draft.spec.directory}/{name}" for name in strays)
        cause = f"not in the source, though Compose reads it by itself: {names}; kept, and ignored"
        remedy = "add it to the source, or remove it from the host"
        draft.find(project, "ignored", cause, remedy=remedy, blocks=False)


def _plan_orphans(draft: Draft) -> None:
    """Remove containers of services that are no longer declared."""
    ours = draft.applied.config.get("services", {}) if draft.applied else {}
    for container in draft.state.containers:
        if container.oneoff or container.service in draft.services:
            continue
        name = container.service or container.name
        was_ours = container.service in ours
        allowed = draft.spec.is_allowed("container", container.name)
        cause = "no longer in the compose file" if was_ours else "not in the compose file"
        if not was_ours and not allowed:
            remedy = f'(to remove it: "allow": ["container:{container.name}"])'
            cause = f"{cause} and not started by us; left alone {remedy}"
            draft.find(name, "orphan", cause, blocks=False)
            continue
        draft.find(name, "orphan", cause)
        how = (
            "put the service back into the compose file"
            if was_ours
            else f"make it again from {container.image}"
        )
        draft.last.append(
            Remove(
                subject=name,
                cause=cause,
                container=container.id,
                destructive=not was_ours,
                undo=f"{how}; its volumes are kept",
            )
        )


def _plan_dependants(draft: Draft) -> None:
    """Restart or recreate services as Compose's own rules do with those that they lean on."""
    moved = True
    while moved:
        moved = False
        recreated = {
            name
            for name in draft.steps
            if draft.has_step(name, Recreate)
            or (
                draft.has_step(name, Up)
                and (
                    not draft.state.list_containers(name) or draft.name_image(name) in draft.fetched
                )
            )
        }
        restarted = recreated | {
            name for name in draft.steps if draft.has_step(name, Restart, Start)
        }
        for name, body in draft.services.items():
            if not draft.state.list_containers(name) or name in recreated:
                continue
            for key in ("network_mode", "pid", "ipc"):
                kind, _, target = str(body.get(key) or "").partition(":")
                if kind == "service" and target in recreated:
                    draft.add(Recreate(subject=name, cause=f"{key}: {target} is recreated"))
                    moved = True
            leaning = [
                target
                for target, settings in (body.get("depends_on") or {}).items()
                if target in restarted and settings.get("restart")
            ]
            if leaning and name not in restarted:
                restarted.add(name)
                moved = True
                cause = f"depends_on.{leaning[0]}.restart: {leaning[0]} is restarted"
                for container in draft.state.list_containers(name):
                    draft.add(Restart(subject=name, cause=cause, container=container.id))


def _plan_failing_checks(
    draft: Draft, results: Mapping[str, CheckResult], links: Links | None
) -> None:
    """Restart what the path of a failing check shows to be broken, or else all of the path."""
    # What is already going to be mended may well be why a check fails.
    mending = bool(draft.steps)
    for result in draft.checks:
        if result.outcome == "passed":
            continue
        kind: Kind = "check" if result.outcome == "failed" else "unknown"
        cause = result.evidence.removeprefix(f"{result.name}: ")
        names = _list_services_on_path(draft, result.name)
        hops = find_hops(draft.services, draft.spec.project, names)
        broken = [hop for hop in hops if _has_failed(results.get(str(hop)))]
        wrong = list_wrong(links, names, broken)
        explained = [judgement for judgement in wrong if links and links.is_cause(judgement)]
        # Who is called by a wrong address is not to blame for it.
        blamed = find_blame(drop_hops(hops, explained), results)
        # What decides comes first: the summary has room for one line.
        evidence = [explain_wrong(judgement) for judgement in wrong]
        evidence += [*(f"broken: {blame.evidence}" for blame in blamed), *result.details]
        evidence += (f"not known: {line}" for line in list_unknown(hops, results))
        beneath = next((BENEATH[hint] for hint in result.hints if hint in BENEATH), "")
        remedies = [beneath, *(judgement.remedy for judgement in wrong)]
        remedies += [*(blame.remedy for blame in blamed), result.remedy]
        remedy = next(filter(None, remedies), "")
        causes = {
            blame.other if blame.service in draft.tried else blame.service: blame.evidence
            for blame in blamed
        }
        spared = draft.spared | {blame.spared for blame in blamed}
        targets = [name for name in _sort_services(draft) if name in causes.keys() - spared]
        is_left = bool(mending or beneath or "restart-harms" in result.hints)
        if not {*targets} - draft.tried and (not blamed or targets):
            targets = [] if explained else [name for name in names if name not in spared]
            if explained and result.outcome == "failed" and not is_left:
                evidence.append("no service is restarted for it: no restart corrects an address")
        draft.find(result.name, kind, cause, evidence=evidence, remedy=remedy)
        if result.outcome != "failed" or is_left:
            continue
        for name in targets:
            why = causes.get(name, result.evidence)
            for container in draft.state.list_containers(name):
                if name not in draft.tried:
                    cause = f"check {result.name} fails: {why}"
                    step = Restart(subject=name, cause=cause, container=container.id)
                    draft.mend("check", step, container, found=True)


def _has_failed(result: CheckResult | None) -> bool:
    return result is not None and result.outcome == "failed"


def list_hop_checks(
    spec: ComposeSpec, state: StackState, declared: Declared, checks: Sequence[CheckResult]
) -> tuple[Check, ...]:
    """The checks that prove the hops on the path of those that fail."""
    draft = Draft(spec, {}, "", state, declared, checks, frozenset(), {})
    start = {
        name
        for result in checks
        if result.outcome == "failed"
        for name in _list_services_on_path(draft, result.name)
    }
    # Of a service that is down, to be started anyway, a call says nothing.
    running = {container.service for container in state.containers if container.running}
    hops = [
        hop
        for hop in find_hops(draft.services, spec.project, sorted(start))
        if {hop.source, hop.target} <= running
    ]
    return make_checks(hops, draft.services, state)


def _offer_checks(draft: Draft) -> None:
    """Tell of a redis without a check: its healthcheck is well where it refuses writes."""
    checked = {check.service for check in draft.spec.checks if isinstance(check, RedisCheck)}
    for name, body in draft.services.items():
        redis = count_replicas(body) and is_redis(draft.name_image(name), body)
        if redis and name not in checked:
            draft.find(
                name,
                "check",
                "it runs redis, and no check asks whether it takes writes and can save them",
                remedy=f'add to the stack: "checks": [{{"kind": "redis", "service": "{name}"}}]',
                blocks=False,
            )


def _list_services_on_path(draft: Draft, check_name: str) -> list[str]:
    """The services that a check passes through, in dependency order."""
    check = next((check for check in draft.spec.checks if check.name == check_name), None)
    if check is None:
        return []
    names = list_checked(check, draft.services)
    return [name for name in _sort_services(draft) if name in names]


def _sort_services(draft: Draft) -> list[str]:
    """The services, each after those it depends on."""
    return [name for level in sort_into_levels(draft.services) for name in level]
