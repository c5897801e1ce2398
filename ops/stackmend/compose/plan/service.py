"""The decision about one service: why it is not as declared, or not well, and the remedy."""

from collections.abc import Mapping
from typing import Any

from stackmend.compose import drift
from stackmend.compose.plan.declaration import (
    AROUND,
    REPLICAS,
    effective,
    is_published,
    scale,
    sources,
    told_differences,
)
from stackmend.compose.plan.health import completed, loops, oom
from stackmend.compose.plan.model import Kind, Verb
from stackmend.compose.plan.notes import Notes
from stackmend.compose.plan.words import line, short, some
from stackmend.compose.state import Container

#: A remedy, the kind of finding it answers, its cause, and what the step needs to know.
Cause = tuple[Verb, Kind, str, tuple[str, ...]]


class Services(Notes):
    """Decides service by service."""

    def _service(self, name: str) -> None:
        body = self.services[name]
        containers = self.state.service(name)
        wanted = scale(body)
        regular = [one for one in containers if not one.replaces]
        if not regular and wanted:
            self._do(name, "up", "missing", "it has no container")
        if not regular:
            return
        if len(containers) != len(regular) or len(regular) != wanted:
            kind: Kind = "leftover" if len(containers) != len(regular) else "scale"
            self._do(
                name,
                "up",
                kind,
                "an interrupted recreation left a second container"
                if kind == "leftover"
                else f"{len(regular)} containers where {wanted} should be",
            )
        if causes := self._declaration_causes(name, body):
            for kind, text in causes:
                self._find(name, kind, text)
            adopted = all(kind == "adopted" for kind, _ in causes)
            self._step(name, "up" if adopted else "recreate", some([text for _, text in causes]))
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
                if before and now != before and path in sources(self.declared.config, name):
                    causes.append(("content", f"{path} on the host changed, which it mounts"))
        for path in self._mounted(name):
            causes.append(("content", f"{path} changed, which it mounts"))
        if name in self.state.stale:
            cause = "an apply was cut short before it was made anew from the files in place"
            causes.append(("leftover", cause))
        ref = self._ref(name)
        image = self.declared.images.get(ref)
        for container in containers:
            if image and container.image_id != image.id:
                causes.append(
                    ("image", f"image {ref}: {short(container.image_id)} → {short(image.id)}")
                )
                break
        return causes

    def _mounted(self, name: str) -> list[str]:
        """Changed project files that the service's containers see through a mount."""
        mounted = [
            inside
            for source in sources(self.declared.config, name)
            if (inside := self._inside(source)) is not None
        ]
        return [
            path
            for path in self._changed_files()
            if any(
                source == "" or path == source or path.startswith(source + "/")
                for source in mounted
            )
        ]

    def _container(self, name: str, container: Container) -> None:
        for verb, kind, text, names in self._shape_causes(name, container):
            self._do(name, verb, kind, text, container, names)
        self._life(name, container)

    def _shape_causes(self, name: str, container: Container) -> list[Cause]:
        """How the container differs from the one that was proven well."""
        causes: list[Cause] = []
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
                if not is_published(port, container.published)
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
    ) -> list[Cause]:
        causes: list[Cause] = []
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

    def _adopted_causes(self, name: str, container: Container) -> list[Cause]:
        """What can change in a living container, held against the declaration itself."""
        body = self.services[name]
        causes: list[Cause] = []
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
            for path, wanted, has in told_differences(body, container.shape)
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
        elif status == "restarting" or loops(container, self.state.now):
            self._mend(
                name,
                "recreate",
                "restart loop",
                f"it restarts again and again ({container.restart_count} times, last exit code "
                f"{container.exit_code}{oom(container)})",
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
                "its healthcheck fails" + (f": {line(output)}" if output else ""),
                container,
            )
        elif container.health == "starting" and name in self.tried:
            cause = "its healthcheck has not passed since it was mended"
            self._mend(name, "recreate", "starting", cause, container)
        elif container.health == "starting":
            self._find(name, "starting", "its healthcheck has not passed yet", blocks=True)
            self._step(name, "up", "it is still starting and is waited for")

    def _exited(self, name: str, container: Container) -> None:
        if completed(container):
            return
        how = f"it exited with code {container.exit_code}{oom(container)}"
        kind: Kind = "stopped" if container.exit_code in (0, 143) else "exited"
        if container.restart in ("no", "on-failure"):
            self._mend(name, "start", kind, how, container)
            return
        # The engine restarts what crashes under the other policies: someone stopped it.
        self._do(name, "start", kind, f"{how} and was not restarted", container)
