"""Which versions are installed, once it is known what there is."""

from collections.abc import Mapping, Sequence

from stackmend.decision import Refusal
from stackmend.engine.plan import versions
from stackmend.engine.plan.source import apt_family, source
from stackmend.engine.spec import MINIMUM_COMPOSE, MINIMUM_ENGINE, Installation
from stackmend.engine.state import HostEngine
from stackmend.frozen import Frozen


class Chosen(Frozen):
    """What is installed: a name with the exact version, as the package manager takes it."""

    names: tuple[str, ...]
    engine: str = ""
    compose: str = ""


def chosen(
    wanted: Installation,
    state: HostEngine,
    available: Mapping[str, Sequence[str]],
    candidates: Mapping[str, str],
) -> Chosen | Refusal:
    """The exact versions that are installed, or why there are none to be had.

    :param wanted: which engine.
    :param state: what the host has.
    :param available: every version of each package, the newest first.
    :param candidates: the version of each that the package manager would take.
    """
    origin = source(wanted, state)
    if isinstance(origin, Refusal):
        return origin
    where = f" at {origin.address}" if origin.address else ""
    name = state.release.name or state.release.id
    absent = [one for one in origin.packages if one not in candidates]
    if absent:
        hint = (
            "enable its community repository (/etc/apk/repositories)"
            if state.manager == "apk"
            else _elsewhere(wanted, state)
        )
        return Refusal(
            subject="engine",
            reason=f"{name} has no package {', '.join(absent)}{where}",
            remedy=hint,
        )
    version = candidates[origin.engine]
    if wanted.version:
        fit = [
            one for one in available.get(origin.engine, ()) if versions.matches(one, wanted.version)
        ]
        if not fit:
            listed = ", ".join(map(versions.upstream, available.get(origin.engine, ())[:8]))
            return Refusal(
                subject="engine",
                reason=f"there is no {origin.engine} {wanted.version}{where}; there is {listed}",
                remedy='another "version" in the stack\'s "engine" section',
            )
        version = fit[0]
    compose = candidates[origin.compose]
    old = []
    if versions.engine_is_old(version):
        old.append(
            f"Engine {versions.upstream(version)} ({origin.engine}), older than {MINIMUM_ENGINE}"
        )
    if versions.compose_is_old(compose):
        old.append(
            f"Compose {versions.upstream(compose)} ({origin.compose}), older than {MINIMUM_COMPOSE}"
        )
    if old:
        return Refusal(
            subject="engine",
            reason=f"{name}{where} offers {' and '.join(old)}",
            remedy=_elsewhere(wanted, state),
        )
    exact = {**candidates, origin.engine: version}
    for one in origin.alike:
        if version in available.get(one, ()):
            exact[one] = version
    names = (*origin.packages, *(one for one in origin.extras if one in candidates))
    joint = {"apt": "=", "dnf": "-", "apk": "="}[state.manager or "apt"]
    return Chosen(
        names=tuple(f"{one}{joint}{exact[one]}" for one in names),
        engine=versions.upstream(version),
        compose=versions.upstream(compose),
    )


def _elsewhere(wanted: Installation, state: HostEngine) -> str:
    """Where an engine that is new enough can come from."""
    section = 'in the stack\'s "engine" section'
    if wanted.channel == "docker":
        return f'another "repository" {section}'
    newer = (
        ', or "repository": "https://deb.debian.org/debian trixie main" (or a mirror\'s address) '
        "for a newer suite"
        if apt_family(state.release) == "debian" and state.release.codename != "trixie"
        else ""
    )
    return f'"channel": "docker"{newer}, {section}'
