"""The decision about what services are made of: files, images, networks, volumes."""

import posixpath
from collections.abc import Mapping
from typing import Any

from stackmend.compose import drift
from stackmend.compose.modes import find_mode
from stackmend.compose.plan.actions import (
    Attach,
    Build,
    InstallFiles,
    Pull,
    Recreate,
    RemoveNetwork,
    Tag,
    Up,
)
from stackmend.compose.plan.declaration import count_replicas, find_network_differences
from stackmend.compose.plan.draft import Draft
from stackmend.compose.plan.foreign import (
    disconnect_guests,
    explain_foreign,
    explain_foreign_image,
    keep_out,
)
from stackmend.compose.plan.format import explain_obstacle, join_few, list_few, shorten
from stackmend.compose.state import LINKS_FILE, OUR_FILES
from stackmend.paths import STATE_ROOT, is_inside


def check_volumes(draft: Draft) -> None:
    """Refuse to change a volume: it would have to be recreated, and its data lost."""
    new = draft.declared.config.get("volumes") or {}
    for key, settings in sorted(new.items()):
        name = str((settings or {}).get("name") or f"{draft.spec.project}_{key}")
        has = draft.declared.volumes.get(name)
        if has is not None and not (settings or {}).get("external"):
            for path, was, desired in drift.find_differences(
                _describe(has), _describe(settings or {})
            ):
                _refuse_other_volume(draft, key, path, was, desired)
    if not draft.applied:
        return
    old = draft.applied.config.get("volumes") or {}
    for key in sorted(set(old) & set(new)):
        for path, was, desired in drift.find_differences(old[key] or {}, new[key] or {}):
            if path == "name":
                _plan_moved_volume(draft, key, str(was), str(desired))
                continue
            asked = str((new[key] or {}).get("name")) in draft.declared.volumes
            if path == "external" or (asked and path.startswith("driver")):
                continue
            _refuse_other_volume(draft, key, path, was, desired)


def _describe(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A declared volume as the engine shows it."""
    options = {key: str(value) for key, value in (settings.get("driver_opts") or {}).items()}
    # The engine shows a plugin with its tag.
    driver = str(settings.get("driver") or "local").removesuffix(":latest")
    return {"driver": driver, "driver_opts": options}


def _refuse_other_volume(draft: Draft, key: str, path: str, was: Any, desired: Any) -> None:
    draft.refuse(
        f"volume {key}",
        drift.format_change(f"volumes.{key}.{path}", was, desired, draft.secrets),
        "declare the new one under another name and copy the data: a volume cannot "
        "change without being emptied, and stackmend never removes one",
    )


def report_left_volumes(draft: Draft) -> None:
    """Say where the data of a volume stays that the compose file has under another key now."""
    if not draft.applied:
        return
    old = draft.applied.config.get("volumes") or {}
    new = draft.declared.config.get("volumes") or {}
    before = draft.applied.config.get("services") or {}
    for name, body in draft.services.items():
        mounts = _list_volumes(before.get(name) or {})
        for target, key in _list_volumes(body).items():
            left = mounts.get(target, key)
            if left == key or left not in old or key not in new:
                continue
            was, now = (old[left] or {}).get("name"), (new[key] or {}).get("name")
            if was == now or was not in draft.state.volume_labels:
                continue
            draft.find(
                f"volume {key}",
                "changed",
                f"{name} gets {now} at {target} instead of {was}, which still holds its data",
                blocks=False,
                remedy=f"to keep that data in use, call the volume {left} again; or, after this "
                f"run, stop {name} and copy it: docker run --rm -v {was}:/from:ro -v {now}:/to "
                "busybox cp -a /from/. /to/",
            )


def _list_volumes(service: Mapping[str, Any]) -> dict[str, str]:
    """Where a service has a volume with a name: target → the volume's key."""
    return {
        str(mount.get("target")): str(mount["source"])
        for mount in service.get("volumes") or ()
        if mount.get("type") == "volume" and mount.get("source")
    }


def _plan_moved_volume(draft: Draft, key: str, was: str, desired: str) -> None:
    """Recreate the services of a volume that gets another name."""
    for name in draft.services:
        for target in _list_targets(draft, name, key):
            if draft.state.list_containers(name):
                _move(draft, name, key, target, was, desired)


def _list_targets(draft: Draft, name: str, key: str) -> list[str]:
    """Where a service has a volume of the compose file's."""
    return [
        str(mount.get("target"))
        for mount in draft.services[name].get("volumes") or ()
        if mount.get("type") == "volume" and mount.get("source") == key
    ]


def _move(draft: Draft, name: str, key: str, target: str, was: str, desired: str) -> None:
    """Recreate a service on another volume, where its data may stay behind."""
    cause, rule = f"volumes.{key}.name: {was} → {desired}", f"volume:{name}:{target}"
    if rule in draft.spec.allow:
        draft.do("changed", Recreate(subject=name, cause=cause))
        return
    draft.refuse(
        f"volume {key}",
        f"{cause}: {name} would no longer see what {was} holds",
        f"copy the data from {was} to {desired}; then, or where it may be left behind, add "
        f'to the stack: "allow": ["{rule}"]',
    )


def plan_places(draft: Draft) -> None:
    """Recreate what is on other networks or volumes than declared, whatever a record says of it."""
    volumes = draft.declared.config.get("volumes") or {}
    for name, body in draft.services.items():
        for container in draft.state.list_containers(name):
            if draft.has_step(name, Recreate):
                continue
            for key, settings in sorted(volumes.items()):
                desired = str((settings or {}).get("name") or f"{draft.spec.project}_{key}")
                for target in _list_targets(draft, name, key):
                    mount = (container.shape.get("volumes") or {}).get(target) or {}
                    if mount.get("type") == "volume" and mount.get("source") != desired:
                        _move(draft, name, key, target, str(mount["source"]), desired)
            attached = any(isinstance(step, Attach) for step in draft.steps.get(name, ()))
            for key in body.get("networks") or {}:
                network = draft.name_network(key)
                if network not in container.endpoints and not attached:
                    cause = f"networks.{key}: it is not on {network}"
                    # What is only warned of is noted already.
                    path = f"services.{name}.networks.{network}"
                    if find_mode(draft.spec.drift, path) == "mend":
                        draft.do("drift", Recreate(subject=name, cause=cause), container)


def plan_files(draft: Draft) -> None:
    """Have the project's files on the host as they are in the source."""
    for path, kind in sorted({**draft.state.obstacles, **draft.declared.obstacles}.items()):
        reason, remedy = explain_obstacle(posixpath.join(draft.spec.directory, path), kind)
        draft.refuse(draft.spec.directory, reason, remedy)
    host = draft.state.files
    differs = None if draft.declared.differs is None else frozenset(draft.declared.differs)
    reasons: dict[str, str] = {}
    for path, digest in draft.files.items():
        if path in host:
            if host[path] == digest:
                continue
            reason = "missing" if host[path] is None else "not as in the source"
            # What the source itself changed is none: only what was proven drifts.
            proven = draft.applied is not None and draft.applied.files.get(path) == digest
            if not proven or draft.is_to_mend(
                f"files.{path}", draft.spec.directory, "files", f"{reason}: {path}"
            ):
                reasons[path] = reason
        elif differs is not None and path not in differs:
            continue
        else:
            reasons[path] = "new" if draft.applied else "not on the host as it should be"
    # Without a record nothing says that what is listed was ours to remove.
    removed = [
        path
        for path in host
        if draft.applied and path not in draft.files and host[path] is not None
    ]
    # By their names they are ours: a run that failed left them.
    removed += [
        name
        for name in OUR_FILES
        if name in draft.state.defaults and name not in {*draft.files, *removed}
    ]
    for path in removed:
        if not is_inside(path):
            draft.refuse(
                "record",
                f"it names {path!r}, which is no path inside {draft.spec.directory}",
                f"see who wrote {STATE_ROOT}/{draft.spec.project}/files on the host, and "
                "remove that file",
            )
            return
    if not reasons and not removed:
        return
    found = _find_foreign_links_file(draft)
    changed = [*reasons, *(f"{path} (removed)" for path in removed)]
    reasons |= dict.fromkeys(removed, "no longer in the source")
    if found and LINKS_FILE in reasons:
        kept = f"{STATE_ROOT}/{draft.spec.project}/replaced"
        verb = "removed" if LINKS_FILE in removed else "replaced"
        reasons[LINKS_FILE] = f"{found}; {verb}, and kept in {kept}"
    for reason in dict.fromkeys(reasons.values()):
        paths = [path for path, its_reason in reasons.items() if its_reason == reason]
        draft.find(draft.spec.directory, "files", f"{reason}: {', '.join(list_few(paths))}")
    draft.first.append(
        InstallFiles(
            subject=draft.spec.directory,
            cause=": ".join(filter(None, (draft.explain_move(), join_few(changed, ", ")))),
            removed=tuple(removed),
            undo=f"the files before lie in {STATE_ROOT}/{draft.spec.project}",
        )
    )


def _find_foreign_links_file(draft: Draft) -> str:
    """Why the file on the host that corrects links is none of stackmend's; empty where it is."""
    state = draft.state
    if LINKS_FILE not in state.defaults:
        return ""
    proven = draft.applied.files.get(LINKS_FILE) if draft.applied else None
    if proven is None:
        return "not recorded as written by stackmend"
    return "" if state.files.get(LINKS_FILE) == proven else "not as stackmend wrote it"


def plan_images(draft: Draft) -> None:
    """Have every image on the host; the services that run from one that comes follow it."""
    for name, body in draft.services.items():
        ref = draft.name_image(name)
        if ref in draft.fetched or not count_replicas(body):
            continue
        missing = f"image {ref} is not on the host" if ref not in draft.declared.images else ""
        if (build := body.get("build")) is not None:
            foreign = "" if missing else explain_foreign_image(draft, name)
            causes = [*filter(None, (missing, foreign)), *_find_build_causes(draft, name, build)]
            keep = None
            if foreign:
                id_ = draft.declared.images[ref].id
                keep = Tag(image_id=id_, name=f"{ref}:set-aside-{shorten(id_)}")
            undo = f"docker tag {keep.name} {ref}" if keep else ""
            step: Build | Pull = Build(subject=name, cause=join_few(causes), keep=keep, undo=undo)
        else:
            causes = [missing] if missing else []
            step = Pull(subject=name, cause=missing)
        if not causes:
            continue
        draft.find(name, "image", step.cause)
        draft.first.append(step)
        draft.fetched.add(ref)
        # What comes may be the image that runs already: then Compose leaves the containers.
        for user in draft.services:
            if draft.name_image(user) == ref and draft.state.list_containers(user):
                draft.add(Up(subject=user, cause=step.cause))


def _find_build_causes(draft: Draft, name: str, build: Mapping[str, Any]) -> list[str]:
    """Why an image must be built again, where it was built from the record's files."""
    if not draft.applied or name not in draft.applied.config.get("services", {}):
        return []
    before = draft.applied.config["services"][name].get("build") or {}
    causes = [
        drift.format_change(f"build.{path}", old, new, draft.secrets)
        for path, old, new in drift.find_differences(before, build)
    ]
    context = draft.relativize(str(build.get("context", "")))
    if context is not None:
        context = "" if context == "." else context
        ignored = draft.ignored.get(context, frozenset())
        recipe = posixpath.join(context, str(build.get("dockerfile") or "Dockerfile"))
        causes += [
            f"{path} of its build context changed"
            for path in draft.list_changed_files()
            if path == recipe
            or ((not context or path.startswith(context + "/")) and path not in ignored)
        ]
    return causes


def plan_networks(draft: Draft) -> None:
    """Recreate the services on a network that is declared differently, and it with them."""
    old = (draft.applied.config.get("networks") or {}) if draft.applied else {}
    new = draft.declared.config.get("networks") or {}
    for key in sorted(new):
        desired = new[key] or {}
        network = draft.name_network(key)
        has = draft.declared.networks.get(network)
        joined = [
            name for name, body in draft.services.items() if key in (body.get("networks") or {})
        ]
        before = (old.get(key) or {}).get("name", network)
        if before != network:
            for name in joined:
                cause = f"networks.{key}.name: {before} → {network}"
                draft.do("changed", Recreate(subject=name, cause=cause))
        if desired.get("external") or (old.get(key) or {}).get("external"):
            continue
        if key in old:
            differences = drift.find_differences(old[key] or {}, desired)
            found = [difference for difference in differences if difference[0] != "name"]
        elif has is not None:
            found = find_network_differences(desired, has)
        else:
            continue
        cause = join_few(
            drift.format_change(f"networks.{key}.{path}", was, now, draft.secrets)
            for path, was, now in found
        )
        if not cause:
            continue
        draft.find(f"network {network}", "changed", cause)
        if what := explain_foreign(draft, draft.state.network_labels.get(network), key):
            keep_out(draft, f"network {network}", what, joined, f"networks.{key}", network)
            continue
        disconnect_guests(draft, network)
        # An apply that was cut short may have removed it already.
        if network in draft.state.networks:
            undo = "a rollback makes it as it was" if draft.applied else "declare it as it was"
            draft.first.append(RemoveNetwork(subject=network, cause=cause, undo=undo))
        for name in joined:
            draft.add(Recreate(subject=name, cause=f"its network {network} changed"))
