"""What a model server's log says: which models it loaded, who asked, what it computes with. Pure.

The lines are those of Ollama, from 0.5 on, with a time before each as ``docker logs -t`` and
``journalctl -o short-unix`` write it; of llama.cpp's own server only its layers are read.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from stackmend.redaction import format_safe_line
from stackmend.worker.acceleration.state import Call, Device, Load, Mark, ServerLog

#: Loads, requests and marks that are kept, the last ones.
MOST = 5000

#: Lines of requests, and other ones, that the probe keeps of each kind, the last ones.
KEPT = 4000

#: What colours lines where the server writes to a terminal.
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")

_STAMP = re.compile(
    r"(?:(?P<unix>[0-9]{1,11}(?:\.[0-9]{1,9})?)"
    r"|(?P<day>[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8})(?P<part>\.[0-9]{1,9})?Z) (?P<text>.*)"
)
_GIN = re.compile(
    r"\[GIN\] [0-9/]{10} - [0-9:]{8} \| +(?P<status>[0-9]{3}) \| +(?P<took>[0-9hmsµun.]+) \| +"
    r"(?P<client>[0-9A-Fa-f:.]{2,45}) \| (?P<method>[A-Z]+) +\"(?P<path>/[^\"]{0,200})\""
)
_TOOK = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,12})?)(h|ms|m|s|µs|us|ns)")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "µs": 1e-6, "us": 1e-6, "ns": 1e-9}

#: Ollama's own lines are of Go's slog: words and quoted texts by keys.
_MESSAGE = re.compile(r'msg=(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>\S*))(?P<rest>.*)')
_PAIR = re.compile(r'(?:^|\s)([a-z_.]+)=(?:"((?:[^"\\]|\\.){0,300})"|(\S{0,300}))')
_STARTING = ("starting llama server", "starting runner", "starting llama-server")
_MODEL = re.compile(r"--model (\S{1,500})")
_CONTEXT = re.compile(r"(?:--ctx-size|-c) ([0-9]{1,9})\b")
_PARALLEL = re.compile(r"(?:--parallel|-np) ([0-9]{1,4})\b")
_THREADS = re.compile(r"(?:--threads|-t) ([0-9]{1,4})\b")
_REQUESTED = {
    "context": re.compile(r"\bKvSize:([0-9]{1,9})\b"),
    "parallel": re.compile(r"\bParallel:([0-9]{1,4})\b"),
    "threads": re.compile(r"\bNumThreads:([0-9]{1,4})\b"),
}
_READY = re.compile(
    r"(?:llama runner|llama-server) started in ([0-9]{1,6}(?:\.[0-9]{1,6})?) seconds"
)
_LAYERS = re.compile(r"offloaded ([0-9]{1,5})/([0-9]{1,5}) layers to GPU")
#: A runner that the server ends by itself, as an idle one, is ``signal: killed`` as well; of one
#: that ended during a request it says that it is no longer running.
_STOPPED = re.compile(r"(?:runner|llama-server) process (?:no longer running|has terminated)")
_ENDED = ("llama runner terminated", "llama-server terminated")
_REDUCED = "llama-server load failed; reducing automatic context and retrying once"
_EVICTING = re.compile(
    r"evicting a model to make space|exceed available memory, evicting|evicting all"
)
_WARNING = re.compile(
    r"no compatible (?:GPUs|amdgpu|rocm)|dropping|cuda driver|driver (?:is )?too old|"
    r"amdgpu is not supported|amdgpu too old|unsupported Radeon|permission problems|"
    r"(?:cuda|rocm|amdgpu|nvml).*(?:error|fail|unable|not found)",
    re.IGNORECASE,
)

#: The paths of requests that need a model in memory.
_ASKING = ("/api/generate", "/api/chat", "/api/embed", "/v1/", "/completion", "/chat/completions")


def parse_log(started: Sequence[str], window: Sequence[str], *, cut: bool = False) -> ServerLog:
    """What a log says.

    :param started: its lines since the server started, the first ones.
    :param window: its lines of the last minutes.
    :param cut: whether the end of the window was not waited for.
    """
    devices, warnings = _parse_start(started)
    reduced = False
    others: list[float] = []
    loads: list[Load] = []
    calls: list[Call] = []
    marks: list[Mark] = []
    for at, text in _split(window):
        if call := _parse_call(at, text):
            calls.append(call)
            continue
        others.append(at)
        message, details = _parse_message(text)
        if message.startswith(_STARTING):
            # It starts runners without a model to find accelerators.
            if model := _MODEL.search(details):
                load = _parse_starting(at, model[1], details)
                loads.append(load.model_copy(update={"is_reduced": reduced}))
                reduced = False
        elif message == "load" and loads:
            loads[-1] = _complete(loads[-1], details)
        elif (match := _READY.search(text)) and loads and loads[-1].seconds is None:
            loads[-1] = loads[-1].model_copy(update={"seconds": float(match[1])})
        elif "server config" in text:
            marks.append(Mark(at=at, kind="started"))
        elif message == _REDUCED:
            # Of all models, where it evicts the others too, it says so.
            reduced = True
        elif _EVICTING.search(text):
            marks.append(Mark(at=at, kind="evicting"))
        elif _STOPPED.search(text) or (message in _ENDED and "signal: killed" not in details):
            marks.append(Mark(at=at, kind="crashed"))
    return ServerLog(
        devices=devices,
        warnings=warnings,
        layers=_find_layers(window) or _find_layers(started),
        loads=tuple(loads[-MOST:]),
        calls=tuple(calls[-MOST:]),
        marks=tuple(marks[-MOST:]),
        reason="it was not read within 10 s" if cut else "",
        since=_find_since(others, calls),
    )


def _find_since(others: Sequence[float], calls: Sequence[Call]) -> float | None:
    """From which time on all lines are there, where the probe left out older ones."""
    firsts = [times[0] for times in (others, [call.at for call in calls]) if len(times) >= KEPT]
    return max(firsts, default=None)


def is_model_call(call: Call) -> bool:
    """Whether a request is one that needs a model in memory."""
    return call.path.startswith(_ASKING) and call.path != "/v1/models"


def parse_duration(text: str) -> float:
    """Seconds of a duration as Go writes it, such as ``1m2.5s``.

    >>> parse_duration("8m44s")
    524.0
    """
    return sum(float(value) * _UNITS[unit] for value, unit in _TOOK.findall(text))


def _split(lines: Iterable[str]) -> Iterator[tuple[float, str]]:
    for line in lines:
        if (match := _STAMP.fullmatch(_ANSI.sub("", line).rstrip("\r"))) is None:
            continue
        if match["unix"]:
            yield float(match["unix"]), match["text"]
            continue
        try:
            moment = datetime.fromisoformat(f"{match['day']}+00:00").timestamp()
        except ValueError:
            continue
        yield moment + float(match["part"] or 0), match["text"]


def _parse_call(at: float, text: str) -> Call | None:
    match = _GIN.search(text)
    if match is None:
        return None
    return Call(
        at=at,
        seconds=parse_duration(match["took"]),
        client=match["client"],
        path=match["path"],
        status=int(match["status"]),
    )


def _parse_message(text: str) -> tuple[str, str]:
    """The message of one of Ollama's own lines, and what follows it."""
    match = _MESSAGE.search(text)
    if match is None:
        return "", ""
    return match["quoted"] or match["bare"] or "", match["rest"]


def _parse_starting(at: float, model: str, details: str) -> Load:
    parallel = _find_number(_PARALLEL, details)
    # Its context is that of all its parallel requests.
    context = _find_number(_CONTEXT, details) // max(1, parallel)
    return Load(
        at=at,
        model=_format(model.rstrip('"').rpartition("/")[2], 80),
        context=context,
        parallel=parallel,
        threads=_find_number(_THREADS, details),
    )


def _complete(load: Load, details: str) -> Load:
    found = {name: _find_number(pattern, details) for name, pattern in _REQUESTED.items()}
    if found["context"]:
        found["context"] //= max(1, found["parallel"])
    return load.model_copy(update={name: value for name, value in found.items() if value})


def _find_number(pattern: re.Pattern[str], text: str) -> int:
    match = pattern.search(text)
    return int(match[1]) if match else 0


def _find_layers(lines: Sequence[str]) -> tuple[int, int] | None:
    for line in reversed(lines):
        if match := _LAYERS.search(line):
            return int(match[1]), int(match[2])
    return None


def _parse_start(lines: Sequence[str]) -> tuple[tuple[Device, ...] | None, tuple[str, ...]]:
    """What the server found when it started last, and what it warned of."""
    devices: list[Device] | None = None
    warnings: list[str] = []
    for _, text in _split(lines):
        message, details = _parse_message(text)
        if "server config" in text:
            devices, warnings = None, []
        elif message == "inference compute":
            pairs = {key: quoted or bare for key, quoted, bare in _PAIR.findall(details)}
            device = Device(
                library=_format(pairs.get("library", ""), 40),
                name=_format(pairs.get("description") or pairs.get("name", ""), 80),
                memory=_format(pairs.get("total", ""), 20),
            )
            devices = [*(devices or []), device]
        elif _WARNING.search(text) and len(warnings) < 5:
            warnings.append(_format(text, 300))
    return None if devices is None else tuple(devices[:64]), tuple(warnings)


def _format(text: str, limit: int) -> str:
    return format_safe_line(text, limit)
