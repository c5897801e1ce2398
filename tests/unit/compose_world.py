"""A Compose host as a pure model: what each action of a plan does, without an engine.

It holds what the probe would show and changes as Docker and Compose would change it, so that plans
can be carried out thousands of times a minute. That real hosts behave so is proven in the lab.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stackmend import decision
from stackmend.checks.state import CheckResult
from stackmend.compose.plan.actions import (
    Action,
    Attach,
    Build,
    Detach,
    Disconnect,
    InstallFiles,
    Plan,
    Pull,
    Record,
    Recreate,
    Remove,
    RemoveLeftover,
    RemoveNetwork,
    Rename,
    Repair,
    Restart,
    Resume,
    SetAside,
    SetPolicy,
    Start,
    Unpause,
    Up,
)
from stackmend.compose.plan.decide import plan
from stackmend.compose.plan.declaration import AROUND, sort_into_levels
from stackmend.compose.plan.foreign import find_obstructions, sort_out
from stackmend.compose.plan.gates import is_declaration_needed
from stackmend.compose.plan.links import (
    Links,
    Listeners,
    add_results,
    classify_links,
    describe_others,
)
from stackmend.compose.plan.order import Progress
from stackmend.compose.plan.record import make_record, read_declaration
from stackmend.compose.spec import ComposeSpec
from stackmend.compose.state import (
    Applied,
    Checkout,
    Container,
    Declared,
    Endpoint,
    Engine,
    Image,
    Labelled,
    Mended,
    Resolver,
    StackState,
    Surroundings,
)
from stackmend.provenance import LABEL, TEMPORARY_NAME, is_chosen_by_compose
from tests.unit import rendering

PROJECT, DIRECTORY = "shop", "/opt/shop"
NOW = 1_800_000_000.0


def digest_of(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def compose(
    services: Mapping[str, Mapping[str, Any]],
    *,
    networks: Mapping[str, Any] | None = None,
    volumes: Mapping[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A project as ``docker compose config`` prints it: nothing left to be guessed."""
    bodies: dict[str, Any] = {}
    for name, given in services.items():
        body = {"image": "lab/box:1", **given}
        if "build" in body and "image" not in given:
            del body["image"]
        if "network_mode" not in body:
            body.setdefault("networks", {"default": None})
        bodies[name] = body
    config: dict[str, Any] = {"name": PROJECT, "services": bodies, **more}
    defined = {"default": {}, **(networks or {})}
    config["networks"] = {
        key: {"name": f"{PROJECT}_{key}", "ipam": {}, **(value or {})}
        for key, value in defined.items()
    }
    if volumes:
        config["volumes"] = {
            key: {"name": f"{PROJECT}_{key}", **(value or {})} for key, value in volumes.items()
        }
    return config


@dataclass
class Desired:
    """What the user wants: settings, files, and what Compose makes of them."""

    config: dict[str, Any]
    files: dict[str, str] = field(default_factory=lambda: {"compose.yaml": "1"})
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def spec(self) -> ComposeSpec:
        return ComposeSpec.model_validate(
            {
                "project": PROJECT,
                "source": "shop",
                "directory": DIRECTORY,
                **self.settings,
            }
        )

    @property
    def digest(self) -> str:
        return digest_of([self.files, self.config])

    @property
    def services(self) -> Mapping[str, Mapping[str, Any]]:
        services: Mapping[str, Mapping[str, Any]] = self.config["services"]
        return services

    def ref(self, name: str) -> str:
        return str(self.services[name].get("image") or f"{PROJECT}-{name}")


def scale(body: Mapping[str, Any]) -> int:
    replicas = (body.get("deploy") or {}).get("replicas")
    return int(body.get("scale", 1) if replicas is None else replicas)


def composed(
    service: str, number: int, config_hash: str, image_id: str, directory: str
) -> dict[str, str]:
    """The labels that Compose gives a container."""
    return {
        LABEL + "project": PROJECT,
        LABEL + "service": service,
        LABEL + "container-number": str(number),
        LABEL + "config-hash": config_hash,
        LABEL + "oneoff": "False",
        LABEL + "image": image_id,
        LABEL + "project.working_dir": directory,
        LABEL + "project.config_files": f"{directory}/compose.yaml",
    }


def labelled(one: Container, **changes: str) -> dict[str, dict[str, str]]:
    """What to change in a container so that labels of Compose's have other values."""
    new = {LABEL + name.replace("__", "."): value for name, value in changes.items()}
    return {"labels": {**one.labels, **new}}


def completes(body: Mapping[str, Any]) -> bool:
    return bool(body.get("x-completes"))


class World:
    """One host: its containers, networks, images, files, and what stackmend remembers there."""

    def __init__(self, images: Iterable[str] = ("lab/box:1", "lab/box:2", "lab/redis:7")) -> None:
        self.now = NOW
        self.engine = Engine(status="up")
        self.writable = True
        self.images = {ref: f"sha256:{digest_of(ref)}" for ref in images}
        self.networks: dict[str, str] = {}
        self.containers: dict[str, Container] = {}
        self.neighbours: dict[str, Container] = {}
        #: Containers that bear our labels and that Compose did not make.
        self.impostors: dict[str, Container] = {}
        self.files: dict[str, str] = {}
        self.outside: dict[str, str] = {}
        self.applied: Applied | None = None
        self.applied_problem = ""
        self.mends: list[Mended] = []
        self.stale: set[str] = set()
        self.staged = False
        self.sharing: tuple[str, ...] = ()
        self.resolver: Resolver | None = None
        #: How the engine shows networks, what volumes images make and whether they bring a
        #: healthcheck: looked at by few tests.
        self.network_shapes: dict[str, dict[str, Any]] = {}
        self.image_volumes: dict[str, tuple[str, ...]] = {}
        self.image_healthchecks: dict[str, bool] = {}
        #: Whose networks, volumes and images are by their labels, where a test says so.
        self.network_labels: dict[str, Labelled] = {}
        self.volume_labels: dict[str, Labelled] = {}
        #: What the engine shows of volumes, what Compose warns of, and what new things must fit in.
        self.volume_shapes: dict[str, dict[str, Any]] = {}
        self.warnings: tuple[str, ...] = ()
        #: What would steer others: of the environment, and by name in the project's directory.
        self.ignored: tuple[str, ...] = ()
        self.defaults: tuple[str, ...] = ()
        self.surroundings: Surroundings | None = None
        self.built_for: dict[str, tuple[str, str]] = {}
        self.made = 0
        #: What has been done, in order: (verb, service or thing, container).
        self.done: list[tuple[str, str]] = []

    # What the probe shows

    def state(self) -> StackState:
        if self.engine.status != "up":
            return StackState(now=self.now, engine=self.engine, applied=self.applied)
        every = [
            *self.containers.values(),
            *self.neighbours.values(),
            *self.impostors.values(),
        ]
        ours = {one.id: one for one in self.containers.values()}
        known = (
            {service.image for service in self.applied.services.values()} if self.applied else ()
        )
        return StackState(
            now=self.now,
            writable=self.writable,
            engine=self.engine,
            containers=(
                *(self._named(one, ours) for one in self.containers.values()),
                *self.impostors.values(),
            ),
            neighbours=tuple(self.neighbours.values()),
            names={one.name: one.project or "" for one in every},
            elsewhere=tuple(
                name
                for one in self.neighbours.values()
                for name in (one.name, one.service or one.name)
            ),
            networks=dict(self.networks),
            network_labels=dict(self.network_labels),
            volume_labels=dict(self.volume_labels),
            ignored=self.ignored,
            defaults=self.defaults,
            images={ref: Image(id=id_) for ref, id_ in self.images.items() if ref in known},
            applied=self.applied,
            applied_problem=self.applied_problem,
            files={path: self.files.get(path) for path in self.applied.files}
            if self.applied
            else {},
            outside={path: self.outside.get(path) for path in self.applied.outside}
            if self.applied
            else {},
            mends=tuple(self.mends),
            sharing=self.sharing,
            resolver=self.resolver,
            stale=tuple(sorted(self.stale)),
            staged=self.staged,
        )

    @staticmethod
    def _named(one: Container, ours: Mapping[str, Container]) -> Container:
        shape = dict(one.shape)
        for key, id_ in one.borrows.items():
            shape[key] = f"service:{ours[id_].service}" if id_ in ours else f"container:{id_[:12]}"
        return one.model_copy(update={"shape": shape})

    def declared(self, desired: Desired) -> Declared:
        differs = tuple(
            path for path, digest in desired.files.items() if self.files.get(path) != digest
        )
        refs = {desired.ref(name) for name in desired.services}
        outside = {
            mount["source"]: self.outside[mount["source"]]
            for body in desired.services.values()
            for mount in body.get("volumes") or ()
            if mount.get("source") in self.outside
        }
        return Declared(
            config=desired.config,
            hashes={}
            if differs
            else {name: self._hash(body) for name, body in desired.services.items()},
            images={
                ref: Image(
                    id=id_,
                    volumes=self.image_volumes.get(ref),
                    built_for=self.built_for.get(ref),
                    healthcheck=self.image_healthchecks.get(ref),
                )
                for ref, id_ in self.images.items()
                if ref in refs
            },
            networks=self.network_shapes,
            volumes=self.volume_shapes,
            warnings=self.warnings,
            surroundings=self.surroundings,
            outside=outside,
            differs=differs,
        )

    def observe(
        self,
        desired: Desired,
        checks: Sequence[CheckResult] = (),
        tried: Iterable[str] = (),
        hops: Sequence[CheckResult] = (),
        checkout: Checkout | None = None,
    ) -> Plan:
        """The plan for this host as it is now."""
        state = self.state()
        declared = (
            self.declared(desired)
            if is_declaration_needed(desired.spec, desired.digest, state)
            else None
        )
        return plan(
            desired.spec,
            desired.files,
            desired.digest,
            state,
            declared,
            checks,
            tuple(tried),
            hops=hops,
            checkout=checkout,
        )

    # What actions do

    def execute(self, decided: Plan, desired: Desired) -> None:
        """Do what the plan says, in the order in which it is executed."""
        state = self.state()
        declared = (
            self.declared(desired)
            if is_declaration_needed(desired.spec, desired.digest, state)
            else read_declaration(self._record(), state)
        )
        progress = Progress()
        for action in decided.actions:
            progress = progress.advance(action)
            self.done.append((action.verb, action.subject))
            match action:
                case Pull(subject=name) | Build(subject=name):
                    body = desired.services[name]
                    what = [body["build"], desired.files] if "build" in body else "pulled"
                    ref = desired.ref(name)
                    self.images[ref] = f"sha256:{digest_of([ref, what])}"
                case InstallFiles():
                    self.files.update(desired.files)
                    for path in action.removed:
                        del self.files[path]
                case SetAside():
                    one = self._pop(action.container)
                    aside = f"{one.name}-set-aside"
                    assert aside not in self.neighbours, "docker rename: the name is taken"
                    self.neighbours[aside] = one.model_copy(
                        update={"name": aside, "status": "exited", "endpoints": {}}
                    )
                case Disconnect():
                    one = self.neighbours[action.container]
                    endpoints = dict(one.endpoints)
                    del endpoints[action.network]
                    self.neighbours[one.name] = one.model_copy(update={"endpoints": endpoints})
                case RemoveNetwork():
                    for one in list(self.containers.values()):
                        self._detach(one, action.subject, forced=True)
                    del self.networks[action.subject]
                case Remove() | RemoveLeftover():
                    del self.containers[action.container]
                case Rename():
                    self.rename(action.container, action.name)
                case Record():
                    self.staged = False
                    self.applied = make_record(
                        self.applied,
                        desired.spec,
                        desired.files,
                        desired.digest,
                        declared,
                        self.state(),
                        progress.touched,
                    )
                case _:
                    self._act(action, desired)

    def _record(self) -> Applied:
        assert self.applied is not None
        return self.applied

    def _act(self, action: Action, desired: Desired) -> None:
        name, body = action.subject, desired.services[action.subject]
        if getattr(action, "mend", False):
            self.mends.append(Mended(at=self.now, service=name, action=action.verb))
        match action:
            case Recreate() | Up():
                self.up(desired, name, recreate=isinstance(action, Recreate))
            case Attach():
                one = self._detach(self.containers[action.container], action.network)
                self._attach(one, action.network, action.address, action.aliases)
            case Detach():
                one = self.containers[action.container]
                assert action.network in one.endpoints, "docker: is not connected"
                self._detach(one, action.network)
            case Unpause():
                one = self.containers[action.container]
                assert one.status == "paused", f"docker: {one.name} is not paused"
                self._set(one, status="running")
            case Resume():
                one = self.containers[action.container]
                assert one.running, f"docker: {one.name} is not running"
                self._set(one, process="S")
            case SetPolicy(container=id_, policy=policy):
                one = self.containers[id_]
                name_, _, _ = policy.partition(":")
                self._set(one, restart=name_, shape={**one.shape, "restart": policy})
            case Start() | Restart() | Repair():
                self._run(self.containers[action.container], body)
            case _:
                raise AssertionError(f"{action.verb} is not done to a service")

    def up(self, desired: Desired, name: str, *, recreate: bool = False) -> None:
        """``docker compose up --detach --no-deps [--force-recreate] NAME``."""
        body = desired.services[name]
        ref = desired.ref(name)
        assert ref in self.images or not scale(body), f"no such image: {ref}"
        state = sort_out(self.state(), PROJECT, desired.config)
        assert not find_obstructions(desired.services, state, [name]), "docker compose would end it"
        have = self._of(name)
        assert not any(one.replaces for one in have), "docker: the name is already in use"
        for one in have[scale(body) :]:
            del self.containers[one.id]
        for one in have[: scale(body)]:
            stale = (
                recreate
                or one.config_hash != self._hash(body)
                or one.image_id != self.images[ref]
                or one.status in ("dead", "removing")
                or any(
                    self.networks.get(network) != endpoint.network_id
                    for network, endpoint in one.endpoints.items()
                )
            )
            if stale:
                del self.containers[one.id]
                self.create(desired, name, one.number)
            elif one.status in ("created", "exited"):
                self._run(one, body)
            elif one.health == "starting":
                self._set(one, health="healthy")
        taken = {one.number for one in self._of(name)}
        free = [number for number in range(1, scale(body) + 1) if number not in taken]
        for number in free[: scale(body) - len(taken)]:
            self.create(desired, name, number)
        self.stale.discard(name)

    def create(self, desired: Desired, name: str, number: int = 1) -> Container:
        """Make and start one container as its service is declared."""
        body, config = desired.services[name], desired.config
        container_name = body.get("container_name") or f"{PROJECT}-{name}-{number}"
        others = (*self.neighbours.values(), *self.impostors.values())
        taken = {one.name for one in (*self.containers.values(), *others)}
        assert container_name not in taken, f"docker: the name {container_name} is in use"
        self.made += 1
        id_ = f"{self.made:064x}"
        borrows = {}
        for key in ("network_mode", "pid", "ipc"):
            target = str(body.get(key) or "")
            if target.startswith("service:"):
                borrows[key] = self._of(target[8:])[0].id
        ports = sorted(
            f"{port.get('host_ip', '0.0.0.0')}:{port['published']}->{port['target']}/tcp"
            for port in body.get("ports") or ()
        )
        volumes = {key: one["name"] for key, one in (config.get("volumes") or {}).items()}
        shape: dict[str, Any] = {
            "environment": dict(body.get("environment") or {}),
            "labels": {"com.docker.compose.service": name, **(body.get("labels") or {})},
            "restart": body.get("restart", "no"),
            "command": body.get("command"),
            "healthcheck": {
                key.capitalize(): value for key, value in (body.get("healthcheck") or {}).items()
            },
            "ports": ports,
            "volumes": {
                mount["target"]: {
                    "type": mount["type"],
                    "source": volumes.get(mount.get("source"), mount.get("source", "(anonymous)")),
                    "read_only": bool(mount.get("read_only")),
                }
                for mount in body.get("volumes") or ()
            },
        }
        one = Container(
            id=id_,
            name=container_name,
            project=PROJECT,
            service=name,
            number=number,
            working_dir=DIRECTORY,
            config_hash=self._hash(body),
            status="created",
            restart=body.get("restart", "no"),
            image=desired.ref(name),
            image_id=self.images[desired.ref(name)],
            labels=composed(
                name, number, self._hash(body), self.images[desired.ref(name)], DIRECTORY
            ),
            image_labels={},
            published=tuple(ports),
            borrows=borrows,
            shape={key: value for key, value in shape.items() if value not in (None, [], {}, "")},
        )
        self.containers[id_] = one
        for key, settings in (body.get("networks") or {}).items():
            network = config["networks"][key]["name"]
            self.networks.setdefault(network, f"net-{self.made}-{network}")
            aliases = [name, container_name, *((settings or {}).get("aliases") or ())]
            one = self._attach(one, network, (settings or {}).get("ipv4_address", ""), aliases)
        return self._run(one, body)

    def rename(self, id_: str, name: str) -> Container:
        """``docker rename``: its own name leads to a container whatever its aliases are."""
        everyone = (*self.containers.values(), *self.neighbours.values(), *self.impostors.values())
        assert name not in {one.name for one in everyone}, f"docker: the name {name} is in use"
        one = self.containers[id_]
        shape = dict(one.shape)
        shape["networks"] = {
            key: {
                **place,
                "aliases": sorted(alias for alias in one.endpoints[key].aliases if alias != name),
            }
            for key, place in shape.get("networks", {}).items()
        }
        temporary = TEMPORARY_NAME.match(name) is not None
        return self._set(one, name=name, replaces=temporary, shape=shape)

    def _of(self, name: str) -> list[Container]:
        return sorted(
            (one for one in self.containers.values() if one.service == name and not one.oneoff),
            key=lambda one: one.number,
        )

    def _hash(self, body: Mapping[str, Any]) -> str:
        hashed = {key: value for key, value in body.items() if key not in AROUND}
        for key in ("network_mode", "pid", "ipc"):
            target = str(hashed.get(key) or "")
            if target.startswith("service:"):
                others = self._of(target[8:])
                hashed[key] = f"container:{others[0].id if others else ''}"
        return digest_of(hashed)

    def _attach(
        self, one: Container, network: str, address: str, aliases: Iterable[str]
    ) -> Container:
        assert network in self.networks, f"docker: network {network} not found"
        every = tuple(dict.fromkeys(aliases))
        endpoint = Endpoint(
            network_id=self.networks[network], address=address or "10.0.0.9", aliases=every
        )
        shape = dict(one.shape)
        shape["networks"] = {
            **shape.get("networks", {}),
            network: {"aliases": sorted({*every} - {one.name}), "address": address},
        }
        return self._set(one, endpoints={**one.endpoints, network: endpoint}, shape=shape)

    def _detach(self, one: Container, network: str, *, forced: bool = False) -> Container:
        if network not in one.endpoints:
            return one
        endpoints = {key: value for key, value in one.endpoints.items() if key != network}
        shape = dict(one.shape)
        shape["networks"] = {
            key: value for key, value in shape["networks"].items() if key != network
        }
        if not shape["networks"]:
            del shape["networks"]
        return self._set(one, endpoints=endpoints, shape=shape)

    def _run(self, one: Container, body: Mapping[str, Any]) -> Container:
        if completes(body):
            return self._set(one, status="exited", exit_code=0, error="", process=None, health=None)
        return self._set(
            one,
            status="running",
            exit_code=0,
            error="",
            oom_killed=False,
            restart_count=0,
            started_at=self.now,
            process="S",
            health="healthy" if "healthcheck" in body else None,
            health_output="",
            health_failures=(),
            log=(),
            replaced={},
        )

    def _set(self, one: Container, **changes: Any) -> Container:
        changed = one.model_copy(update=changes)
        self.containers[one.id] = changed
        return changed

    # What happens to a host

    def damage(self, name: str, number: int = 1, **changes: Any) -> Container:
        """Something happened to a service's container."""
        one = next(one for one in self._of(name) if one.number == number)
        return self._set(one, **changes)

    def lose(self, name: str) -> None:
        """Someone removed a service's containers."""
        for one in self._of(name):
            del self.containers[one.id]

    def detach(self, name: str, network: str = f"{PROJECT}_default") -> None:
        """Someone took a service's containers off a network."""
        for one in self._of(name):
            self._detach(one, network)

    def neighbour(self, name: str, project: str | None = None, **changes: Any) -> Container:
        """A container that is not ours."""
        self.made += 1
        self.neighbours[name] = Container(
            id=f"{self.made:064x}",
            name=name,
            project=project,
            status="running",
            image="other",
            image_id="sha256:0",
            **changes,
        )
        return self.neighbours[name]

    @property
    def obstructs(self) -> bool:
        """Whether Compose would take a foreign container for one of ours."""
        return any(is_chosen_by_compose(one.origin) for one in self.impostors.values())

    def impostor(
        self,
        name: str,
        service: str,
        *,
        given: Iterable[str] = (),
        image_labels: Mapping[str, str] | None = {},
        **labels: str,
    ) -> Container:
        """A container that bears the labels of a service's, out of a committed image.

        + given: the only labels, where somebody has given these by hand
        + image_labels: ``None``: the image is gone
        + labels: labels of Compose's with other values, ``__`` for a dot
        """
        self.made += 1
        whole = composed(service, 1, "c" * 64, "sha256:original", DIRECTORY)
        whole |= {LABEL + key.replace("__", "."): value for key, value in labels.items()}
        own = {LABEL + key: whole[LABEL + key] for key in given} or whole
        asked = None if image_labels is None else {} if given else whole
        self.impostors[name] = Container(
            id=f"{self.made:064x}",
            name=name,
            project=PROJECT,
            service=service,
            status="running",
            image="snap:1",
            image_id="sha256:snap",
            labels=own,
            image_labels=asked,
        )
        return self.impostors[name]

    def _pop(self, name: str) -> Container:
        return (self.impostors if name in self.impostors else self.neighbours).pop(name)


def by_hand(desired: Desired, world: World | None = None) -> World:
    """A host where someone ran ``docker compose up`` on the desired files."""
    world = world or World()
    for name in desired.services:
        world.images.setdefault(desired.ref(name), f"sha256:{digest_of(desired.ref(name))}")
    world.files.update(desired.files)
    for names in sort_into_levels(desired.services):
        for name in names:
            world.up(desired, name)
    return world


def well(desired: Desired, world: World | None = None) -> World:
    """A host where the desired stack was applied, and proven well."""
    return proven(desired, by_hand(desired, world))


def proven(desired: Desired, world: World) -> World:
    """What runs on the host is what was proven well."""
    world.applied = make_record(
        None,
        desired.spec,
        desired.files,
        desired.digest,
        world.declared(desired),
        world.state(),
        set(desired.services),
    )
    return world


def classify_asked(
    desired: Desired,
    declared: Declared,
    state: StackState,
    results: Mapping[str, CheckResult] | None = None,
    listeners: Listeners | None = None,
    files: Mapping[str, bytes] | None = None,
) -> Links:
    """What links are once they were asked for, as a run does it."""
    known = desired.spec, files or {}, declared
    links = classify_links(*known, describe_others(state))
    return add_results(*known, links, state, results or {}, listeners or {})


def converge(world: World, desired: Desired, rounds: int = 2) -> list[Plan]:
    """Plan and carry out until nothing is left to do; fails where that takes more rounds."""
    plans = []
    for _ in range(rounds):
        decided = world.observe(desired)
        if decided.empty:
            return plans
        plans.append(decided)
        assert not decided.refusals, render(decided)
        world.execute(decided, desired)
    left = world.observe(desired)
    assert left.empty, "\n---\n".join(map(render, [*plans, left]))
    return plans


def render(decided: Plan) -> str:
    """A plan as text, with all that it carries."""
    return rendering.render(decided, carries)


def carries(action: Action) -> Iterator[str]:
    """What an action has beyond what every action has, a line each."""
    shared = {*decision.Action.model_fields, "mend"}
    for name, value in action:
        if name in shared or value in ("", (), None):
            continue
        if name == "container":
            value = value.lstrip("0")
        elif isinstance(value, tuple):
            value = " ".join(map(str, value))
        yield f"{name} {value}"
