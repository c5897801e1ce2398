"""The decision: from what is wanted and what is there to what will be done, and why. Pure."""

import posixpath
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from ops.checks.state import CheckResult
from ops.compose import drift
from ops.compose.spec import ComposeSpec
from ops.compose.state import Applied, AppliedService, Container, Declared, StackState

# Compose leaves these out of a service's hash: they change what is done around a container, not the
# container (docker/compose pkg/compose/hash.go).
AROUND = frozenset({"build", "pull_policy", "scale", "depends_on", "profiles", "develop"})
REPLICAS = "deploy.replicas"

#: Restarts by the engine that make a container's young life a loop, and how young that is.
LOOP_RESTARTS = 3
LOOP_SECONDS = 60

WAYS_OUT = {
    "absent": "install Docker Engine with its Compose plugin on the host, then run this again",
    "stopped": "start it on the host (systemctl start docker) and see why it stopped "
    "(journalctl -u docker)",
    "forbidden": "connect as root, or set _sudo = True in the host's data",
    "no-compose": "install the Compose plugin (package docker-compose-plugin or docker-compose-v2)",
    "unknown": "see what `docker ps` says on the host",
}

Kind = Literal[
    "missing",
    "created",
    "stopped",
    "exited",
    "paused",
    "starting",
    "unhealthy",
    "restart loop",
    "hung",
    "scale",
    "changed",
    "image",
    "content",
    "files",
    "drift",
    "orphan",
    "leftover",
    "adopted",
    "check",
    "unknown",
]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Finding(_Frozen):
    """One thing that is not as it should be, and how that is known."""

    subject: str
    kind: Kind
    cause: str
    evidence: tuple[str, ...] = ()
    blocks: bool = True


class Refusal(_Frozen):
    """Something that is needed and will not be done, why, and what would allow it."""

    subject: str
    reason: str
    way_out: str


Verb = Literal[
    "set aside",
    "disconnect stranger",
    "pull",
    "build",
    "install files",
    "remove network",
    "attach",
    "detach",
    "unpause",
    "resume",
    "start",
    "restart",
    "recreate",
    "up",
    "remove",
    "record",
]


class Action(_Frozen):
    """One step, with its reason and the way back.

    :param subject: the service, image, network or container it is done to.
    :param container: the container's id, where the step is done to one.
    :param names: further names the step needs: files, aliases, a network.
    :param mend: it counts against the limits of mending this service.
    """

    verb: Verb
    subject: str
    cause: str
    container: str = ""
    names: tuple[str, ...] = ()
    destructive: bool = False
    undo: str = ""
    mend: bool = False

    def __str__(self) -> str:
        return f"{self.verb} {self.subject}: {self.cause}"


class Plan(_Frozen):
    """What was found, what will be done, in order, and what will not."""

    findings: tuple[Finding, ...] = ()
    actions: tuple[Action, ...] = ()
    refusals: tuple[Refusal, ...] = ()

    @property
    def empty(self) -> bool:
        """Nothing to do and nothing wrong."""
        return not self.actions and not self.refusals and not self.problems

    @property
    def problems(self) -> tuple[Finding, ...]:
        """The findings that stand against calling the stack converged."""
        return tuple(finding for finding in self.findings if finding.blocks)


def needs_declared(spec: ComposeSpec, digest: str, state: StackState) -> bool:
    """Whether Compose must be asked what the files mean, or the record still says it."""
    applied = state.applied
    return state.engine.status == "up" and (
        applied is None
        or applied.source != digest
        or applied.directory != spec.directory
        or applied.profiles != spec.profiles
    )


def recorded(applied: Applied, state: StackState) -> Declared:
    """The declaration of a record: good as long as the files are those of the record."""
    return Declared(config=applied.config, images=state.images, outside=state.outside)


def refuse_engine(state: StackState) -> Plan | None:
    """A plan that only refuses, where the host cannot be worked on at all."""
    engine = state.engine
    if engine.status != "up":
        reason = {
            "absent": "Docker is not installed",
            "stopped": "the Docker daemon does not run",
            "forbidden": "this user may not talk to the Docker daemon",
            "no-compose": "Docker has no Compose plugin",
        }.get(engine.status, f"Docker does not answer: {engine.reason}")
        return Plan(
            refusals=(Refusal(subject="engine", reason=reason, way_out=WAYS_OUT[engine.status]),)
        )
    if not state.writable:
        return Plan(
            refusals=(
                Refusal(
                    subject="state",
                    reason="this user may not write /var/lib/stackmend",
                    way_out=WAYS_OUT["forbidden"],
                ),
            )
        )
    return None


def refuse_crowded(spec: ComposeSpec, declared: Declared) -> Plan | None:
    """A plan that only refuses, where what would be written might fill the disk."""
    for path, free in sorted(declared.free.items()):
        if free < spec.minimum_free:
            return Plan(
                refusals=(
                    Refusal(
                        subject="disk",
                        reason=f"{free / 1024**2:.0f} MiB are free at {path}, "
                        f"{spec.minimum_free / 1024**2:.0f} MiB must be",
                        way_out="free some (docker system df shows what Docker holds), "
                        "or set minimum_free",
                    ),
                )
            )
    return None


def failed_before(spec: ComposeSpec, digest: str, state: StackState) -> str:
    """Why these very files are not applied again now: they failed and were taken back."""
    applied = state.applied
    if applied is None or applied.source == digest:
        return ""
    times = [
        mend.at for mend in state.mends if mend.action == "rollback" and mend.service == digest
    ]
    if not times:
        return ""
    backoff = spec.mend.backoff
    pause = backoff[min(len(times), len(backoff) - 1)] if backoff else 0
    left = pause - (state.now - max(times))
    again = len(times) < spec.mend.attempts
    if again and left <= 0:
        return ""
    # No window here: what failed so often by itself will not be right in an hour.
    then = (
        f"they are tried again in {left:.0f} s at the earliest"
        if again
        else "they are left alone until they change"
    )
    return f"these files were applied {len(times)} times, failed, and were rolled back; {then}"


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
    if crowded := refuse_crowded(spec, declared):
        return crowded
    return _Planner(
        spec, files, digest, state, declared, checks, frozenset(tried), ignored or {}
    ).plan()


class _Planner:
    """One decision in the making: collects findings, actions per service, refusals."""

    def __init__(
        self,
        spec: ComposeSpec,
        files: Mapping[str, str],
        digest: str,
        state: StackState,
        declared: Declared,
        checks: Sequence[CheckResult],
        tried: frozenset[str],
        ignored: Mapping[str, frozenset[str]],
    ) -> None:
        self.ignored = ignored
        self.spec, self.files, self.digest = spec, files, digest
        self.state, self.declared, self.checks, self.tried = state, declared, checks, tried
        self.applied = state.applied
        self.services = declared.services
        self.secrets = spec.secrets() | drift.secret_values(declared.config)
        if self.applied:
            self.secrets |= drift.secret_values(self.applied.config)
            self.secrets |= frozenset(self.applied.secrets)
        self.findings: list[Finding] = []
        self.refusals: list[Refusal] = []
        self.first: list[Action] = []
        self.last: list[Action] = []
        self.steps: dict[str, list[Action]] = {}
        self.fetched: set[str] = set()

    def plan(self) -> Plan:
        if self._foreign():
            return Plan(findings=tuple(self.findings), refusals=tuple(self.refusals))
        if self.state.applied_problem:
            self._find(self.spec.project, "unknown", self.state.applied_problem, blocks=False)
        self._volumes()
        self._strangers()
        self._files()
        self._images()
        for name in self.services:
            self._service(name)
        self._networks()
        self._orphans()
        self._dependants()
        self._failing_checks()
        order = self.order()
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

    # What stands in the way

    def _foreign(self) -> bool:
        """Whether the project's name belongs to a stack that was started from elsewhere."""
        known = {self.spec.directory}
        if self.applied:
            known.add(self.applied.directory)
        elsewhere = sorted(
            {one.working_dir for one in self.state.containers if one.working_dir} - known
        )
        for directory in elsewhere:
            if self.spec.allows("project", directory):
                continue
            self._refuse(
                self.spec.project,
                f"a project of this name was started from {directory}",
                f'to take it over, add to the stack: allow = ["project:{directory}"]; '
                "or give this stack another project name",
            )
        return bool(self.refusals)

    def _strangers(self) -> None:
        ours = {container.name for container in self.state.containers}
        for name, body in self.services.items():
            for wanted in _names(self.spec.project, name, body):
                if wanted in self.state.names and wanted not in ours:
                    owner = self.state.names[wanted]
                    self._take(
                        name,
                        wanted,
                        f"its name {wanted} is held by a container "
                        + (f"of project {owner}" if owner else "that no project owns"),
                        "set aside",
                        undo=f"docker rename {wanted}-set-aside {wanted} && docker start {wanted}",
                    )
        for stranger in self.state.strangers:
            for network, endpoint in stranger.endpoints.items():
                if not endpoint.address or not self._is_ours(network):
                    continue
                for name, body in self.services.items():
                    key = self._key(network)
                    settings = (body.get("networks") or {}).get(key) or {}
                    what = ""
                    if settings.get("ipv4_address") == endpoint.address:
                        what = f"its address {endpoint.address}"
                    elif key in (body.get("networks") or {}) and name in endpoint.aliases:
                        what = f"its name {name}"
                    if what:
                        self._take(
                            name,
                            stranger.name,
                            f"{what} on network {network} is held by container {stranger.name}",
                            "disconnect stranger",
                            network=network,
                            undo=f"docker network connect {network} {stranger.name}",
                        )

    def _take(
        self, service: str, holder: str, what: str, verb: Verb, *, undo: str, network: str = ""
    ) -> None:
        self._find(service, "drift", what)
        if self.spec.allows("container", holder):
            step = Action(
                verb=verb,
                subject=holder,
                cause=f"{service}: {what}",
                container=holder,
                names=(network,) if network else (),
                destructive=True,
                undo=undo,
            )
            # It may hold more than one thing: it is taken off once.
            for at, other in enumerate(self.first):
                if (other.verb, other.container, other.names) == (verb, holder, step.names):
                    cause = f"{other.cause}; {step.cause}"
                    self.first[at] = other.model_copy(update={"cause": cause})
                    return
            self.first.append(step)
        else:
            self._refuse(
                service, what, f'to take it, add to the stack: allow = ["container:{holder}"]'
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

    # Files and images

    def _files(self) -> None:
        host = self.state.files
        changed: dict[str, str] = {}
        for path, wanted in self.files.items():
            if path in host:
                if host[path] == wanted:
                    continue
                changed[path] = "missing" if host[path] is None else "not as in the source"
            elif self.declared.differs is not None and path not in self.declared.differs:
                continue
            else:
                changed[path] = "new" if self.applied else "not on the host as it should be"
        gone = [path for path in host if path not in self.files and host[path] is not None]
        told = changed | dict.fromkeys(gone, "no longer in the source")
        for what in dict.fromkeys(told.values()):
            paths = [path for path, reason in told.items() if reason == what]
            self._find(self.spec.directory, "files", f"{what}: {', '.join(_few(paths))}")
        if changed or gone:
            self.first.append(
                Action(
                    verb="install files",
                    subject=self.spec.directory,
                    cause=_some([*changed, *(f"{path} (removed)" for path in gone)], ", "),
                    names=tuple(gone),
                    undo=f"the files before lie in /var/lib/stackmend/{self.spec.project}",
                )
            )

    def _images(self) -> None:
        for name, body in self.services.items():
            ref = self._ref(name)
            if ref in self.fetched or not _scale(body):
                continue
            build = body.get("build")
            missing = ref not in self.declared.images
            if build is not None:
                causes = self._build_causes(name, build)
                if missing:
                    causes.insert(0, f"image {ref} is not on the host")
                if not causes:
                    continue
                self._find(name, "image", _some(causes))
                self.first.append(Action(verb="build", subject=name, cause=_some(causes)))
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
                    self._step(user, "up", _some(causes))

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

    def _changed_files(self) -> list[str]:
        """Project files whose content is not what the running containers were made with."""
        if not self.applied:
            return [path for path in self.declared.differs or () if path in self.files]
        was = self.applied.files
        return [
            path
            for path in sorted({*self.files, *was})
            if self.files.get(path) != was.get(path)
            or self.state.files.get(path, was.get(path)) != was.get(path)
        ]

    # Services

    def _service(self, name: str) -> None:
        body = self.services[name]
        containers = self.state.service(name)
        scale = _scale(body)
        regular = [one for one in containers if not one.replaces]
        if not regular and scale:
            self._do(name, "up", "missing", "it has no container")
        if not regular:
            return
        if len(containers) != len(regular) or len(regular) != scale:
            kind: Kind = "leftover" if len(containers) != len(regular) else "scale"
            self._do(
                name,
                "up",
                kind,
                "an interrupted recreation left a second container"
                if kind == "leftover"
                else f"{len(regular)} containers where {scale} should be",
            )
        if causes := self._declaration_causes(name, body):
            for kind, text in causes:
                self._find(name, kind, text)
            adopted = all(kind == "adopted" for kind, _ in causes)
            self._step(name, "up" if adopted else "recreate", _some([text for _, text in causes]))
        for container in regular:
            self._container(name, container)

    def _declaration_causes(self, name: str, body: Mapping[str, Any]) -> list[tuple[Kind, str]]:
        """Why the service's containers are not those that its declaration asks for."""
        causes: list[tuple[Kind, str]] = []
        containers = self.state.service(name)
        if self.applied is None or name not in self.applied.services:
            wanted = self.declared.hashes.get(name)
            if wanted is None or any(one.config_hash != wanted for one in containers):
                causes.append(
                    ("adopted", "nothing is recorded of it; Compose compares and settles")
                )
        else:
            was = effective(self.applied.config, name)
            for path, old, new in drift.differences(was, effective(self.declared.config, name)):
                if path.split(".")[0] not in AROUND and path != REPLICAS:
                    causes.append(("changed", drift.cause(path, old, new, self.secrets)))
            for path, now in self.declared.outside.items():
                before = self.applied.outside.get(path)
                if before and now != before and path in _sources(self.declared.config, name):
                    causes.append(("content", f"{path} on the host changed, which it mounts"))
        for path in self._mounted(name):
            causes.append(("content", f"{path} changed, which it mounts"))
        ref = self._ref(name)
        image = self.declared.images.get(ref)
        for container in containers:
            if image and container.image_id != image.id:
                causes.append(
                    ("image", f"image {ref}: {_short(container.image_id)} → {_short(image.id)}")
                )
                break
        return causes

    def _mounted(self, name: str) -> list[str]:
        """Changed project files that the service's containers see through a mount."""
        sources = [
            inside
            for source in _sources(self.declared.config, name)
            if (inside := self._inside(source)) is not None
        ]
        return [
            path
            for path in self._changed_files()
            if any(
                source == "" or path == source or path.startswith(source + "/")
                for source in sources
            )
        ]

    def _container(self, name: str, container: Container) -> None:
        for verb, kind, text, names in self._shape_causes(name, container):
            self._do(name, verb, kind, text, container, names)
        self._life(name, container)

    def _shape_causes(
        self, name: str, container: Container
    ) -> list[tuple[Verb, Kind, str, tuple[str, ...]]]:
        """How the container differs from the one that was proven well."""
        causes: list[tuple[Verb, Kind, str, tuple[str, ...]]] = []
        known = self.applied.services.get(name) if self.applied else None
        if known and known.image_id == container.image_id:
            wanted, actual = dict(known.shape), dict(container.shape)
            causes += self._network_causes(
                wanted.pop("networks", {}), actual.pop("networks", {}), container
            )
            causes += [
                ("recreate", "drift", drift.cause(path, old, new, self.secrets), ())
                for path, old, new in drift.differences(wanted, actual)
            ]
        elif not known:
            causes += self._adopted_causes(name, container)
        for network, endpoint in container.endpoints.items():
            current = self.state.networks.get(network)
            if endpoint.network_id and current != endpoint.network_id:
                what = "is gone" if current is None else "was removed and made anew"
                causes.append(("recreate", "drift", f"its network {network} {what}", ()))
        ids = {one.id for one in self.state.containers}
        for key, id_ in container.borrows.items():
            if id_ not in ids:
                causes.append(
                    ("recreate", "drift", f"{key}: the container it shares it with is gone", ())
                )
        if container.running and container.shape.get("network_mode") != "host":
            missing = [
                port
                for port in container.shape.get("ports", ())
                if not _is_published(port, container.published)
            ]
            if missing and container.endpoints:
                causes.append(
                    (
                        "recreate",
                        "drift",
                        f"the engine does not publish {', '.join(sorted(missing))}",
                        (),
                    )
                )
        return causes

    def _network_causes(
        self, wanted: Mapping[str, Any], actual: Mapping[str, Any], container: Container
    ) -> list[tuple[Verb, Kind, str, tuple[str, ...]]]:
        causes: list[tuple[Verb, Kind, str, tuple[str, ...]]] = []
        for network in sorted({*wanted, *actual}):
            should, has = wanted.get(network), actual.get(network)
            if should is None:
                text = f"networks.{network}: attached, and not declared"
                causes.append(("detach", "drift", text, (network,)))
            elif has is None or should != has:
                text = (
                    f"networks.{network}: detached"
                    if has is None
                    else drift.cause(f"networks.{network}", should, has)
                )
                verb: Verb = "recreate" if container.service in self.tried else "attach"
                causes.append(
                    (verb, "drift", text, (network, should.get("address", ""), *should["aliases"]))
                )
        return causes

    def _adopted_causes(
        self, name: str, container: Container
    ) -> list[tuple[Verb, Kind, str, tuple[str, ...]]]:
        """What can change in a living container, held against the declaration itself."""
        body = self.services[name]
        causes: list[tuple[Verb, Kind, str, tuple[str, ...]]] = []
        for key in body.get("networks") or {}:
            network = self._network_name(key)
            if network not in container.endpoints:
                settings = (body["networks"] or {}).get(key) or {}
                aliases = tuple(dict.fromkeys([name, *(settings.get("aliases") or ())]))
                address = settings.get("ipv4_address") or ""
                causes.append(
                    (
                        "attach",
                        "drift",
                        f"networks.{network}: detached",
                        (network, address, *aliases),
                    )
                )
        causes += [
            ("recreate", "drift", drift.cause(path, wanted, has, self.secrets), ())
            for path, wanted, has in _told_differences(body, container.shape)
        ]
        return causes

    def _life(self, name: str, container: Container) -> None:
        """What the container's state asks for."""
        status = container.status
        if status == "created":
            cause = container.error or "it was created and never started"
            self._do(name, "start", "created", cause, container)
        elif status == "paused":
            self._do(name, "unpause", "paused", "it is paused", container)
        elif status in ("dead", "removing"):
            self._do(name, "recreate", "exited", f"it is {status}", container)
        elif status == "exited":
            self._exited(name, container)
        elif status == "restarting" or _loops(container, self.state.now):
            self._mend(
                name,
                "recreate",
                "restart loop",
                f"it restarts again and again ({container.restart_count} times, last exit code "
                f"{container.exit_code}{_oom(container)})",
                container,
            )
        elif container.process in ("T", "t"):
            verb: Verb = "restart" if name in self.tried else "resume"
            self._do(name, verb, "hung", "its process is stopped by a signal", container)
        elif container.process in ("gone", "Z"):
            self._mend(name, "restart", "hung", "its process is gone", container)
        elif container.health == "unhealthy":
            output = drift.masked(container.health_output, self.secrets)
            self._mend(
                name,
                "recreate" if name in self.tried else "restart",
                "unhealthy",
                "its healthcheck fails" + (f": {_line(output)}" if output else ""),
                container,
            )
        elif container.health == "starting":
            self._find(name, "starting", "its healthcheck has not passed yet", blocks=True)
            self._step(name, "up", "it is still starting and is waited for")

    def _exited(self, name: str, container: Container) -> None:
        if _completed(container):
            return
        how = f"it exited with code {container.exit_code}{_oom(container)}"
        kind: Kind = "stopped" if container.exit_code in (0, 143) else "exited"
        if container.restart in ("no", "on-failure"):
            self._mend(name, "start", kind, how, container)
            return
        # The engine restarts what crashes under the other policies: someone stopped it.
        self._do(name, "start", kind, f"{how} and was not restarted", container)

    # Around the services

    def _networks(self) -> None:
        """A network that is declared differently is made anew, with the services on it."""
        if not self.applied:
            return
        old, new = (
            self.applied.config.get("networks") or {},
            self.declared.config.get("networks") or {},
        )
        for key in sorted(set(old) & set(new)):
            causes = [
                drift.cause(f"networks.{key}.{path}", was, wanted, self.secrets)
                for path, was, wanted in drift.differences(old[key] or {}, new[key] or {})
            ]
            if not causes or (old[key] or {}).get("external"):
                continue
            on_it = [
                name for name, body in self.services.items() if key in (body.get("networks") or {})
            ]
            network = self._network_name(key)
            self._find(f"network {network}", "changed", _some(causes))
            # An apply that was cut short may have removed it already.
            if network in self.state.networks:
                self.first.append(
                    Action(
                        verb="remove network",
                        subject=network,
                        cause=_some(causes),
                        names=tuple(on_it),
                        undo="it is made again as it was by a rollback",
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

    # Collecting

    def _find(
        self,
        subject: str,
        kind: Kind,
        cause: str,
        *,
        blocks: bool = True,
        evidence: Sequence[str] = (),
    ) -> None:
        # The engine's own words and a service's output may quote any secret.
        finding = Finding(
            subject=subject,
            kind=kind,
            cause=drift.masked(cause, self.secrets),
            evidence=tuple(drift.masked(line, self.secrets) for line in evidence),
            blocks=blocks,
        )
        if finding not in self.findings:
            self.findings.append(finding)

    def _refuse(self, subject: str, reason: str, way_out: str) -> None:
        reason = drift.masked(reason, self.secrets)
        refusal = Refusal(subject=subject, reason=reason, way_out=way_out)
        if refusal not in self.refusals:
            self.refusals.append(refusal)

    def _do(
        self,
        name: str,
        verb: Verb,
        kind: Kind,
        cause: str,
        container: Container | None = None,
        names: tuple[str, ...] = (),
    ) -> None:
        cause = self._placed(name, container, cause)
        self._find(name, kind, cause)
        self._step(name, verb, cause, container, names)

    def _placed(self, name: str, container: Container | None, cause: str) -> str:
        """A cause with the name of its container, where the service has several."""
        several = container is not None and _scale(self.services[name]) > 1
        return f"{container.name}: {cause}" if container and several else cause

    def _step(
        self,
        name: str,
        verb: Verb,
        cause: str,
        container: Container | None = None,
        names: tuple[str, ...] = (),
        *,
        mend: bool = False,
    ) -> None:
        """Add a step for a service, or let it join the stronger one that is already planned."""
        cause = drift.masked(cause, self.secrets)
        steps = self.steps.setdefault(name, [])
        whole = next((step for step in steps if step.verb in ("recreate", "up")), None)
        if whole and (whole.verb == "recreate" or verb == "up"):
            if cause not in whole.cause:
                steps[steps.index(whole)] = whole.model_copy(
                    update={"cause": f"{whole.cause}; {cause}", "mend": whole.mend or mend}
                )
            return
        if verb == "recreate":
            causes = [step.cause for step in steps]
            mend = mend or any(step.mend for step in steps)
            steps.clear()
            cause = "; ".join(dict.fromkeys([*causes, cause]))
            container = None
        steps.append(
            Action(
                verb=verb,
                subject=name,
                cause=cause,
                container=container.id if container else "",
                names=names,
                undo=UNDO.get(verb, ""),
                mend=mend,
            )
        )

    def _mend(
        self,
        name: str,
        verb: Verb,
        kind: Kind,
        cause: str,
        container: Container,
        *,
        found: bool = False,
    ) -> None:
        """Restart what failed by itself, as often as the limits of mending allow."""
        cause = self._placed(name, container, cause)
        if not found:
            self._find(name, kind, cause)
        if any(step.verb == "recreate" and not step.mend for step in self.steps.get(name, ())):
            # It is made anew for another reason, which may well be the cure.
            return
        policy = self.spec.mend
        recent = [
            mend.at
            for mend in self.state.mends
            if mend.service == name and self.state.now - mend.at < policy.window
        ]
        if name not in self.tried and len(recent) >= policy.attempts:
            self._refuse(
                name,
                f"{cause}. It was mended {len(recent)} times in the last "
                f"{policy.window / 60:g} minutes, and is left alone",
                f"look at `docker logs` of {container.name}; mend.attempts sets the limit",
            )
            return
        if recent and name not in self.tried and policy.backoff:
            pause = policy.backoff[min(len(recent), len(policy.backoff) - 1)]
            left = pause - (self.state.now - max(recent))
            if left > 0:
                self._refuse(
                    name,
                    f"{cause}. It was mended {self.state.now - max(recent):.0f} s ago",
                    f"run again in {left:.0f} s; mend.backoff sets the pause",
                )
                return
        self._step(name, verb, cause, container, mend=True)

    # Names

    def _ref(self, name: str) -> str:
        body = self.services[name]
        return str(body.get("image") or f"{self.spec.project}-{name}")

    def _inside(self, path: str) -> str | None:
        """A path on the host relative to the project's directory, or None where it lies outside."""
        if path == self.spec.directory:
            return ""
        prefix = self.spec.directory + "/"
        return posixpath.normpath(path[len(prefix) :]) if path.startswith(prefix) else None

    def _network_name(self, key: str) -> str:
        network = (self.declared.config.get("networks") or {}).get(key) or {}
        return str(network.get("name") or f"{self.spec.project}_{key}")

    def _key(self, network: str) -> str | None:
        for key in self.declared.config.get("networks") or {}:
            if self._network_name(key) == network:
                return str(key)
        return None

    def _is_ours(self, network: str) -> bool:
        return self._key(network) is not None


UNDO: Mapping[str, str] = {
    "attach": "docker network disconnect",
    "detach": "docker network connect",
    "unpause": "docker pause",
    "start": "docker stop",
    "recreate": "the files and images before are kept; a rollback puts them back",
    "up": "docker compose rm --stop",
}


def effective(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A service's section with the definitions of the configs and secrets that it uses."""
    body = dict((config.get("services") or {}).get(name) or {})
    for section in ("configs", "secrets"):
        used = {}
        for item in body.get(section) or ():
            key = item.get("source", "")
            used[key] = {**item, "definition": (config.get(section) or {}).get(key)}
        if used:
            body[section] = used
    return body


def _told_differences(
    body: Mapping[str, Any], shape: Mapping[str, Any]
) -> list[tuple[str, Any, Any]]:
    """Where a container is certainly not what a declaration says: (path, wanted, has).

    What the declaration leaves to the image, or says in words of its own, is Compose's to compare.
    """
    deploy = body.get("deploy") or {}
    limits = (deploy.get("resources") or {}).get("limits") or {}
    wanted: dict[str, Any] = {
        "mem_limit": int(body.get("mem_limit") or limits.get("memory") or 0),
        "cpus": float(body.get("cpus") or limits.get("cpus") or 0),
        "pids_limit": int(body.get("pids_limit") or limits.get("pids") or 0),
        "ports": sorted(_port(port) for port in body.get("ports") or ()),
    }
    has = {key: shape.get(key) or type(value)() for key, value in wanted.items()}
    if "restart_policy" not in deploy:
        wanted["restart"] = body.get("restart") or "no"
        has["restart"] = shape.get("restart", "no")
    for key in ("command", "entrypoint"):
        if body.get(key):
            wanted[key], has[key] = body[key], shape.get(key)
    for key in ("environment", "labels"):
        told = {name: str(value) for name, value in (body.get(key) or {}).items() if value}
        wanted[key] = told
        has[key] = {name: (shape.get(key) or {}).get(name) for name in told}
    return list(drift.differences(wanted, has))


def _port(port: Mapping[str, Any]) -> str:
    """A declared port as the engine shows it."""
    # An empty address is the engine's way to say every one.
    address = port.get("host_ip") or "0.0.0.0"  # noqa: S104
    published, target = port.get("published") or "", port.get("target")
    return f"{address}:{published}->{target}/{port.get('protocol') or 'tcp'}"


def levels(services: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """The services in rounds: each needs only those of earlier rounds."""
    left = {
        name: {needed for needed in (body.get("depends_on") or {}) if needed in services}
        for name, body in services.items()
    }
    for name, body in services.items():
        for key in ("network_mode", "pid", "ipc"):
            target = str(body.get(key) or "")
            if target.startswith("service:") and target[8:] in services:
                left[name].add(target[8:])
    rounds: list[list[str]] = []
    while left:
        # Compose refuses circles; should one come, its services go together.
        ready = sorted(name for name, needs in left.items() if not needs & set(left)) or sorted(
            left
        )
        rounds.append(ready)
        for name in ready:
            del left[name]
    return rounds


def mounts(config: Mapping[str, Any]) -> list[str]:
    """Every path that any service mounts from the host."""
    return sorted(
        {path for name in config.get("services") or {} for path in _sources(config, name)}
    )


def expected(
    before: Applied | None,
    spec: ComposeSpec,
    files: Mapping[str, str],
    digest: str,
    declared: Declared,
    state: StackState,
    touched: Collection[str],
) -> Applied:
    """The record that a successful apply leaves.

    A service that this run made anew is described by what runs now; one that it left alone keeps
    the description that was proven before, so that drift during a run is not written down as right.
    """
    services: dict[str, AppliedService] = {}
    for name in declared.services:
        known = before.services.get(name) if before else None
        containers = state.service(name)
        if known and name not in touched:
            services[name] = known
        elif containers:
            one = containers[0]
            services[name] = AppliedService(image=one.image, image_id=one.image_id, shape=one.shape)
    return Applied(
        project=spec.project,
        directory=spec.directory,
        profiles=spec.profiles,
        source=digest,
        files=dict(files),
        config=declared.config,
        outside={path: found for path, found in declared.outside.items() if found},
        services=services,
        secrets=tuple(sorted(spec.secrets())),
        applied_at=state.now,
    )


class Verdict(_Frozen):
    """How far a stack is on its way to health: settled, still coming, or failed for certain."""

    waiting: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()


def judge(services: Mapping[str, Mapping[str, Any]], state: StackState) -> Verdict:
    """Whether every service is well now, may still become so, or will not."""
    waiting, failed = [], []
    for name, body in services.items():
        containers = state.service(name)
        if len(containers) < _scale(body):
            waiting.append(f"{name}: no container yet")
        for one in containers:
            if _loops(one, state.now):
                failed.append(
                    f"{name}: restarted {one.restart_count} times, exit code "
                    f"{one.exit_code}{_oom(one)}"
                )
            elif one.status == "restarting":
                waiting.append(f"{name}: restarting, exit code {one.exit_code}{_oom(one)}")
            elif _completed(one):
                continue
            elif one.status in ("exited", "dead"):
                failed.append(f"{name}: exited with code {one.exit_code}{_oom(one)}")
            elif one.status == "created":
                (failed if one.error else waiting).append(
                    f"{name}: {one.error or 'not started yet'}"
                )
            elif one.status == "paused":
                failed.append(f"{name}: paused")
            elif one.health in ("starting", "unhealthy"):
                # One unhealthy moment must not fail a run: it has until the time-out.
                waiting.append(
                    f"{name}: {one.health}"
                    + (f": {' '.join(one.health_output.split())}" if one.health_output else "")
                )
    return Verdict(waiting=tuple(waiting), failed=tuple(failed))


def unstable(before: StackState, after: StackState) -> tuple[str, ...]:
    """What did not stay as it was through the stability window."""
    problems = []
    earlier = {one.id: one for one in before.containers}
    for one in after.containers:
        was = earlier.get(one.id)
        if was is None or one.oneoff:
            continue
        if one.restart_count > was.restart_count or one.started_at != was.started_at:
            problems.append(
                f"{one.service}: restarted within the stability window, exit code "
                f"{one.exit_code}{_oom(one)}"
            )
        elif one.status != was.status and not _completed(one):
            problems.append(
                f"{one.service}: {was.status} → {one.status} within the stability window"
            )
    return tuple(problems)


def _sources(config: Mapping[str, Any], name: str) -> list[str]:
    """The paths on the host that a service sees: bind mounts, and the files of configs, secrets."""
    body = (config.get("services") or {}).get(name) or {}
    paths = [
        str(mount["source"])
        for mount in body.get("volumes") or ()
        if mount.get("type") == "bind" and mount.get("source")
    ]
    for section in ("configs", "secrets"):
        for item in body.get(section) or ():
            definition = (config.get(section) or {}).get(item.get("source", "")) or {}
            if definition.get("file"):
                paths.append(str(definition["file"]))
    return paths


def _names(project: str, name: str, body: Mapping[str, Any]) -> list[str]:
    if body.get("container_name"):
        return [str(body["container_name"])]
    return [f"{project}-{name}-{number}" for number in range(1, _scale(body) + 1)]


def _is_published(port: str, published: Collection[str]) -> bool:
    """Whether the engine publishes a port; out of a range, or none given, it chose one itself."""
    if port in published:
        return True
    bound, _, target = port.partition("->")
    address, _, number = bound.rpartition(":")
    first, _, last = (number or "0").partition("-")
    wanted = range(int(first), int(last or first) + 1)
    for other in published:
        bound, _, found = other.partition("->")
        host, _, number = bound.rpartition(":")
        if (host, found) == (address, target) and (
            wanted == range(1) or (number.isdigit() and int(number) in wanted)
        ):
            return True
    return False


def _scale(body: Mapping[str, Any]) -> int:
    replicas = (body.get("deploy") or {}).get("replicas")
    scale = body.get("scale") if replicas is None else replicas
    return 1 if scale is None else int(scale)


def _loops(container: Container, now: float) -> bool:
    """Whether the engine restarts it again and again; its restarts of long ago do not count."""
    return (
        container.restart_count >= LOOP_RESTARTS
        and container.health != "healthy"
        and (container.status == "restarting" or now - container.started_at < LOOP_SECONDS)
    )


def _completed(container: Container) -> bool:
    """Whether it did what it was started for, and ended; what serves is never done."""
    return (
        container.status == "exited"
        and container.exit_code == 0
        and container.restart in ("no", "on-failure")
        and not container.shape.get("healthcheck")
        and not container.shape.get("ports")
    )


def _oom(container: Container) -> str:
    return ", killed for want of memory" if container.oom_killed else ""


def _short(image_id: str) -> str:
    return image_id.removeprefix("sha256:")[:12]


def _line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 200 else line[:199] + "…"


def _few(items: Sequence[str]) -> list[str]:
    """A few of many, and how many more."""
    more = [f"and {len(items) - 6} more"] if len(items) > 6 else []
    return [*items[:6], *more]


def _some(items: Iterable[str], between: str = "; ") -> str:
    return between.join(_few(list(items)))
