"""What must be so before a decision can be made at all."""

import hashlib

from stackmend.compose.plan.actions import Plan
from stackmend.compose.spec import ComposeSpec
from stackmend.compose.state import Declared, StackState
from stackmend.decision import Refusal
from stackmend.paths import STATE_ROOT

REMEDIES = {
    "absent": "install Docker Engine with its Compose plugin on the host, then rerun",
    "unexecutable": "make it executable again there (`chmod 755`), or install its package again; "
    "then rerun",
    "stopped": "start it on the host (systemctl start docker) and see why it stopped "
    "(journalctl -u docker)",
    "forbidden": "connect as root, or set _sudo = True in the host's data",
    "hung": "see what it waits for (journalctl -u docker), then restart it: "
    "systemctl restart docker",
    "no-compose": "install the Compose plugin (package docker-compose-plugin or docker-compose-v2)",
    "unknown": "see what `docker ps` says on the host",
}


def is_declaration_needed(spec: ComposeSpec, digest: str, state: StackState) -> bool:
    """Whether Compose must be asked what the files mean, or the record still says it."""
    applied = state.applied
    return state.engine.status == "up" and (
        applied is None
        or applied.source != digest
        or applied.directory != spec.directory
        or applied.profiles != spec.profiles
    )


def refuse_engine(state: StackState) -> Plan | None:
    """A plan that only refuses, where the host cannot be worked on at all."""
    engine = state.engine
    if engine.status != "up":
        reason = {
            "absent": "Docker is not installed",
            "unexecutable": f"{engine.reason} is there, and nobody may execute it",
            "stopped": "the Docker daemon does not run",
            "forbidden": "this user may not talk to the Docker daemon",
            "hung": "the Docker daemon hangs: it does not answer within 10 s",
            "no-compose": "Docker has no Compose plugin",
        }.get(engine.status, f"Docker does not answer: {engine.reason}")
        return Plan(
            refusals=(Refusal(subject="engine", reason=reason, remedy=REMEDIES[engine.status]),)
        )
    if not state.writable:
        return Plan(
            refusals=(
                Refusal(
                    subject="state",
                    reason=f"this user may not write {STATE_ROOT}",
                    remedy=REMEDIES["forbidden"],
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
                        remedy="free some (docker system df shows what Docker holds), "
                        "or set minimum_free",
                    ),
                )
            )
    return None


def identify_attempt(spec: ComposeSpec, digest: str) -> str:
    """What is counted of files that failed: they, and what is asked and corrected of their links.

    :param digest: the digest over them, with what is laid over them.
    """
    if spec.links is None:
        return digest
    return hashlib.sha256(f"{digest} {spec.links.model_dump_json()}".encode()).hexdigest()


def explain_hold(spec: ComposeSpec, digest: str, state: StackState) -> str:
    """Why these very files are not applied again now: they failed and were taken back."""
    applied = state.applied
    if applied is None or applied.source == digest:
        return ""
    attempt = identify_attempt(spec, digest)
    times = [
        mend.at for mend in state.mends if mend.action == "rollback" and mend.service == attempt
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
