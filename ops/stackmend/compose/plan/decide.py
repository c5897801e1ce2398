"""The decision about the whole project: what is in the way, and in which order things go."""

import posixpath
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from stackmend.checks.state import CheckResult
from stackmend.compose import drift
from stackmend.compose.plan.declaration import levels, network_differences, scale
from stackmend.compose.plan.foreign import Foreign, sort_out
from stackmend.compose.plan.gates import needs_declared, refuse_crowded, refuse_engine
from stackmend.compose.plan.losses import losses
from stackmend.compose.plan.model import Action, Kind, Plan
from stackmend.compose.plan.record import recorded
from stackmend.compose.plan.words import barred, few, short, some
from stackmend.compose.spec import ComposeSpec
from stackmend.compose.state import Declared, StackState
from stackmend.paths import STATE_ROOT, is_inside


def plan(
    spec: ComposeSpec,
    files: Mapping[str, str],
    digest: str,
    state: StackState,
    declared: Declared | None = None,
    checks: Sequence[CheckResult] = (),
    tried: Collection[str] = (),
    ignored: Mapping[str, frozenset[str]] | None = None,
) -> Plan:
    """Decide what brings the host from ``state`` to what is wanted.

    :param files: the project's files as they should be: path to digest.
    :param digest: one digest over all of them.
    :param declared: what Compose makes of them; left out where :func:`needs_declared` is false.
    :param checks: the results of the declared checks.
    :param tried: services that were already mended in this run; they get the stronger remedy.
    :param ignored: per build context (relative to the project), the files that it leaves out.
    """
    if refused := refuse_engine(state):
        return refused
    if declared is None:
        assert state.applied is not None, "needs_declared() says when a declaration is needed"
        declared = recorded(state.applied, state)
    state = sort_out(state, spec.project, declared.config)
    if crowded := refuse_crowded(spec, declared):
        return crowded
    return _Planner(
        spec, files, digest, state, declared, checks, frozenset(tried), ignored or {}
    ).plan()


class _Planner(Foreign):
    """One decision, made once."""

    def plan(self) -> Plan:
        if self._elsewhere():
            return Plan(findings=tuple(self.findings), refusals=tuple(self.refusals))
        if self.state.applied_problem:
            self._find(self.spec.project, "unknown", self.state.applied_problem, blocks=False)
        self._volumes()
        self._names_and_addresses()
        self._files()
        self._images()
        for name in self.services:
            self._service(name)
        self._networks()
        self._orphans()
        self._dependants()
        self._failing_checks()
        self._claimants()
        self._foreign_networks()
        self._foreign_volumes()
        order = self.order()
        anew = [
            name
            for name in order
            if any(step.verb in ("recreate", "up") for step in self.steps.get(name, ()))
        ]
        self.refusals += losses(self.spec, self.state, self.declared, anew)
        steps = [step for name in order for step in self.steps.get(name, ())]
        actions = [*self.first, *steps, *self.last]
        if actions or self.applied is None or needs_declared(self.spec, self.digest, self.state):
            actions.append(
                Action(
                    verb="record",
                    subject=self.spec.project,
                    cause="what is proven is remembered, to be compared with next time",
                )
            )
        return Plan(
            findings=tuple(self.findings),
            actions=() if self.refusals else tuple(actions),
            refusals=tuple(self.refusals),
        )

    def _volumes(self) -> None:
        """A volume that is declared differently would have to be made anew: never by us."""
        if not self.applied:
            return
        old, new = (
            self.applied.config.get("volumes") or {},
            self.declared.config.get("volumes") or {},
        )
        for key in sorted(set(old) & set(new)):
            for path, was, wanted in drift.differences(old[key] or {}, new[key] or {}):
                if path == "name":
                    continue
                self._refuse(
                    f"volume {key}",
                    drift.cause(f"volumes.{key}.{path}", was, wanted, self.secrets),
                    "a volume cannot change without being emptied, and stackmend never removes "
                    "one: declare the new one under another name and copy the data",
                )

    def _files(self) -> None:
        for path, kind in sorted({**self.state.barred, **self.declared.barred}.items()):
            reason, remedy = barred(posixpath.join(self.spec.directory, path), kind)
            self._refuse(self.spec.directory, reason, remedy)
        host = self.state.files
        differs = None if self.declared.differs is None else frozenset(self.declared.differs)
        changed: dict[str, str] = {}
        for path, wanted in self.files.items():
            if path in host:
                if host[path] == wanted:
                    continue
                changed[path] = "missing" if host[path] is None else "not as in the source"
            elif differs is not None and path not in differs:
                continue
            else:
                changed[path] = "new" if self.applied else "not on the host as it should be"
        # Without a record nothing says that what is listed was ours to remove.
        gone = [
            path
            for path in host
            if self.applied and path not in self.files and host[path] is not None
        ]
        for path in gone:
            if not is_inside(path):
                self._refuse(
                    "record",
                    f"it names {path!r}, which is no path inside {self.spec.directory}",
                    f"see who wrote {STATE_ROOT}/{self.spec.project}/files on the host, and "
                    "remove that file",
                )
                return
        told = changed | dict.fromkeys(gone, "no longer in the source")
        for what in dict.fromkeys(told.values()):
            paths = [path for path, reason in told.items() if reason == what]
            self._find(self.spec.directory, "files", f"{what}: {', '.join(few(paths))}")
        if changed or gone:
            self.first.append(
                Action(
                    verb="install files",
                    subject=self.spec.directory,
                    cause=some([*changed, *(f"{path} (removed)" for path in gone)], ", "),
                    names=tuple(gone),
                    undo=f"the files before lie in {STATE_ROOT}/{self.spec.project}",
                )
            )

    def _images(self) -> None:
        for name, body in self.services.items():
            ref = self._ref(name)
            if ref in self.fetched or not scale(body):
                continue
            build = body.get("build")
            missing = ref not in self.declared.images
            if build is not None:
                causes = self._build_causes(name, build)
                aside: tuple[str, ...] = ()
                if missing:
                    causes.insert(0, f"image {ref} is not on the host")
                elif what := self._unlike_image(name):
                    causes.insert(0, what)
                    id_ = self.declared.images[ref].id
                    aside = (id_, f"{ref}:set-aside-{short(id_)}")
                if not causes:
                    continue
                self._find(name, "image", some(causes))
                self.first.append(
                    Action(
                        verb="build",
                        subject=name,
                        cause=some(causes),
                        names=aside,
                        undo=f"docker tag {aside[1]} {ref}" if aside else "",
                    )
                )
            elif missing:
                causes = [f"image {ref} is not on the host"]
                self._find(name, "image", causes[0])
                self.first.append(Action(verb="pull", subject=name, cause=causes[0]))
            else:
                continue
            self.fetched.add(ref)
            # What comes may be the image that runs already: Compose compares the two and settles.
            for user in self.services:
                if self._ref(user) == ref and self.state.service(user):
                    self._step(user, "up", some(causes))

    def _build_causes(self, name: str, build: Mapping[str, Any]) -> list[str]:
        """Why an image must be built again, where it was built from the record's files."""
        if not self.applied or name not in self.applied.config.get("services", {}):
            return []
        before = self.applied.config["services"][name].get("build") or {}
        causes = [
            drift.cause(f"build.{path}", old, new, self.secrets)
            for path, old, new in drift.differences(before, build)
        ]
        context = self._inside(str(build.get("context", "")))
        if context is not None:
            context = "" if context == "." else context
            ignored = self.ignored.get(context, frozenset())
            recipe = posixpath.join(context, str(build.get("dockerfile") or "Dockerfile"))
            causes += [
                f"{path} of its build context changed"
                for path in self._changed_files()
                if path == recipe
                or ((not context or path.startswith(context + "/")) and path not in ignored)
            ]
        return causes

    def _networks(self) -> None:
        """A network that is declared differently is made anew, with the services on it."""
        old = (self.applied.config.get("networks") or {}) if self.applied else {}
        new = self.declared.config.get("networks") or {}
        for key in sorted(new):
            wanted = new[key] or {}
            has = self.declared.networks.get(self._network_name(key))
            if wanted.get("external") or (old.get(key) or {}).get("external"):
                continue
            if key in old:
                found = drift.differences(old[key] or {}, wanted)
            elif has is not None:
                found = iter(network_differences(wanted, has))
            else:
                continue
            causes = [
                drift.cause(f"networks.{key}.{path}", was, to, self.secrets)
                for path, was, to in found
            ]
            if not causes:
                continue
            on_it = [
                name for name, body in self.services.items() if key in (body.get("networks") or {})
            ]
            network = self._network_name(key)
            self._find(f"network {network}", "changed", some(causes))
            if what := self._unlike(self.state.network_labels.get(network), key):
                self._keep_out(f"network {network}", what, on_it, f"networks.{key}", network)
                continue
            self._guests(network)
            # An apply that was cut short may have removed it already.
            if network in self.state.networks:
                self.first.append(
                    Action(
                        verb="remove network",
                        subject=network,
                        cause=some(causes),
                        names=tuple(on_it),
                        undo="it is made again as it was by a rollback"
                        if self.applied
                        else "declare it as it was",
                    )
                )
            for name in on_it:
                self._step(name, "recreate", f"its network {network} changed")

    def _orphans(self) -> None:
        ours = self.applied.config.get("services", {}) if self.applied else {}
        for container in self.state.containers:
            if container.oneoff or container.service in self.services:
                continue
            name = container.service or container.name
            was_ours = container.service in ours
            consent = self.spec.allows("container", container.name)
            cause = "no longer in the compose file" if was_ours else "not in the compose file"
            self._find(
                name,
                "orphan",
                cause
                if was_ours or consent
                else f"{cause} and not started by us; left alone "
                f'(to remove it: allow = ["container:{container.name}"])',
                blocks=was_ours or consent,
            )
            if was_ours or consent:
                self.last.append(
                    Action(
                        verb="remove",
                        subject=name,
                        cause=cause,
                        container=container.id,
                        destructive=not was_ours,
                        undo="put the service back into the compose file; its volumes are kept"
                        if was_ours
                        else f"make it again from {container.image}; its volumes are kept",
                    )
                )

    def _dependants(self) -> None:
        """Services that Compose's own rules restart or recreate with those they lean on."""
        moved = True
        while moved:
            moved = False
            anew = {
                name
                for name, steps in self.steps.items()
                if any(
                    step.verb == "recreate"
                    or (
                        step.verb == "up" and (self._lacks(name) or self._ref(name) in self.fetched)
                    )
                    for step in steps
                )
            }
            again = anew | {
                name
                for name, steps in self.steps.items()
                if any(step.verb in ("restart", "start") for step in steps)
            }
            for name, body in self.services.items():
                if not self.state.service(name) or name in anew:
                    continue
                for key in ("network_mode", "pid", "ipc"):
                    target = str(body.get(key) or "")
                    if target.startswith("service:") and target[8:] in anew:
                        self._step(name, "recreate", f"{key}: {target[8:]} is recreated")
                        moved = True
                leaning = [
                    target
                    for target, settings in (body.get("depends_on") or {}).items()
                    if target in again and settings.get("restart")
                ]
                if leaning and name not in again:
                    again.add(name)
                    moved = True
                    for container in self.state.service(name):
                        self._step(
                            name,
                            "restart",
                            f"depends_on.{leaning[0]}.restart: {leaning[0]} is restarted",
                            container,
                        )

    def _lacks(self, name: str) -> bool:
        return not self.state.service(name)

    def _failing_checks(self) -> None:
        # What is already going to be mended may well be why a check fails.
        under_way = bool(self.steps)
        for result in self.checks:
            if result.outcome == "passed":
                continue
            kind: Kind = "check" if result.outcome == "failed" else "unknown"
            cause = result.evidence.removeprefix(f"{result.name}: ")
            self._find(result.name, kind, cause, evidence=result.details)
            if result.outcome == "failed" and not under_way:
                for name in self._path(result.name):
                    for container in self.state.service(name):
                        if name not in self.tried:
                            self._mend(
                                name,
                                "restart",
                                "check",
                                f"check {result.name} fails: {result.evidence}",
                                container,
                                found=True,
                            )

    def _path(self, check_name: str) -> list[str]:
        """The services on a check's path, in dependency order."""
        check = next((one for one in self.spec.checks if one.name == check_name), None)
        if check is None:
            return []
        names = set(check.services(self.services))
        if check.source is None and check.port is not None:
            for name, body in self.services.items():
                ports = (published.get("published") for published in body.get("ports") or ())
                if str(check.port) in map(str, ports):
                    names.add(name)
        return [name for name in self.order() if name in names]

    def order(self) -> list[str]:
        """The services, each after those it depends on."""
        return [name for level in levels(self.services) for name in level]
