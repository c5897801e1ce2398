"""Incidents of the host and its engine: what they cause is met in services."""

from collections.abc import Iterator

from stackmend.compose.state import StackState
from stackmend.diagnosis import Evidence
from stackmend.incidents.spec import Incident, StatePattern, TextPattern
from stackmend.incidents.state import Observations

ENGINE_DOWN = Incident(
    id="engine-down",
    title="The container engine does not answer",
    severity="critical",
    patterns=(
        TextPattern(
            pattern=r"cannot connect to the docker daemon",
            examples=(
                "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker "
                "daemon running?",
            ),
        ),
        TextPattern(
            pattern=r"failed to connect to the docker api",
            examples=(
                "failed to connect to the docker API at unix:///var/run/docker.sock; check if the "
                "path is correct and if the daemon is running",
            ),
        ),
        TextPattern(
            pattern=r"error during connect: .{0,200}(?:docker_?engine|/var/run/docker|:237[56])",
            examples=(
                "error during connect: Get http://127.0.0.1:2375/v1.27/containers/json: dial tcp "
                "127.0.0.1:2375: connectex: No connection could be made because the target machine "
                "actively refused it.",
                "error during connect: this error may indicate that the docker daemon is not "
                'running: Get "http://%2F%2F.%2Fpipe%2Fdocker_engine/v1.24/info": open '
                "//./pipe/docker_engine: O sistema não pode encontrar o arquivo especificado.",
            ),
        ),
    ),
    states=(
        StatePattern(
            operation="compose.stack",
            of="refusal",
            subject=r"^engine$",
            cause=r"(?:docker|daemon)",
            blinds=True,
        ),
        StatePattern(
            operation="engine.installed",
            of="step",
            kinds=frozenset({"start"}),
            subject=r"^(?:engine|containerd)$",
        ),
        StatePattern(
            operation="engine.installed",
            of="step",
            kinds=frozenset({"restart"}),
            cause=r"(?:hangs|does not answer)",
        ),
        StatePattern(
            operation="engine.installed",
            of="refusal",
            cause=r"(?:hangs|does not answer|does not start|nobody may execute)",
            blinds=True,
        ),
    ),
    explains=(
        "service-down",
        "service-unreachable",
        "unhealthy",
        "restart-loop",
        "model-missing",
        "worker-unaccelerated",
        "model-reloading",
        "packet-filter-lost",
    ),
    everywhere=frozenset(
        {
            "service-down",
            "service-unreachable",
            "unhealthy",
            "restart-loop",
            "model-missing",
            "worker-unaccelerated",
            "model-reloading",
            "packet-filter-lost",
        }
    ),
    remedy="start the engine, and read in its journal why it stopped: journalctl -u docker",
    inventory='"engine": {} starts it; "engine": {"allow": ["restart"]} restarts one that hangs',
    proof="engine.installed has an answer from it",
)

DISK_FULL = Incident(
    id="disk-full",
    title="A disk of the host is full",
    severity="critical",
    patterns=(
        TextPattern(
            pattern=r"(?:no space left on device|enospc|disk quota exceeded)",
            examples=(
                "write /var/lib/docker/tmp/GetImageBlob1: no space left on device",
                "OSError: [Errno 28] No space left on device",
                "Error: ENOSPC: no space left on device, write",
            ),
        ),
        TextPattern(
            pattern=r"misconf .{0,60}(?:unable to persist|not able to persist|configured to save)",
            examples=(
                "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to "
                "persist to disk.",
            ),
        ),
        TextPattern(
            pattern=r"n.{1,3}o h.{1,3} (?:mais )?espa.{1,3}o dispon.{1,3}vel no dispositivo",
            examples=("cp: erro de escrita em 'x': Não há espaço disponível no dispositivo",),
        ),
        TextPattern(
            pattern=r"espa.{1,3}o insuficiente no disco",
            examples=("Espaço insuficiente no disco.",),
        ),
    ),
    states=(
        StatePattern(operation="compose.stack", of="refusal", subject=r"^disk$", blinds=True),
        StatePattern(
            operation="compose.stack", cause=r"(?:no space left|quota exceeded|enospc|misconf)"
        ),
        StatePattern(operation="models.pulled", of="refusal", subject=r"^space$"),
        StatePattern(operation="models.pulled", of="refusal", cause=r"no space left"),
    ),
    explains=(
        "engine-down",
        "service-down",
        "restart-loop",
        "unhealthy",
        "model-missing",
        "service-unreachable",
        "probe-cannot-run",
    ),
    outward=frozenset({"service-unreachable"}),
    everywhere=frozenset({"engine-down"}),
    remedy="free space: `df -h` shows where, `docker system df` what Docker holds",
    inventory='"models": {"prune": True} removes models that stackmend pulled and nobody wants; '
    '"minimum_free" sets what must stay free',
    proof="more is free than minimum_free, and what failed to write writes",
)

OOM_TEXT = TextPattern(
    pattern=r"(?:oom-?kill|out of memory: kill|invoked oom-killer|killed process \d{1,8} \()",
    examples=(
        "Out of memory: Killed process 4242 (ollama) total-vm:9000000kB, anon-rss:8000000kB",
        "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=docker-1.scope",
    ),
)


class _OomKilled(Incident):
    """Derived from what the engine says of containers, once they are down or start again."""

    def find(self, observations: Observations) -> Iterator[tuple[str, Evidence]]:
        for state in observations.list_states(StackState):
            for each in state.containers:
                # The engine goes on saying so of one that runs well again.
                young = each.restart_count and state.now - each.started_at < _RECENT
                if each.oom_killed and (young or not each.running):
                    line = f"{each.name}: OOMKilled, restarted {each.restart_count} times"
                    yield each.service or each.name, Evidence(line=line, source="docker inspect")


_RECENT = 600.0

OOM_KILLED = _OomKilled(
    id="oom-killed",
    title="The kernel kills a service for want of memory",
    severity="critical",
    patterns=(
        OOM_TEXT,
        TextPattern(
            pattern=r"(?:cannot allocate memory|cuda out of memory|std::bad_alloc"
            r"|model requires more system memory)",
            examples=(
                "fork: Cannot allocate memory",
                "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
                "Error: model requires more system memory (9.1 GiB) than is available (7.4 GiB)",
            ),
        ),
        TextPattern(
            pattern=r"mem.{1,3}ria insuficiente|n.{1,3}o (?:foi )?poss.{1,3}vel alocar "
            r"mem.{1,3}ria",
            examples=("fork: Não foi possível alocar memória",),
        ),
    ),
    states=(
        StatePattern(
            operation="compose.stack",
            kinds=frozenset({"exited", "restart loop", "unhealthy", "stopped"}),
            cause=r"(?:oom-killed|out of memory|cannot allocate memory|outofmemoryerror|bad_alloc)",
        ),
    ),
    explains=(
        "restart-loop",
        "service-down",
        "unhealthy",
        "service-unreachable",
        "model-reloading",
    ),
    confined=frozenset({"restart-loop", "service-down", "unhealthy"}),
    outward=frozenset({"service-unreachable"}),
    remedy="raise the service's memory limit, or have it need less: a smaller model, a smaller "
    "context, fewer requests at a time",
    inventory='"env": {"OLLAMA_MEMORY": "8g"}, or mem_limit in the compose file',
    proof="the service runs without a restart, and the kernel's log names it no more",
)

GPU_LOST = Incident(
    id="gpu-lost",
    title="The host or its container has lost the GPU",
    severity="error",
    patterns=(
        TextPattern(
            pattern=r"gpu has fallen off the bus",
            examples=("NVRM: Xid (PCI:0000:01:00): 79, GPU has fallen off the bus.",),
        ),
        TextPattern(
            pattern=r"(?:unable to determine the device handle for gpu|gpu is lost)",
            examples=(
                "Unable to determine the device handle for GPU0000:01:00.0: GPU is lost. Reboot "
                "the "
                "system to recover this GPU",
            ),
        ),
        TextPattern(
            pattern=r"failed to initialize nvml: ",
            examples=(
                "Failed to initialize NVML: Unknown Error",
                "Failed to initialize NVML: Driver/library version mismatch",
            ),
        ),
    ),
    states=(
        StatePattern(operation="worker.accelerated", kinds=frozenset({"GPU lost"}), notes=True),
    ),
    explains=("worker-unaccelerated", "model-reloading"),
    remedy="restart the container; where the host itself has lost it, restart the host",
    inventory='"worker": {"accelerated": {}} finds it',
    proof="nvidia-smi lists the GPU on the host and in the container",
)

CLOCK_SKEW = Incident(
    id="clock-skew",
    title="The clock of the host is wrong",
    severity="error",
    patterns=(
        TextPattern(
            pattern=r"certificate (?:is not yet valid|has expired or is not yet valid)",
            examples=(
                "tls: failed to verify certificate: x509: certificate has expired or is not yet "
                "valid: current time 2019-01-01T00:00:00Z is before 2024-01-01T00:00:00Z",
            ),
        ),
        TextPattern(
            pattern=r"release file for .{1,200} is not valid yet",
            examples=(
                "E: Release file for http://deb.debian.org/debian/dists/bookworm-updates/InRelease "
                "is not valid yet (invalid for another 2h 3min 4s).",
            ),
        ),
        TextPattern(
            pattern=r"certificado emitido ainda n.{1,3}o .{1,3} v.{1,3}lido",
            examples=("o certificado emitido ainda não é válido",),
        ),
    ),
    faults=frozenset({"clock"}),
    states=(
        StatePattern(operation="access.basics", kinds=frozenset({"skew"})),
        StatePattern(operation="connectivity.checked", kinds=frozenset({"clock"}), notes=True),
    ),
    explains=("network-outside", "model-missing"),
    remedy="set the clock, and keep it right: chrony or systemd-timesyncd",
    inventory='"access": {"clock": True}',
    proof="the host's clock is within a second of the controller's",
)

MTU = Incident(
    id="mtu",
    title="Large packets do not arrive: the MTU is too large for the path",
    severity="error",
    patterns=(
        TextPattern(
            pattern=r"(?:frag(?:mentation)? needed and df set|message too long, mtu[ =]?\d{1,5})",
            examples=(
                "From 10.0.0.1 icmp_seq=1 Frag needed and DF set (mtu = 1420)",
                "ping: local error: message too long, mtu=1420",
            ),
        ),
    ),
    faults=frozenset({"mtu"}),
    states=(StatePattern(operation="connectivity.checked", kinds=frozenset({"mtu"}), notes=True),),
    explains=("network-outside",),
    remedy="set the MTU that the path carries, and let ICMP 'fragmentation needed' through",
    inventory='"engine": {"mtu": 1420}',
    proof="connectivity.checked reaches the endpoint with large packets",
)

RATE_LIMITED = Incident(
    id="rate-limited",
    title="A provider's rate limit is reached",
    severity="warning",
    patterns=(
        TextPattern(
            pattern=r"(?:toomanyrequests|too many requests|pull rate limit|429 client error)",
            examples=(
                "Error response from daemon: toomanyrequests: You have reached your "
                "unauthenticated "
                "pull rate limit. https://www.docker.com/increase-rate-limit",
                "fatal: unable to access 'https://github.com/acme/app.git/': The requested URL "
                "returned error: 429 Too Many Requests",
            ),
        ),
        TextPattern(
            pattern=r"api rate limit exceeded",
            examples=('{"message":"API rate limit exceeded for 192.0.2.1."}',),
        ),
    ),
    faults=frozenset({"rate-limit"}),
    states=(
        StatePattern(operation="connectivity.checked", kinds=frozenset({"rate-limit"}), notes=True),
    ),
    explains=("network-outside", "model-missing"),
    remedy="wait for the reset, log in to the provider, or use a mirror",
    inventory='"engine": {"registry_mirrors": ["https://mirror.lan"]}',
    proof="connectivity.checked finds requests left",
)

PACKET_FILTER_LOST = Incident(
    id="packet-filter-lost",
    title="What Docker made in the kernel for its networks is gone: rules, bridges, addresses",
    severity="critical",
    patterns=(
        TextPattern(
            pattern=r"(?:iptables.{0,80}no chain/target/match by that name|iptables failed: )",
            examples=(
                "iptables: No chain/target/match by that name.",
                "Error response from daemon: driver failed programming external connectivity: "
                "(iptables failed: iptables --wait -t nat -A DOCKER -p tcp",
            ),
        ),
    ),
    states=(
        StatePattern(operation="engine.installed", kinds=frozenset({"lost rules"}), notes=True),
        StatePattern(
            operation="engine.installed",
            of="step",
            cause=r"(?:the bridge of the network|is off the bridge|lost its address)",
        ),
    ),
    explains=("network-outside", "service-unreachable", "unhealthy"),
    everywhere=frozenset({"network-outside", "service-unreachable"}),
    remedy="restart the engine, which makes its rules again: systemctl restart docker",
    inventory='"engine": {"allow": ["restart"]}',
    proof="engine.installed finds a rule for each network and published port",
)

ADDRESS_POOLS = Incident(
    id="address-pools-used-up",
    title="Docker has no subnet left for a new network",
    severity="error",
    patterns=(
        TextPattern(
            pattern=r"(?:could not find an available, non-overlapping ipv4 address pool"
            r"|all predefined address pools have been fully subnetted)",
            examples=(
                "Error response from daemon: could not find an available, non-overlapping IPv4 "
                "address pool among the defaults to assign to the network",
                "failed to create network ai_default: Error response from daemon: all predefined "
                "address pools have been fully subnetted",
            ),
        ),
    ),
    states=(
        StatePattern(operation="compose.stack", of="refusal", cause=r"address pools are used up"),
    ),
    explains=("service-down", "service-unreachable"),
    remedy="remove networks that nobody uses (docker network prune), or give the engine more pools",
    inventory='"engine": {"address_pools": [{"base": "10.200.0.0/16", "size": 24}]}',
    proof="the network of the project exists",
)

HOST: tuple[Incident, ...] = (
    DISK_FULL,
    ENGINE_DOWN,
    PACKET_FILTER_LOST,
    ADDRESS_POOLS,
    OOM_KILLED,
    GPU_LOST,
    CLOCK_SKEW,
    MTU,
    RATE_LIMITED,
)
