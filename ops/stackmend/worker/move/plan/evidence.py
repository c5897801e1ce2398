"""Recognises a worker that serves models by an engine of before. Pure."""

import re
from collections.abc import Iterator, Mapping, Sequence

from stackmend.decision import Finding
from stackmend.worker.engines import COMMANDS, IMAGES, PORTS, is_ollama, strip_tag
from stackmend.worker.move.state import Answer, Legacy, Runner

#: Labels of images that name what is in them.
_LABELS = ("org.opencontainers.image.title", "org.opencontainers.image.source")

_LIBRARIES = (
    (re.compile(r"(?:^|/)(?:llama_cpp|llama-cpp-python)/"), "llama-cpp-python"),
    (re.compile(r"(?:^|/)lib(?:llama|ggml)[\w.-]*\.so|(?:^|/)xllamacpp"), "llama.cpp"),
)

_PORT_OPTION = re.compile(r"(?:^|\s)--port[\s=](\d{1,5})(?:\s|$)")
_BASE_URL = re.compile(r"^https?://([A-Za-z0-9_.-]{1,253}):(\d{1,5})(?:/|$)")

#: What llama.cpp's servers say of the owner of a model.
_OWNERS = ("llamacpp", "llama.cpp", "me")


def list_candidates(
    runners: Sequence[Runner], service: str | None = None
) -> tuple[tuple[Runner, int], ...]:
    """The containers that may be a legacy worker, each with the port to ask it at.

    They are those whose image, command or libraries say so, and those whose address another one has
    as the base URL of OpenAI's API. Nothing else is asked.

    :param service: the only one to ask, where it is known.
    """
    called = {match[1]: int(match[2]) for match in _list_base_urls(runners)}
    found: list[tuple[Runner, int]] = []
    for runner in runners:
        if service is not None and runner.service != service:
            continue
        if _is_ollama(runner):
            continue
        engine, _ = _collect(runner)
        if engine or runner.service in called or service is not None:
            found.append((runner, called.get(runner.service) or find_port(runner, engine)))
    return tuple(pair for pair in found if 0 < pair[1] < 65536)


def identify(
    candidates: Sequence[tuple[Runner, int]], answers: Mapping[str, Answer]
) -> tuple[Legacy, ...]:
    """The legacy workers among containers, each service once.

    :param candidates: of :func:`list_candidates`.
    :param answers: what they said, by their ids.
    """
    found: dict[str, Legacy] = {}
    for runner, _ in candidates:
        engine, evidence = _collect(runner)
        answer = answers.get(runner.id)
        if answer is not None:
            name, more = _read_answer(answer)
            engine, evidence = engine or name, [*evidence, *more]
        if not engine:
            continue
        if not runner.accelerated:
            evidence.append("no accelerator is reserved for it")
        legacy = Legacy(runner=runner, engine=engine, evidence=tuple(evidence), answer=answer)
        found.setdefault(runner.service, legacy)
    return tuple(found.values())


def find_silent(
    candidates: Sequence[tuple[Runner, int]], answers: Mapping[str, Answer]
) -> Iterator[Finding]:
    """The containers that may be a legacy worker, and were not asked what they are.

    :param candidates: of :func:`list_candidates`.
    :param answers: what they said, by their ids.
    """
    for runner, _ in candidates:
        answer = answers.get(runner.id)
        if answer is not None and answer.silence:
            yield Finding(
                subject=runner.service,
                kind="not recognised",
                cause=f"whether it is a legacy worker is not known: {answer.silence}",
                remedy="run again when nobody uses it; or add to the section "
                '"engine": "allow": ["busy"]',
                blocks=False,
            )


def find_port(runner: Runner, engine: str) -> int:
    """The port that a container most likely listens on."""
    command = " ".join(runner.command)
    if match := _PORT_OPTION.search(command):
        return int(match[1])
    for name in ("LLAMA_ARG_PORT", "PORT"):
        if runner.env.get(name, "").isdecimal():
            return int(runner.env[name][:6])
    if len(runner.ports) == 1:
        return runner.ports[0]
    return PORTS.get(engine, PORTS["llama.cpp"])


def _is_ollama(runner: Runner) -> bool:
    """Whether it is Ollama itself, which maps the same libraries."""
    return is_ollama(runner.image, " ".join(runner.command))


def _collect(runner: Runner) -> tuple[str, list[str]]:
    """The engine that a container itself names, and by what."""
    engines: list[str] = []
    evidence: list[str] = []
    path = strip_tag(runner.image)
    labels = [f"{key}={runner.image_labels[key]}" for key in _LABELS if key in runner.image_labels]
    for text, what in (
        (path, f"its image is {runner.image}"),
        *((text, f"its image has the label {text}") for text in labels),
    ):
        if engine := _match(IMAGES, text.lower()):
            engines.append(engine)
            evidence.append(what)
    command = " ".join(runner.command)
    if found := _find(COMMANDS, command):
        engines.append(found[0])
        evidence.append(f"its command has {found[1]}")
    for library in runner.libraries:
        if engine := _match(_LIBRARIES, library):
            engines.append(engine)
            evidence.append(f"a process of it has {library} mapped")
            break
    # A command and a library of Python's say more than the name of llama.cpp in an image.
    special = [engine for engine in engines if engine != "llama.cpp"]
    return (special or engines or [""])[0], evidence


def _read_answer(answer: Answer) -> tuple[str, list[str]]:
    where = f"what answers at port {answer.port}"
    evidence = []
    if "llama.cpp" in answer.server.lower():
        evidence.append(f"{where} calls itself {answer.server[:80]}")
    owned = [owner for owner in answer.owners if owner.lower() in _OWNERS]
    if owned and answer.names:
        evidence.append(f"{where} says that its models are owned by {owned[0]}")
    if answer.props:
        evidence.append(f"{where} describes itself at /props as llama.cpp does")
    if answer.serial:
        evidence.append(f"{where} describes itself at /openapi.json as llama-cpp-python does")
    python = answer.serial or (bool(owned) and owned[0] == "me" and not answer.props)
    return ("" if not evidence else "llama-cpp-python" if python else "llama.cpp"), evidence


def _list_base_urls(runners: Sequence[Runner]) -> list[re.Match[str]]:
    services = {runner.service for runner in runners}
    return [
        match
        for runner in runners
        for key, value in runner.env.items()
        if (match := _BASE_URL.match(value))
        and match[1] in services
        and (re.search(r"(?i)openai|llm", key) or re.search(r"/v1(?:/|$)", value))
    ]


def _match(patterns: Sequence[tuple[re.Pattern[str], str]], text: str) -> str:
    found = _find(patterns, text)
    return found[0] if found else ""


def _find(patterns: Sequence[tuple[re.Pattern[str], str]], text: str) -> tuple[str, str] | None:
    """The engine that a text names, and the part of it that does."""
    for pattern, name in patterns:
        if match := pattern.search(text):
            return name, match[0].strip()[:200]
    return None
