"""What a redis answered to a check: the fault, its remedy, and whether a restart harms. Pure."""

from __future__ import annotations

from stackmend.checks.diagnosis import Answer
from stackmend.checks.spec import RedisCheck
from stackmend.checks.state import Hint, Outcome
from stackmend.frozen import Frozen

#: What redis refuses with, and what to do where a restart cannot help: it comes up as it is, and
#: may lose what was not saved.
_HARMED = {
    "MISCONF": (
        "it cannot save to its disk, and refuses writes",
        "free space where its data lies, or let its user write there (`docker logs` says which); "
        "redis then saves by itself, and a restart before that loses what is not saved",
    ),
    "OOM": (
        "its memory is full, and it refuses writes",
        "raise `maxmemory`, or set a `maxmemory-policy` that evicts",
    ),
    "NOREPLICAS": (
        "too few replicas follow it, and it refuses writes",
        "start the replicas, or lower `min-replicas-to-write`",
    ),
    "LOADING": (
        "it is still loading its data",
        "wait until it is loaded (`redis-cli info persistence`)",
    ),
    "CLUSTERDOWN": (
        "its cluster is down",
        "see `redis-cli cluster info`, and start the nodes that are missing",
    ),
}


_PROTECTED = (
    "give it a password (`--requirepass`), or `--protected-mode no` where only the stack's own "
    "networks lead to it; what was set at run time (`config set`) a restart takes back"
)
_CHANGED = (
    "it was changed at run time (`config set requirepass`), which a restart takes back; to keep "
    "the new one, declare it"
)
_ADDED = (
    "it was set at run time (`config set requirepass`), which a restart takes back; to keep it, "
    "declare it: `command: redis-server --requirepass ...`"
)


class Explained(Frozen):
    """A fault that redis itself told of."""

    text: str
    remedy: str
    outcome: Outcome = "failed"
    hints: tuple[Hint, ...] = ()


def explain_passed(check: RedisCheck, answer: Answer) -> str:
    """What is true of a redis whose check passes, as far as it lets itself be asked."""
    forbidden = [reply[1:] for reply in answer.get_all("reply") if reply.startswith("-NOPERM")]
    if forbidden:
        return f"and not all may be asked: {forbidden[0]}"
    return "it takes writes" if check.role == "master" else f"its role is right ({check.role})"


def explain_redis(check: RedisCheck, answer: Answer) -> Explained | None:
    """What redis said is wrong, the worst first; ``None`` where it said nothing of it."""
    replies = answer.get_all("reply")
    errors: dict[str, str] = {}
    for reply in replies:
        if reply.startswith("-"):
            word, _, text = reply[1:].partition(" ")
            errors.setdefault(word, f"{word} {text}")
    split = (reply.partition(":") for reply in replies if not reply.startswith("-"))
    fields = {key: value for key, colon, value in split if colon}
    if found := _explain_password(check, answer, errors):
        return found
    if "DENIED" in errors:
        text = "it is in protected mode, and answers its own container alone"
        return Explained(text=f"{text}: {errors['DENIED'][:120]}", remedy=_PROTECTED)
    for word, (text, remedy) in _HARMED.items():
        if word in errors:
            return _make_harmful(f"{text}: {errors[word]}", remedy)
    role = {"slave": "replica"}.get(fields.get("role", ""), fields.get("role", ""))
    if role and check.role not in ("any", role):
        leader = f"{fields.get('master_host', '?')}:{fields.get('master_port', '?')}"
        state = fields.get("master_link_status", "not known")
        text = f"it is a {role}" + (f" of {leader}, link {state}" if role == "replica" else "")
        remedy = (
            f"it should be a {check.role}: a change at run time (`replicaof`) is taken back by a "
            "restart; if it is meant to be so, say it in the check's `role`"
        )
        return Explained(text=text, remedy=remedy)
    for key, option in (("rdb_last_bgsave_status", "RDB"), ("aof_last_write_status", "AOF")):
        if fields.get(key) == "err":
            text = f"its last write to disk failed ({option}: {key}:err)"
            return _make_harmful(text, _HARMED["MISCONF"][1])
    others = [text for word, text in errors.items() if word not in ("NOPERM", "MOVED", "ASK")]
    if others:
        return Explained(text=f"it answers {'; '.join(others)}", remedy="")
    if "NOPERM" in errors and "+PONG" not in replies:
        return Explained(
            outcome="unknown",
            text=f"not known: its access list does not let this login ask: {errors['NOPERM']}",
            remedy="allow it to the login that is asked as, by default `redis-cli acl setuser "
            "default +ping +info +setrange`; a list that was changed at run time is taken back by "
            "a restart",
        )
    return None


def _make_harmful(text: str, remedy: str) -> Explained:
    return Explained(text=text, remedy=remedy, hints=("restart-harms",))


def _explain_password(
    check: RedisCheck, answer: Answer, errors: dict[str, str]
) -> Explained | None:
    if check.password_from is not None:
        return _explain_caller(check, answer, errors)
    source = answer.get("secret")
    if "WRONGPASS" in errors or "invalid password" in errors.get("ERR", ""):
        return Explained(
            text=f"it refuses the password that {source} of {check.service} gives: "
            f"{errors.get('WRONGPASS') or errors['ERR']}",
            remedy=_CHANGED,
        )
    if "NOAUTH" in errors and "hidden" in answer:
        return Explained(
            outcome="unknown",
            text=f"not known: it asks for a password, and what {source} of {check.service} gives "
            "cannot be read from outside its container",
            remedy="give the password by --requirepass, a configuration file or REDIS_PASSWORD",
        )
    if "NOAUTH" in errors:
        return Explained(
            text=f"it asks for a password that nothing of {check.service} declares: "
            f"{errors['NOAUTH']}",
            remedy=_ADDED,
        )
    if source and "without any password" in errors.get("ERR", ""):
        return Explained(
            text=f"it lets in everybody, although {source} of {check.service} gives it a password",
            remedy="it was taken away at run time (`config set requirepass`), which a restart "
            "takes back",
        )
    return None


def _explain_caller(check: RedisCheck, answer: Answer, errors: dict[str, str]) -> Explained | None:
    """Why redis refuses what its caller holds: which of the two has the wrong password."""
    holder = f"{check.password_from} of {check.inside}"
    refused = errors.get("WRONGPASS") or errors.get("NOAUTH")
    if refused is None and "invalid password" in errors.get("ERR", ""):
        refused = errors["ERR"]
    if refused is None:
        return None
    if "hidden" in answer:
        return Explained(
            outcome="unknown",
            text=f"not known: it asks for a password, and what {holder} gives cannot be read from "
            "outside its container",
            remedy=f"give {check.inside} the password in a variable",
        )
    if answer.get("bare") == "missing":
        text = f"it asks for a password, and {check.inside} has no {check.password_from}"
    elif "bare" in answer:
        text = f"it asks for a password, and {holder} holds none"
    else:
        text = f"it refuses the password that {holder} gives"
    text = f"{text}: {refused}"
    own = answer.get("ownsecret")
    if answer.get("own") == "yes":
        return Explained(
            text=f"{text}; it takes the one that {own} of {check.service} gives",
            remedy=f"give {check.inside} the password that {own} of {check.service} gives",
            # A restart of redis changes nothing of what its caller holds.
            hints=("login-refused", "restart-harms"),
        )
    if answer.get("own") == "no":
        return Explained(
            text=f"{text}; it refuses the one that {own} of {check.service} gives, too",
            remedy=_CHANGED,
        )
    if "ownhidden" in answer:
        return Explained(text=text, remedy="compare both passwords", hints=("restart-harms",))
    return Explained(text=text, remedy=_ADDED)


def explain_ignored(check: RedisCheck, answer: Answer) -> str:
    """What a caller that passes should know; empty: nothing."""
    if check.password_from is None or not any(
        "without any password" in reply or "no password is set" in reply
        for reply in answer.get_all("reply")
    ):
        return ""
    return (
        f"it has no password, and {check.password_from} of {check.inside} gives one: some clients "
        "go on, others fail"
    )
