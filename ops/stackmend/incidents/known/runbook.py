"""The five incidents that stackmend began with.

The texts are those of Docker, git, curl, requests, redis-py, httpx, Node.js, Go and Ollama, and
what Windows says in Portuguese where these run in Docker Desktop or beside it.
"""

from stackmend.connectivity.faults import FaultName
from stackmend.incidents.spec import Incident, StatePattern, TextPattern

_CHAIN = frozenset(
    {
        "no accelerator",
        "no driver",
        "no ROCm",
        "driver hangs",
        "driver mismatch",
        "driver fails",
        "no toolkit",
        "toolkit not registered",
        "image without ROCm",
        "not reserved",
        "not visible",
        "driver hangs in the container",
        "driver fails in the container",
        "not permitted",
        "device removed",
        "access lost",
        "not found by the server",
        "model on CPU",
        "model partly on CPU",
    }
)
_CPU = frozenset(
    {
        "more threads than quota",
        "more threads than cores",
        "few threads",
        "too little memory",
        "swapping",
        "clock held low",
        "no AVX2",
    }
)

WORKER_UNACCELERATED = Incident(
    id="worker-unaccelerated",
    title="The worker is slow: its models are not computed with what the host has",
    severity="warning",
    patterns=(
        TextPattern(
            pattern=r"offloaded 0/\d{1,4} layers to gpu",
            examples=("load_tensors: offloaded 0/33 layers to GPU",),
        ),
        TextPattern(
            pattern=r"no compatible gpus? (?:were|was) (?:discovered|found)",
            examples=(
                'time=2025-02-01T10:00:00Z level=INFO source=gpu.go:392 msg="no compatible GPUs '
                'were discovered"',
            ),
        ),
        TextPattern(
            pattern=r"could not select device driver \"?\"? ?with capabilities: \[\[gpu",
            examples=(
                'docker: Error response from daemon: could not select device driver "" with '
                "capabilities: [[gpu]].",
            ),
        ),
        TextPattern(
            pattern=r"not compiled with gpu offload support",
            examples=(
                "WARN [server_params_parse] Not compiled with GPU offload support, --n-gpu-layers "
                "option will be ignored.",
            ),
        ),
        TextPattern(
            pattern=r"(?:torch not compiled with cuda enabled|torch\.cuda\.is_available\(\) is "
            r"false"
            r"|cuda is not available)",
            examples=(
                "AssertionError: Torch not compiled with CUDA enabled",
                "RuntimeError: Attempting to deserialize object on a CUDA device but "
                "torch.cuda.is_available() is False.",
            ),
        ),
        TextPattern(
            pattern=r"no nvidia driver on your system",
            examples=(
                "RuntimeError: Found no NVIDIA driver on your system. Please check that you have "
                "an "
                "NVIDIA GPU and installed a driver",
            ),
        ),
    ),
    states=(
        StatePattern(operation="worker.accelerated", kinds=_CHAIN | _CPU, notes=True),
        # One that waits for the stack is one all the same.
        StatePattern(
            operation="worker.engine", kinds=frozenset({"legacy worker", "waits"}), notes=True
        ),
        StatePattern(operation="compose.stack", of="refusal", cause=r"it reserves a gpu, and "),
    ),
    remedy="give the model server the accelerator or the processors that the host has, or move the "
    "worker to a server that computes with them",
    inventory='"worker": {"accelerated": {}, "engine": {}}, and "engine": {} for drivers and '
    "toolkit",
    proof="worker.accelerated finds every link from the host to the model, and worker.benchmarked "
    "measures the speed",
)

# Names without a dot, and addresses that nobody outside has.
_INSIDE = r"(?:(?:10|127)\.\d{1,3}+|172\.(?:1[6-9]|2\d|3[01])|192\.168)\.\d{1,3}+\.\d{1,3}+"
_NAME = r"[a-z0-9_-]{1,63}+"

SERVICE_UNREACHABLE = Incident(
    id="service-unreachable",
    title="A service of the stack cannot reach what it calls",
    severity="error",
    patterns=(
        TextPattern(
            pattern=rf"econnrefused,? (?:{_INSIDE}|\[?(?:::1|fd))",
            examples=(
                "Error: connect ECONNREFUSED 127.0.0.1:6379",
                "[ioredis] Unhandled error event: Error: connect ECONNREFUSED 172.18.0.3:6379",
            ),
        ),
        TextPattern(
            pattern=rf"getaddrinfo (?:enotfound|eai_again) (?:{_NAME}|host\.docker\.internal)"
            r"(?:[\s:'\",)]|$)",
            examples=(
                "Error: getaddrinfo ENOTFOUND redis",
                "Error: getaddrinfo EAI_AGAIN redis redis:6379",
                "Error: getaddrinfo ENOTFOUND host.docker.internal",
            ),
        ),
        TextPattern(
            pattern=r"error (?:111|-2|-3|-5|61|10061|11001) connecting to "
            r"[a-z0-9_.-]{1,100}:\d{1,5}",
            examples=(
                "redis.exceptions.ConnectionError: Error 111 connecting to redis:6379. Connection "
                "refused.",
                "redis.exceptions.ConnectionError: Error -3 connecting to redis:6379. Temporary "
                "failure in name resolution.",
                "redis.exceptions.ConnectionError: Error 10061 connecting to localhost:6379. "
                "Nenhuma "
                "conexão pôde ser feita porque a máquina de destino as recusou ativamente.",
            ),
        ),
        TextPattern(
            pattern=rf"host='(?:{_NAME}|{_INSIDE}|host\.docker\.internal)', port=\d{{1,5}}+\): "
            "max retries exceeded",
            examples=(
                "requests.exceptions.ConnectionError: HTTPConnectionPool(host='ollama', "
                "port=11434): "
                'Max retries exceeded with url: /api/chat (Caused by NameResolutionError("'
                "<urllib3.connection.HTTPConnection object at 0x7f0>: Failed to resolve 'ollama' "
                '([Errno -2] Name or service not known)"))',
                "HTTPConnectionPool(host='localhost', port=11434): Max retries exceeded with url: "
                "/api/generate (Caused by NewConnectionError('<urllib3.connection.HTTPConnection "
                "object at 0x7fe894516620>: Failed to establish a new connection: [Errno 111] "
                "Connection refused'))",
            ),
        ),
        TextPattern(
            pattern=rf"failed to resolve '(?:{_NAME}|host\.docker\.internal)'",
            examples=(
                "urllib3.exceptions.NameResolutionError: <urllib3.connection.HTTPConnection object "
                "at 0x7f0>: Failed to resolve 'redis' ([Errno -3] Temporary failure in name "
                "resolution)",
            ),
        ),
        TextPattern(
            pattern=rf"dial tcp: lookup {_NAME}(?: on [^\s]{{1,60}})?: ",
            examples=(
                "dial tcp: lookup ollama on 127.0.0.11:53: no such host",
                "dial tcp: lookup redis on 127.0.0.11:53: server misbehaving",
            ),
        ),
        TextPattern(
            pattern=rf"(?<!proxyconnect tcp: )dial tcp {_INSIDE}:\d{{1,5}}+: (?:connect: "
            rf"|connectex: )?",
            examples=(
                "dial tcp 172.18.0.4:11434: connect: connection refused",
                "dial tcp 127.0.0.1:11434: connectex: Nenhuma conexão pôde ser feita porque a "
                "máquina de destino as recusou ativamente.",
            ),
        ),
        TextPattern(
            pattern=rf"(?:could not resolve host: |failed to connect to ){_NAME}(?: port|\s|$)",
            examples=(
                "curl: (6) Could not resolve host: ollama",
                "curl: (7) Failed to connect to ollama port 11434 after 0 ms: Couldn't connect to "
                "server",
            ),
        ),
        TextPattern(
            pattern=r"(?:connecterror|connectionerror|connectionrefusederror"
            r"|connection refused error|gaierror)\b.{0,80}"
            r"(?:\[[a-z]{5,8}+ (?:111|-2|-3|-5|61|10061|11001)\]|all connection attempts failed)",
            examples=(
                "httpx.ConnectError: [Errno 111] Connection refused",
                "httpx.ConnectError: All connection attempts failed",
                "socket.gaierror: [Errno -2] Name or service not known",
                "ConnectionRefusedError: [WinError 10061] Nenhuma conexão pôde ser feita porque a "
                "máquina de destino as recusou ativamente",
            ),
        ),
    ),
    faults=frozenset({"refused"}),
    states=(
        StatePattern(operation="compose.stack", kinds=frozenset({"link", "check"})),
        # It fails no run, as a run would recreate what has it.
        StatePattern(operation="compose.stack", kinds=frozenset({"address"}), notes=True),
        StatePattern(
            operation="compose.stack",
            kinds=frozenset({"drift"}),
            cause=r"networks\.[^\s:]{1,100}+: detached",
        ),
        StatePattern(operation="engine.installed", kinds=frozenset({"foreign rule"}), notes=True),
        StatePattern(operation="connectivity.checked", cause=r", in containers alone$", notes=True),
    ),
    explains=("unhealthy",),
    remedy="correct the address that the service is given, or bring its target and its network "
    "back",
    inventory='"links": {"on_conflict": "override"} corrects wrong addresses',
    proof="the stack's checks and links answer from inside the calling container",
)

PORT_TAKEN = Incident(
    id="port-taken",
    title="A port that the stack needs is already allocated",
    severity="error",
    patterns=(
        TextPattern(
            pattern=r"port is already allocated",
            examples=(
                "Error response from daemon: driver failed programming external connectivity on "
                "endpoint ai-api-1: Bind for 0.0.0.0:8000 failed: port is already allocated",
            ),
        ),
        TextPattern(
            pattern=r"(?:address already in use|eaddrinuse)",
            examples=(
                "Error starting userland proxy: listen tcp4 0.0.0.0:8000: bind: address already in "
                "use",
                "Error: listen EADDRINUSE: address already in use :::3000",
            ),
        ),
        TextPattern(
            pattern=r"ports are not available: exposing port",
            examples=(
                "Error response from daemon: ports are not available: exposing port TCP "
                "0.0.0.0:3306 -> 127.0.0.1:0: listen tcp 0.0.0.0:3306: bind: Only one usage of "
                "each "
                "socket address (protocol/network address/port) is normally permitted.",
            ),
        ),
        TextPattern(
            pattern=r"only one usage of each socket address",
            examples=(
                "[WinError 10048] Only one usage of each socket address (protocol/network "
                "address/port) is normally permitted",
            ),
        ),
        TextPattern(
            pattern=r"normalmente .{1,3} permitida apenas uma utiliza.{2,6}o de cada endere.{1,3}o",
            examples=(
                "bind: Normalmente é permitida apenas uma utilização de cada endereço de soquete "
                "(protocolo/endereço de rede/porta).",
            ),
        ),
        TextPattern(
            pattern=r"(?:proibida pelas permiss.{1,3}es de acesso|forbidden by its access "
            r"permissions)",
            examples=(
                "listen tcp 127.0.0.1:8080: bind: Foi feita uma tentativa de acesso a um soquete "
                "de "
                "uma maneira que é proibida pelas permissões de acesso.",
                "bind: An attempt was made to access a socket in a way forbidden by its access "
                "permissions.",
            ),
        ),
        TextPattern(
            pattern=r"endere.{1,3}o j.{1,3} (?:est.{1,3} )?(?:em|sendo) us(?:o|ado)",
            examples=("bind: Endereço já em uso",),
        ),
    ),
    states=(
        StatePattern(operation="ports.free", kinds=frozenset({"held", "allocated"})),
        StatePattern(operation="ports.free", of="refusal", cause=r"^held by "),
    ),
    explains=("service-down", "service-unreachable", "restart-loop"),
    confined=frozenset({"service-down", "restart-loop"}),
    outward=frozenset({"service-unreachable"}),
    remedy="stop what holds the port, or give the stack another one",
    inventory='"ports": {"on_conflict": "stop", "allow": ["unit:NAME.service"]}',
    proof="ports.free finds each port bound by the stack or free",
)

MODEL_MISSING = Incident(
    id="model-missing",
    title="The model server has no such model: /api/chat answers 404 until it is pulled",
    severity="error",
    patterns=(
        TextPattern(
            pattern=r"model ['\"\\]{0,3}+[\w./:-]{1,200}+['\"\\]{0,3}+ (?:was )?not found"
            r"(?:, try pulling)?",
            examples=(
                '{"error":"model \'llama3.2:1b\' not found"}',
                'Error: model "mistral" not found, try pulling it first',
                "openai.NotFoundError: Error code: 404 - {'error': {'message': 'model \"llama3\" "
                "not found, try pulling it first', 'type': 'api_error'}}",
            ),
        ),
        TextPattern(
            pattern=r"\b404\b.{0,200}/(?:api/(?:chat|generate|embed|embeddings)"
            r"|v1/chat/completions)",
            examples=(
                '[GIN] 2026/02/01 - 10:00:00 | 404 | 1.2ms | 172.18.0.4 | POST "/api/chat"',
                "404 Client Error: Not Found for url: http://ollama:11434/api/chat",
            ),
        ),
        TextPattern(
            pattern=r"/(?:api/(?:chat|generate|embed|embeddings)"
            r"|v1/chat/completions)\b.{0,80}\b404\b",
            examples=(
                'INFO httpx: HTTP Request: POST http://ollama:11434/api/chat "HTTP/1.1 404 Not '
                'Found"',
            ),
        ),
        TextPattern(
            pattern=r"maybe your model is not found and you should pull the model",
            examples=(
                "OllamaEndpointNotFoundError: Ollama call failed with status code 404. Maybe your "
                "model is not found and you should pull the model with `ollama pull llama2`.",
            ),
        ),
        TextPattern(
            pattern=r"(?:o )?modelo .{1,200} n.{1,3}o (?:foi )?encontrado",
            examples=("Erro 404: o modelo llama3 não foi encontrado",),
        ),
    ),
    states=(
        StatePattern(operation="models.pulled", kinds=frozenset({"missing", "broken"})),
        # Nobody declares it, but a service asks for it. A variable of another name, such as
        # WHISPER_MODEL, may be for another server, and stays a note.
        StatePattern(
            operation="models.pulled", kinds=frozenset({"named"}), cause=r"^ollama_", notes=True
        ),
        StatePattern(
            operation="models.pulled", of="refusal", cause=r"(?:not on the server|not intact)"
        ),
    ),
    explains=("unhealthy",),
    remedy="pull the model: `ollama pull NAME` on its server",
    inventory='"models": {"wanted": ["NAME"]}',
    proof="models.pulled has each model answer a request",
)

#: What keeps a host from the outside, in the words of `connectivity`. A refusal is none where a
#: text alone says so: whoever refuses may be a service of the stack.
_OUTSIDE: frozenset[FaultName] = frozenset(
    {
        "name",
        "timeout",
        "resolver",
        "dns-server",
        "dns-blocked",
        "route",
        "ipv6",
        "loss",
        "docker-proxy",
        "proxy",
        "portal",
        "tls",
        "protocol",
        "reset",
        "empty-reply",
        "outage",
    }
)

NETWORK_OUTSIDE = Incident(
    id="network-outside",
    title="git or Docker cannot reach the outside: name, route or connection fails",
    severity="error",
    patterns=(
        TextPattern(
            pattern=r"empty reply from server",
            examples=(
                "fatal: unable to access 'https://github.com/acme/app.git/': Empty reply from "
                "server",
                "curl: (52) Empty reply from server",
            ),
        ),
        TextPattern(
            pattern=r"https?://[a-z0-9_-]{1,63}+\.[^\s]{1,300}+ .{0,200}connection refused",
            examples=(
                'Error response from daemon: Get "https://registry-1.docker.io/v2/": dial tcp '
                "52.87.94.70:443: connect: connection refused",
            ),
        ),
        TextPattern(
            pattern=r"(?:connection was reset|connection reset by peer)",
            sources=frozenset({"engine", "unit", "command"}),
            examples=(
                "fatal: unable to access 'https://github.com/acme/app.git/': Recv failure: "
                "Connection was reset",
                'Error response from daemon: Get "https://registry-1.docker.io/v2/": read tcp '
                "172.17.0.3:57816->104.21.75.227:443: read: connection reset by peer",
            ),
        ),
        TextPattern(
            pattern=r"dial tcp: lookup [a-z0-9_-]{1,63}+\.[a-z0-9_.-]{1,190}+.{0,60}: (?:no such "
            r"host"
            r"|i/o timeout|server misbehaving)",
            examples=(
                "Error response from daemon: Get https://registry-1.docker.io/v2/: dial tcp: "
                "lookup "
                "registry-1.docker.io on 192.168.65.1:53: no such host",
            ),
        ),
        TextPattern(
            pattern=r"could not resolve host(?:name)?:? "
            r"['\"]?[a-z0-9_-]{1,63}+\.[a-z0-9_.-]{1,190}",
            examples=(
                "fatal: unable to access 'https://github.com/acme/app.git/': Could not resolve "
                "host: "
                "github.com",
                "ssh: Could not resolve hostname github.com: Name or service not known",
            ),
        ),
        TextPattern(
            pattern=r"for.{1,3}ado o cancelamento de uma conex.{1,3}o existente",
            examples=(
                "read tcp 192.168.1.5:50123->104.16.100.215:443: wsarecv: Foi forçado o "
                "cancelamento de uma conexão existente pelo host remoto.",
            ),
        ),
        TextPattern(
            pattern=r"existing connection was forcibly closed by the remote host",
            examples=("wsarecv: An existing connection was forcibly closed by the remote host.",),
        ),
        TextPattern(
            pattern=r"este host n.{1,3}o .{1,3} conhecido",
            examples=("lookup registry-1.docker.io: Este host não é conhecido.",),
        ),
        TextPattern(
            pattern=r"componente conectado n.{1,3}o respondeu",
            examples=(
                "dial tcp 104.16.100.215:443: connectex: Uma tentativa de conexão falhou porque o "
                "componente conectado não respondeu corretamente após um período de tempo",
            ),
        ),
        TextPattern(
            pattern=r"n.{1,3}o foi poss.{1,3}vel resolver (?:o nome|'|endere)",
            examples=(
                "W: Falhou obter http://deb.debian.org/debian/dists/bookworm/InRelease  Não foi "
                "possível resolver 'deb.debian.org'",
            ),
        ),
    ),
    faults=_OUTSIDE,
    states=(
        StatePattern(
            operation="connectivity.checked",
            kinds=_OUTSIDE | {"refused"},
            cause=r"^.{1,400}+(?<!, in containers alone)$",
            notes=True,
        ),
        StatePattern(
            operation="resolver.servers", kinds=frozenset({"names do not resolve"}), notes=True
        ),
        StatePattern(operation="models.pulled", of="refusal", cause=r"cannot ask "),
    ),
    explains=("model-missing",),
    remedy="mend the layer that the finding names: resolver, route, proxy, or whoever closes the "
    "connection on the way",
    inventory='"connectivity": {} names the layer; "resolver": {"servers": [...]} sets DNS servers',
    proof="connectivity.checked reaches each endpoint three times",
)

RUNBOOK: tuple[Incident, ...] = (
    NETWORK_OUTSIDE,
    PORT_TAKEN,
    MODEL_MISSING,
    SERVICE_UNREACHABLE,
    WORKER_UNACCELERATED,
)
