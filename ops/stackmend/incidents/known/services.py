"""Incidents of the stack's own services."""

import re
from collections.abc import Iterable, Iterator

from stackmend.compose.state import Container, StackState
from stackmend.diagnosis import Evidence
from stackmend.incidents.spec import Incident, StatePattern, TextPattern, Undetermined
from stackmend.incidents.state import Listener, Observations
from stackmend.models.spec import DEFAULT_PORT

#: A port that is published to all: the address, the host's port, the container's.
_PUBLISHED = re.compile(r"(?P<address>[0-9a-f.:]{2,45}):(?P<port>\d{1,5})->(?P<inner>\d{1,5}/tcp)")
_REDIS = re.compile(r"(?:^|/)(?:redis|valkey|keydb|redis-stack(?:-server)?)(?:[:@]|$)")
_SERVER = re.compile(r"(?:.*/)?(?:redis|valkey|keydb)-server")
#: What images begin their server with; another program may do anything.
_ENTRYPOINT = re.compile(r"(?:.*/)?(?:docker-)?entrypoint\.sh")
#: Options that ask for a password, let only the container itself in, or name a file that may.
_GUARDED = re.compile(r"--?(?:requirepass|user|aclfile|include|bind|protected-mode)")
#: The same option, where it lets everybody in.
_OPEN = re.compile(r"--?protected-mode[ =]no\b")
#: Variables that images make a password or options from.
_GUARDING = re.compile(r"pass|auth|secret|acl|args|flags|opts|conf", re.I)
_OLLAMA = re.compile(r"(?:^|/)ollama(?:[:@]|$)")
#: The addresses that Docker gives its bridges, which the host's own containers alone reach.
_BRIDGED = re.compile(r"172\.(?:1[6-9]|2\d|3[01])\.")


class _Exposed(Incident):
    """Derived from what is published or listens on addresses that are not the host's own alone."""

    def list_ports(self, container: Container) -> tuple[int, ...]:
        """The ports that a container's own server listens on; none where it is no such server, or
        may have a password."""
        raise NotImplementedError

    def is_bare(self, listener: Listener) -> bool:
        """Whether it is such a server that runs without a container, and knows no password."""
        return False

    def find(self, observations: Observations) -> Iterator[tuple[str, Evidence]]:
        listeners = observations.symptoms.listeners
        ours: set[int] = set()
        unread = ""
        for state in observations.list_states(StackState):
            for each in state.containers:
                if not (ports := self.list_ports(each)):
                    continue
                subject = each.service or each.name
                for text in each.published:
                    match = _PUBLISHED.fullmatch(text)
                    if match and not _is_own(match["address"]):
                        line = f"{each.name} publishes {text}"
                        yield subject, Evidence(line=line, source="docker inspect")
                if each.shape.get("network_mode") != "host" or not each.running:
                    continue
                if listeners is None:
                    unread = (
                        f"{each.name} shares the host's network, and what listens there is unknown"
                    )
                ours.update(ports)
                for listener in _list_open(listeners or ()):
                    if listener.port in ports:
                        yield subject, _describe(listener, f"{each.name}, in the host's network,")
        for listener in _list_open(listeners or ()):
            if listener.port not in ours and self.is_bare(listener):
                name = listener.program or f"port {listener.port}"
                yield name, _describe(listener, listener.program or "what is no container")
        if unread:
            raise Undetermined(unread)


def _is_own(address: str) -> bool:
    """Whether only the host itself reaches an address."""
    return address.startswith("127.") or address in ("::1", "::ffff:127.0.0.1")


def _list_open(listeners: Iterable[Listener]) -> Iterator[Listener]:
    """Those that others reach: neither on the host's own addresses nor on those of Docker alone."""
    for each in listeners:
        if not _is_own(each.address) and not _BRIDGED.match(each.address):
            yield each


def _describe(listener: Listener, who: str) -> Evidence:
    address = f"[{listener.address}]" if ":" in listener.address else listener.address
    return Evidence(line=f"{who} listens on {address}:{listener.port}", source="ss")


class _RedisExposed(_Exposed):
    def list_ports(self, container: Container) -> tuple[int, ...]:
        shape = container.shape
        entrypoint = _list_words(shape.get("entrypoint"))
        command = _list_words(shape.get("command"))
        is_server = any(map(_SERVER.fullmatch, (*entrypoint[:1], *command[:1])))
        if not (is_server or _REDIS.search(container.image)):
            return ()
        if (
            _is_guarded(entrypoint, command)
            or any(map(_GUARDING.search, shape.get("environment") or ()))
            or any(path.endswith(".conf") for path in shape.get("volumes") or ())
        ):
            return ()
        port = re.search(r"--port[ =](\d{1,5})\b", " ".join((*entrypoint, *command)))
        return (int(port[1]) if port else 6379,)


def _list_words(command: object) -> list[str]:
    parts = command if isinstance(command, list | tuple) else [command or ""]
    return [word for part in parts for word in str(part).split()]


def _is_guarded(entrypoint: list[str], command: list[str]) -> bool:
    """Whether what a container of redis was started with may ask for a password."""
    if entrypoint and _ENTRYPOINT.fullmatch(entrypoint[-1]):
        entrypoint = []
    words = [*entrypoint, *command]
    options = words[1:] if words and _SERVER.fullmatch(words[0]) else words
    options = _OPEN.sub("", " ".join(options)).split()
    # What stands before the options is the file of its settings, or another program.
    named = bool(options) and not options[0].startswith("--")
    return named or any(map(_GUARDED.match, options))


class _OllamaExposed(_Exposed):
    def list_ports(self, container: Container) -> tuple[int, ...]:
        environment = container.shape.get("environment") or {}
        is_named = container.service == "ollama" and "OLLAMA_HOST" in environment
        if not (is_named or _OLLAMA.search(container.image)):
            return ()
        port = re.search(r":(\d{1,5})/?$", str(environment.get("OLLAMA_HOST", "")))
        return (int(port[1]) if port else DEFAULT_PORT,)

    def is_bare(self, listener: Listener) -> bool:
        # What Docker publishes stands with its container.
        if listener.program == "docker-proxy":
            return False
        return listener.program == "ollama" or listener.port == DEFAULT_PORT


REDIS_EXPOSED = _RedisExposed(
    id="redis-exposed",
    title="Whoever reaches the host reaches its redis, without a password",
    severity="critical",
    patterns=(
        TextPattern(
            pattern=r"possible security attack detected\. it looks like somebody is sending post",
            examples=(
                "# Possible SECURITY ATTACK detected. It looks like somebody is sending POST or "
                "Host: commands to Redis.",
            ),
        ),
        TextPattern(
            pattern=r"denied redis is running in protected mode",
            examples=(
                "-DENIED Redis is running in protected mode because protected mode is enabled and "
                "no "
                "password is set for the default user.",
            ),
        ),
    ),
    operations=frozenset({"compose.stack"}),
    remedy='publish it on 127.0.0.1 alone, or not at all: ports: ["127.0.0.1:6379:6379"]',
    proof="no redis publishes a port, or listens in the host's network, beyond 127.0.0.1",
)

OLLAMA_EXPOSED = _OllamaExposed(
    id="ollama-exposed",
    title="Whoever reaches the host reaches its model server, which knows no password",
    severity="error",
    operations=frozenset({"compose.stack"}),
    patterns=(
        TextPattern(
            # The server's own log has the address of who asks: here one from outside.
            pattern=r"\| "
            r"{1,8}+(?!10\.|127\.|172\.|192\.168\.|::1)\d{1,3}+\.\d{1,3}+\.\d{1,3}+\.\d{1,3}+"
            r" \| (?:post|get|delete) {1,8}+\"/api/",
            examples=(
                '[GIN] 2026/02/01 - 10:00:00 | 200 | 1.2ms |  203.0.113.7 | POST     "/api/pull"',
            ),
        ),
    ),
    remedy='publish it on 127.0.0.1 alone, or not at all: ports: ["127.0.0.1:11434:11434"]',
    proof="no model server publishes a port, or listens, beyond 127.0.0.1",
)

RESTART_LOOP = Incident(
    id="restart-loop",
    title="A service ends and is started again and again",
    severity="error",
    patterns=(
        TextPattern(
            pattern=r"is restarting, wait until the container is running",
            examples=(
                "Error response from daemon: Container 4f0e is restarting, wait until the "
                "container "
                "is running",
            ),
        ),
        TextPattern(
            pattern=r"\brestarting \(\d{1,3}\) ",
            examples=("ai-worker-1   Restarting (1) 4 seconds ago",),
        ),
        TextPattern(
            pattern=r"start request repeated too quickly",
            examples=("docker.service: Start request repeated too quickly.",),
        ),
    ),
    states=(StatePattern(operation="compose.stack", kinds=frozenset({"restart loop"})),),
    explains=("service-unreachable", "unhealthy"),
    outward=frozenset({"service-unreachable"}),
    remedy="read the service's last lines, and correct what they name: `docker logs NAME`",
    inventory='"mend": {"attempts": 3} sets how often it is made anew',
    proof="it runs healthy and without a restart for the time of `stability`",
)

SERVICE_DOWN = Incident(
    id="service-down",
    title="A service does not run",
    severity="error",
    patterns=(
        TextPattern(
            pattern=r"\bexited \(\d{1,3}\) ",
            examples=("ai-redis-1   Exited (137) 2 minutes ago",),
        ),
        TextPattern(
            pattern=r"container [0-9a-z_.-]{1,100} is not running",
            examples=("Error response from daemon: container ai-redis-1 is not running",),
        ),
        TextPattern(
            pattern=r"service \"[\w.-]{1,100}\" is not running",
            examples=('service "redis" is not running',),
        ),
        TextPattern(
            pattern=r"no such container: ",
            examples=("Error response from daemon: No such container: ai-api-1",),
        ),
    ),
    states=(
        StatePattern(
            operation="compose.stack",
            kinds=frozenset({"missing", "created", "stopped", "exited", "paused", "scale", "hung"}),
        ),
        StatePattern(
            operation="worker.accelerated",
            kinds=frozenset({"no server", "no answer"}),
            notes=True,
            blinds=True,
        ),
        StatePattern(
            operation="models.pulled",
            kinds=frozenset({"absent", "stopped", "unreachable"}),
            blinds=True,
        ),
        StatePattern(
            operation="models.pulled",
            of="refusal",
            cause=r"(?:there is no such model server|the model server does not (?:run|answer))",
            blinds=True,
        ),
    ),
    explains=("service-unreachable", "unhealthy", "model-missing", "restart-loop"),
    outward=frozenset({"service-unreachable"}),
    remedy="start it: `docker compose up -d NAME`",
    proof="compose.stack finds each service running and healthy",
)

PROBE_CANNOT_RUN = Incident(
    id="probe-cannot-run",
    title="A healthcheck cannot run: the image lacks its program",
    severity="warning",
    patterns=(
        TextPattern(
            pattern=r"oci runtime exec failed: .{0,200}(?:executable file not found"
            r"|no such file or directory|permission denied)",
            examples=(
                "OCI runtime exec failed: exec failed: unable to start container process: exec: "
                '"curl": executable file not found in $PATH: unknown',
            ),
        ),
        TextPattern(
            pattern=r"/bin/sh: (?:\d{1,4}: |line \d{1,4}: )?(?:curl|wget|nc|redis-cli): "
            r"(?:command )?"
            r"not found",
            examples=("/bin/sh: 1: curl: not found", "/bin/sh: curl: not found"),
        ),
    ),
    states=(
        StatePattern(
            operation="compose.stack",
            kinds=frozenset({"unknown"}),
            cause=r"healthcheck cannot run",
        ),
    ),
    explains=("unhealthy",),
    confined=frozenset({"unhealthy"}),
    remedy="use a program that the image has, or install this one in the image",
    proof="the healthcheck exits 0",
)

UNHEALTHY = Incident(
    id="unhealthy",
    title="A service is unhealthy, and Docker does not restart it for that",
    severity="error",
    patterns=(
        TextPattern(
            pattern=r"\(unhealthy\)",
            examples=("ai-api-1   Up 5 minutes (unhealthy)",),
        ),
        TextPattern(
            pattern=r"container [\w.-]{1,100} is unhealthy",
            examples=("dependency failed to start: container ai-redis-1 is unhealthy",),
        ),
        TextPattern(
            pattern=r"health_status: unhealthy",
            examples=(
                "2026-02-01T10:00:00Z container health_status: unhealthy 4f0e (name=ai-api-1)",
            ),
        ),
    ),
    states=(StatePattern(operation="compose.stack", kinds=frozenset({"unhealthy", "starting"})),),
    remedy="restart it, and read what its healthcheck prints: `docker inspect NAME`",
    inventory='"mend": {"attempts": 3} sets how often it is restarted',
    proof="its healthcheck passes for the time of `stability`",
)

STALE_RESOLVER = Incident(
    id="stale-resolver",
    title="Containers ask the DNS servers of the time when they were started",
    severity="warning",
    patterns=(
        TextPattern(
            pattern=r"lookup [a-z0-9_.-]{1,200}+ on (?!127\.)[0-9.]{7,15}+:53: .{0,120}"
            r"(?:no route to host|network is unreachable|connection refused)",
            examples=(
                "dial tcp: lookup api.example.com on 192.168.1.1:53: read udp "
                "172.18.0.3:40000->192.168.1.1:53: read: no route to host",
            ),
            sources=frozenset({"container", "command"}),
        ),
    ),
    states=(
        StatePattern(
            operation="compose.stack",
            kinds=frozenset({"drift"}),
            cause=r"it asks the dns servers of when it was started",
            notes=True,
        ),
    ),
    explains=("network-outside", "service-unreachable"),
    confined=frozenset({"network-outside", "service-unreachable"}),
    remedy="restart the container: it is given the DNS servers of now",
    inventory='"allow": ["restart:resolver"]',
    proof="the container asks the servers that one asks which starts now",
)

MODEL_RELOADING = Incident(
    id="model-reloading",
    title="The model is loaded again at every request",
    severity="warning",
    patterns=(
        TextPattern(
            pattern=r"(?:reloading (?:model|runner)|evicting (?:runner|model)|resetting model to"
            r" expire immediately|needs? reload)",
            examples=(
                "time=2026-02-01T10:00:00Z level=DEBUG source=sched.go:171 msg=reloading runner",
                'level=DEBUG source=sched.go:318 msg="resetting model to expire immediately to '
                "make "
                'room"',
            ),
        ),
    ),
    states=(
        StatePattern(
            operation="worker.accelerated",
            kinds=frozenset(
                {
                    "reloaded for its context",
                    "reloaded after an eviction",
                    "reloaded after an unload",
                    "reloaded after a crash",
                }
            ),
            notes=True,
        ),
    ),
    explains=("worker-unaccelerated",),
    remedy="give all clients the same num_ctx and no keep_alive: set OLLAMA_CONTEXT_LENGTH and "
    "OLLAMA_KEEP_ALIVE in the server's environment",
    inventory='"env": {"OLLAMA_KEEP_ALIVE": "30m"}; "worker": {"accelerated": {}} names who asks',
    proof="worker.accelerated finds no load that was avoidable",
)

SERVICES: tuple[Incident, ...] = (
    REDIS_EXPOSED,
    OLLAMA_EXPOSED,
    STALE_RESOLVER,
    PROBE_CANNOT_RUN,
    SERVICE_DOWN,
    RESTART_LOOP,
    UNHEALTHY,
    MODEL_RELOADING,
)
