"""What a measurement holds for, and by what two of these differ. Pure."""

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from stackmend.worker.benchmark.spec import BenchmarkSpec
from stackmend.worker.benchmark.state import (
    Answers,
    BenchmarkState,
    Fingerprint,
    Loaded,
    Served,
    Server,
)

T = TypeVar("T", Served, Loaded)

#: The version of how it is measured: results of another one are not comparable.
PROTOCOL = 1

#: Shares by which bytes of memory may differ: a kernel keeps more or less of it for itself.
MEMORY_SHARE = 0.02

#: Points of a hundred by which the share of a model on a GPU may differ: a server decides it anew
#: by what is free at each load.
PROCESSOR_POINTS = 5

#: Fields that are known only while the model is loaded: where one side lacks one, it is no change.
WHILE_LOADED = frozenset({"context", "processor", "threads"})

#: Each field in words, and how its value is written.
_FIELDS: dict[str, tuple[str, Callable[[object], str]]] = {
    "parameters": ("what is asked", str),
    "engine": ("the server", str),
    "version": ("the server's version", str),
    "image": ("the digest of the server's image", lambda value: _shorten(str(value))),
    "model": ("the model's digest", lambda value: _shorten(str(value))),
    "settings": ("the server's settings", str),
    "context": ("the model's context", lambda value: f"{value} tokens"),
    "processor": ("where the model lies", str),
    "cpu": ("the CPU", str),
    "cores": ("the number of cores", str),
    "quota": ("the CPUs that the server may use", lambda value: f"{value:g}" if value else "all"),
    "threads": ("the number of threads", str),
    "memory": ("the host's memory", lambda value: _format_bytes(value)),
    "memory_limit": (
        "the memory that the server may have",
        lambda value: _format_bytes(value) if value else "all",
    ),
    "gpus": ("the GPUs", str),
    "driver": ("the GPUs' driver", str),
    "worker_image": ("the digest of the worker's image", lambda value: _shorten(str(value))),
    "replicas": ("the number of replicas", str),
}


#: How the requests of a repeat are stored where a user names no number.
USUAL_REQUESTS = "8 or 4 each"

#: What is asked, as :func:`make_parameters` writes it; and each part in words.
_PARAMETERS = re.compile(
    r"protocol (?P<protocol>[0-9]{1,9}), (?P<target>[a-z]{1,20}), model (?P<model>.{0,400}), "
    r"(?P<prompt>[0-9]{1,9}) \+ (?P<output>[0-9]{1,9}) tokens, "
    r"(?:concurrency (?P<concurrency>[0-9,]{1,2000})|(?P<rate>[0-9.e+-]{1,20}) requests/s), "
    r"(?P<repeats>[0-9]{1,9}) repeats of (?P<requests>[0-9a-z ]{1,40}) requests, "
    r"(?P<warmups>[0-9]{1,9}) warm-ups"
)
_PARTS = {
    "protocol": "the way of measuring",
    "target": "target",
    "model": "model",
    "prompt": "prompt_tokens",
    "output": "output_tokens",
    "concurrency": "concurrency",
    "rate": "rate",
    "repeats": "repeats",
    "requests": "requests",
    "warmups": "warmups",
}


def make_parameters(spec: BenchmarkSpec, model: str) -> str:
    """All that is asked for, in one line: results of other parameters are not comparable.

    What is asked of whom, but not what is made of it: neither limits nor a minimum change what a
    server does.

    :param spec: what is desired.
    :param model: the name of the model that is asked, be it named or the only one.
    """
    profile = spec.profile
    if profile.rate is not None:
        load = f"{profile.rate:g} requests/s"
    else:
        load = "concurrency " + ",".join(map(str, profile.concurrency))
    requests = profile.requests or (profile.count_requests(0) if profile.rate else USUAL_REQUESTS)
    return (
        f"protocol {PROTOCOL}, {spec.target}, model {model}, "
        f"{profile.prompt_tokens} + {profile.output_tokens} tokens, {load}, "
        f"{profile.repeats} repeats of {requests} requests, {profile.warmups} warm-ups"
    )


def build(spec: BenchmarkSpec, state: BenchmarkState, model: Served) -> Fingerprint:
    """What a measurement of now would hold for.

    :param spec: what is desired.
    :param state: the host and its server.
    :param model: the model that is asked.
    """
    machine, answers = state.machine, state.answers
    server = next(iter(machine.servers), Server())
    worker = next(iter(machine.workers), Server())
    loaded = find_loaded(answers, model.name)
    replicas = machine.workers if spec.target == "queue" else machine.servers
    return Fingerprint(
        parameters=make_parameters(spec, model.name),
        engine="queue" if spec.target == "queue" else answers.engine,
        version=answers.version,
        image=server.image,
        model=model.digest or (f"{model.name} {model.size}" if model.size else model.name),
        settings=server.settings,
        context=(loaded.context if loaded is not None else 0) or answers.context,
        processor=_find_processor(loaded),
        cpu=machine.cpu,
        cores=machine.cores,
        quota=server.quota,
        threads=server.threads,
        memory=machine.memory,
        memory_limit=server.memory_limit,
        gpus=tuple(f"{gpu.name} {_format_bytes(gpu.memory)}" for gpu in machine.gpus),
        driver=machine.driver,
        worker_image=worker.image,
        replicas=len(replicas) or 1,
    )


def find_model(spec: BenchmarkSpec, answers: Answers) -> Served | None:
    """The model that is asked; ``None`` where the server has none of that name, or more than one.

    The name without its tag is that with ``:latest``, as Ollama has it.
    """
    if spec.model is None:
        return answers.models[0] if len(answers.models) == 1 else None
    names = [spec.model]
    if spec.target == "ollama" and ":" not in spec.model.rpartition("/")[2]:
        names.append(f"{spec.model}:latest")
    return _find_named(answers.models, names)


def find_loaded(answers: Answers, name: str) -> Loaded | None:
    """The model as it lies in memory; ``None`` where it does not, or the server does not say."""
    return _find_named(answers.loaded or (), [name])


def _find_named(rows: Sequence[T], names: Sequence[str]) -> T | None:
    """The first of so many names that a model has; of two that differ in case only, the exact one.

    :param rows: models of a server.
    :param names: the better ones first.
    """
    for fold in (str, str.lower):
        for name in names:
            for row in rows:
                if fold(row.name) == fold(name):
                    return row
    return None


def complete(fingerprint: Fingerprint, later: Fingerprint) -> Fingerprint:
    """A fingerprint with what was known only once the model was loaded.

    :param fingerprint: of before the measurement.
    :param later: of after it.
    """
    return fingerprint.model_copy(
        update={
            name: getattr(later, name) for name in WHILE_LOADED if not getattr(fingerprint, name)
        }
    )


def list_changes(before: Fingerprint, now: Fingerprint) -> tuple[str, ...]:
    """Field by field what changed, in words; empty where a measurement still holds.

    :param before: what it was measured with.
    :param now: what is there now.

    Example:
        >>> old = Fingerprint(parameters="p", engine="ollama", threads=4)
        >>> list_changes(old, old.model_copy(update={"threads": 8}))
        ('the number of threads changed: 4 → 8',)
    """
    changes = []
    for name, (title, text) in _FIELDS.items():
        old, new = getattr(before, name), getattr(now, name)
        if old == new or (name in WHILE_LOADED and not (old and new)):
            continue
        if name == "memory" and abs(old - new) <= MEMORY_SHARE * max(old, new):
            continue
        if name == "processor" and abs(_find_share(old) - _find_share(new)) <= PROCESSOR_POINTS:
            continue
        if name == "parameters":
            changes += _list_parameter_changes(old, new)
        elif isinstance(old, tuple) and isinstance(new, tuple):
            changes.append(f"{title} changed: {_format_difference(old, new)}")
        else:
            changes.append(f"{title} changed: {text(old) or 'none'} → {text(new) or 'none'}")
    return tuple(changes)


def _list_parameter_changes(before: str, now: str) -> list[str]:
    """What of all that is asked changed, part by part; both texts where one has another form."""
    old, new = _PARAMETERS.fullmatch(before), _PARAMETERS.fullmatch(now)
    changes = []
    if old is not None and new is not None:
        changes = [
            f"{title}: {_format_part(old[name])} → {_format_part(new[name])}"
            for name, title in _PARTS.items()
            if old[name] != new[name]
        ]
    return changes or [f"what is asked changed: {before or 'none'} → {now or 'none'}"]


def _format_part(text: str | None) -> str:
    return "8, or 4 for each at one time" if text == USUAL_REQUESTS else text or "none"


def is_comparable(before: Fingerprint, now: Fingerprint) -> bool:
    """Whether two measurements asked the same, whatever of the host or the server changed."""
    return before.parameters == now.parameters


def _find_processor(loaded: Loaded | None) -> str:
    if loaded is None or not loaded.size:
        return ""
    share = loaded.vram / loaded.size
    if share >= 0.995:
        return "gpu"
    return f"{share:.0%} gpu" if share >= 0.005 else "cpu"


def _find_share(processor: str) -> int:
    """Points of a hundred of a model that lie on a GPU; a host may have stored anything."""
    share = processor.removesuffix("% gpu")
    return int(share) if re.fullmatch("[0-9]{1,3}", share) else 100 * (processor == "gpu")


def _format_difference(old: Sequence[str], new: Sequence[str]) -> str:
    """What of a list went and what came; values of the same variable as one change."""
    removed, came = sorted(set(old) - set(new)), sorted(set(new) - set(old))
    parts = []
    for text in removed:
        name = text.partition("=")[0].partition(":")[0]
        match = next((c for c in came if c.partition("=")[0].partition(":")[0] == name), None)
        if match is not None and text != name:
            came.remove(match)
            parts.append(f"{text} → {match}")
        else:
            parts.append(f"{text} → none")
    parts += [f"none → {text}" for text in came]
    # A list may differ in how often something is in it.
    return ", ".join(parts) or f"{len(old)} → {len(new)}"


def _shorten(digest: str) -> str:
    """As much of a digest as people compare."""
    kind, _, rest = digest.partition(":")
    if kind == "sha256":
        return rest[:12]
    return digest[:12] if len(digest) == 64 and digest.isalnum() else digest


def _format_bytes(value: object) -> str:
    assert isinstance(value, int | float), "bytes"
    return f"{value / (1 << 30):.1f} GiB"
