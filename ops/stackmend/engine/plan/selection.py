"""Which versions are installed, once the host has read its lists of packages anew."""

from collections.abc import Mapping, Sequence

from stackmend.decision import Refusal
from stackmend.engine.plan.source import find_apt_family, find_source
from stackmend.engine.plan.versions import (
    extract_upstream,
    is_old_compose,
    is_old_engine,
    is_within,
)
from stackmend.engine.spec import MINIMUM_COMPOSE, MINIMUM_ENGINE, Installation
from stackmend.engine.state import HostEngine
from stackmend.frozen import Frozen


class Selection(Frozen):
    """What is installed: a name with the exact version, as the package manager takes it."""

    names: tuple[str, ...]
    engine: str = ""
    compose: str = ""


def select_packages(
    spec: Installation,
    state: HostEngine,
    available: Mapping[str, Sequence[str]],
    candidates: Mapping[str, str],
) -> Selection | Refusal:
    """The exact versions that are installed, or why there are none.

    :param spec: which engine.
    :param state: what the host has.
    :param available: every version of each package, the newest first.
    :param candidates: the version of each that the package manager would take.
    """
    source = find_source(spec, state)
    if isinstance(source, Refusal):
        return source
    where = f" at {source.address}" if source.address else ""
    name = state.release.name or state.release.id
    absent = [package for package in source.packages if package not in candidates]
    if absent:
        return Refusal(
            subject="engine",
            reason=f"{name} has no package {', '.join(absent)}{where}",
            remedy="enable its community repository (/etc/apk/repositories)"
            if state.manager == "apk"
            else _suggest_source(spec, state),
        )
    version = candidates[source.engine]
    if spec.version:
        versions = available.get(source.engine, ())
        matching = [version for version in versions if is_within(version, spec.version)]
        if not matching:
            listed = ", ".join(map(extract_upstream, versions[:8]))
            return Refusal(
                subject="engine",
                reason=f"there is no {source.engine} {spec.version}{where}; there is {listed}",
                remedy='set another "version" in the stack\'s "engine" section',
            )
        version = matching[0]
    compose = candidates[source.compose]
    old = []
    if is_old_engine(version):
        old.append(
            f"Engine {extract_upstream(version)} ({source.engine}), older than {MINIMUM_ENGINE}"
        )
    if is_old_compose(compose):
        old.append(
            f"Compose {extract_upstream(compose)} ({source.compose}), older than {MINIMUM_COMPOSE}"
        )
    if old:
        return Refusal(
            subject="engine",
            reason=f"{name}{where} offers {' and '.join(old)}",
            remedy=_suggest_source(spec, state),
        )
    exact = {**candidates, source.engine: version}
    for package in source.alike:
        if version in available.get(package, ()):
            exact[package] = version
    names = (*source.packages, *(extra for extra in source.extras if extra in candidates))
    joint = {"apt": "=", "dnf": "-", "apk": "="}[state.manager or "apt"]
    return Selection(
        names=tuple(f"{name}{joint}{exact[name]}" for name in names),
        engine=extract_upstream(version),
        compose=extract_upstream(compose),
    )


def _suggest_source(spec: Installation, state: HostEngine) -> str:
    """Where an engine that is new enough can come from."""
    section = 'in the stack\'s "engine" section'
    if spec.channel == "docker":
        return f'set another "repository" {section}'
    newer = (
        ', or "repository": "https://deb.debian.org/debian trixie main" (or a mirror\'s address) '
        "for a newer suite"
        if find_apt_family(state.release) == "debian" and state.release.codename != "trixie"
        else ""
    )
    return f'set "channel": "docker"{newer}, {section}'
