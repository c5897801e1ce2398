"""What an error's text says about the outside world. Pure.

Programs wrap what they pass on (``failed to solve: … : dial tcp: lookup …: no such host``), and
logs end with what follows from the cause (``fatal: early EOF``). So the match that ends last
decides, of those that end together the longest; what only follows from a cause counts where no
cause is there. Text comes from elsewhere, in any size: each pattern takes time in proportion to it.
"""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

from stackmend.connectivity.faults import FaultName

#: Characters of a text that are read, the last ones.
MAXIMUM = 4 * 1024**2

_CODES: dict[int, FaultName] = {
    401: "denied",
    403: "denied",
    404: "absent",
    407: "proxy",
    408: "timeout",
    410: "absent",
    429: "rate-limit",
    511: "portal",
    **dict.fromkeys((500, 502, 503, 504, *range(520, 531)), "outage"),
}

# Of one cause each line; in small letters, and with an end to every repetition.
_CAUSES: dict[FaultName | None, tuple[str, ...]] = {
    "name": (
        r"\blookup [^\s:]{1,253}(?: on [^\s]{2,60}:\d{1,5})?:[^\n\"]{0,200}?"
        r"(?:no such host|i/o timeout|server misbehaving|connection refused|network is unreachable"
        r"|no route to host|operation was canceled|try again|connection reset by peer"
        r"|no answer from dns server|cannot unmarshal dns message)",
        r"no such host\b",
        r"(?:could not|couldn't) resolve (?:host(?:name)?\b|')",
        r"temporary failure (?:in name resolution|resolving)",
        r"name or service not known",
        r"nodename nor servname provided",
        r"getaddrinfo(?: failed|: name does not resolve|\(\) failed)",
        r"bad address '[^'\n]{1,253}'",
        r"unable to (?:look up|resolve host address) ",
        r"name resolution failure|nameresolutionerror",
        r"não foi possível resolver (?:'|endereço)",
        r"impossível resolver o endereço do servidor",
        r"falha temporári[ao] (?:resolvendo|a resolver|na resolução de nome)",
        r"nome ou serviço desconhecido",
    ),
    "proxy": (
        r"proxyconnect tcp:[^\n]{0,300}",
        r"(?:could not|couldn't) resolve proxy",
        r"connect tunnel failed, response \d{3}",
        r"received http code \d{3} from proxy after connect",
        r"tunnel connection failed: \d{3}",
        r"cannot connect to proxy\.?'(?:, (?:oserror|newconnectionerror)[^\n]{0,300})?",
        r"proxy authentication required",
        r"error connecting to proxy [^\n]{0,300}",
        r"invalid response from proxy[^\n]{0,100}",
        r"proxy connect aborted",
        r"o tunelamento pelo proxy falhou|túnel proxy falhou",
    ),
    "portal": (
        r"network authentication required",
        r"does the network require authentication\?",
    ),
    "timeout": (
        r"i/o timeout",
        r"i/o timed out",
        r"tls handshake timeout",
        r"client\.timeout (?:or context cancellation )?(?:exceeded )?while (?:awaiting|reading)",
        r"client\.timeout exceeded",
        r"context deadline exceeded",
        r"timeout awaiting response headers",
        r"(?:connection|operation|read|connect|request|ssl connection|resolving) timed out",
        r"connection to [^\s'\"]{1,253} timed out",
        r"port \d{1,5}(?: after \d{1,9} ms)?: timed out",
        r"after \d{5,9} ms: (?:couldn't|could not) connect to server",
        r"operation too slow\. less than",
        r"tempo esgotado para conexão",
        r"(?:a )?conexão expirou|o tempo da ligação expirou|ligação expirada",
    ),
    "refused": (
        r"connection refused",
        r"failed to connect to [^\s]{1,253} port \d{1,5}(?: after \d{1,4} ms)?: "
        r"(?:couldn't|could not) connect to server",
        r"target machine actively refused it",
        r"(?:conexão|ligação) recusada",
    ),
    "ipv6": (
        r"(?:\[|\()[0-9a-f:]{2,39}(?:%\w{1,15})?(?:\]|\))(?::\d{1,5}|\.)?[^\n]{0,40}?"
        r"(?:network is unreachable|no route to host|cannot assign requested address)",
    ),
    "route": (
        r"network is unreachable",
        r"no route to host",
        r"host is unreachable",
        r"a rede está fora de alcance|rede inacessível",
        r"não há rota para o host|sem caminho para o anfitrião",
    ),
    "clock": (
        r"current time [^\s]{1,40} is before",
        r"certificate is not yet valid",
        r"certificate (?:of [^\s]{1,253} )?(?:has not yet been|is not yet) activated",
        r"issued certificate not yet valid",
        r"is not valid yet \(invalid for another",
        r"certificado emitido ainda não é válido",
        r"o certificado (?:não foi ativado ainda|ainda não foi activado)",
    ),
    "tls": (
        r"current time [^\s]{1,40} is after",
        r"certificate has expired(?: or is not yet valid)?",
        r"certificate signed by unknown authority",
        r"certificate (?:is valid for|is not valid for|relies on legacy common name)",
        r"cannot validate certificate for",
        r"(?:certificate verify|server certificate verification) failed",
        r"certificate_verify_failed",
        r"unable to get (?:local )?issuer certificate",
        r"self[- ]signed certificate",
        r"no alternative certificate subject name matches",
        r"certificate subject name [^\n]{0,300}?does not match",
        r"hostname [^\n]{0,300}?doesn't match",
        r"server gave http response to https client",
        r"first record does not look like a tls handshake",
        r"wrong[ _]version[ _]number",
        r"bad record mac",
        r"tlsv?1? ?alert|remote error: tls:|alert handshake failure|handshake failure",
        r"certificate verification failed: the certificate is not trusted",
        r"foi encontrado um certificado auto-assinado|encontrado certificado auto-assinado",
    ),
    "reset": (
        r"connection reset by peer",
        r"connection was reset",
        r"connection reset\b",
        r"ssl_error_syscall, errno (?:104|54|10054)",
        r"connectionreseterror",
        r"broken pipe",
        r"existing connection was forcibly closed by the remote host",
        r"gnutls recv error \(-54\)",
        r"http/2 stream \d{1,9} was not closed cleanly",
        r"stream error: stream id \d{1,9}; \w{1,40}",
        r"software caused connection abort",
        r"conexão fechada pela outra ponta|ligação reposta pelo peer",
    ),
    "empty-reply": (
        r"empty reply from server",
        r"(?<!early )\beof(?=[ \t\"')]{0,9}$)",
        r"unexpected eof",
        r"remote end closed connection(?: without response)?",
        r"server closed connection without (?:sending|response)",
        r"ssl_error_syscall(?! ?, errno (?:104|54|10054))",
        r"tls connection was non-properly terminated",
        r"transfer closed with (?:\d{1,20} bytes|outstanding read data) remaining(?: to read)?",
        r"end of file while reading",
        r"incompleteread\(|incomplete read",
        r"server sent goaway and closed the connection",
        r"connection closed by (?:remote host|[0-9a-f.:]{2,45} port \d{1,5})",
        r"kex_exchange_identification: ",
        r"ponto remoto fechou a conexão|o lado remoto fechou a ligação",
    ),
    "rate-limit": (
        r"toomanyrequests",
        r"too many requests",
        r"pull rate limit",
        r"rate limit (?:exceeded|reached)|exceeded (?:a |the )?(?:secondary )?rate limit",
    ),
    "outage": (
        r"service unavailable",
        r"bad gateway",
        r"gateway time-?out",
        r"service temporarily unavailable",
        r"remote: internal server error",
    ),
    "denied": (
        r"pull access denied for [^\n]{0,300}?docker login'?",
        r"requested access to the resource is denied|access forbidden",
        r"authentication (?:is )?required|authenticationrequired",
        r"no basic auth credentials",
        r"insufficient_scope: authorization failed",
        r"\bunauthorized: ",
        r"incorrect username or password",
        r"authentication failed for '",
        r"could not read (?:username|password) for '",
        r"invalid (?:username or (?:password|token)|credentials)",
        r"permission denied \((?:publickey|password|keyboard-interactive)",
        r"host key verification failed",
        r"write access to repository not granted",
        r"http basic: access denied",
        r"\bforbidden \[ip:",
        r"autenticação falhou para '",
    ),
    "absent": (
        r"manifest (?:for [^\s]{1,300} not found|unknown)",
        r"[a-z0-9-]{1,63}[.:][a-z0-9.:-]{1,190}/[\w./-]{1,200}"
        r"(?::[\w.-]{1,128}|@sha256:[0-9a-f]{1,64}): not found",
        r"pull model manifest: file does not exist",
        r"repository not found",
        r"repository '[^'\n]{1,300}' (?:not found|does not exist)",
        r"does not appear to be a git repository",
        r"couldn't find remote ref",
        r"remote branch [^\s]{1,250} not found in upstream",
        r"not our ref",
        r"remote does not contain|no such remote ref",
        r"the project you were looking for could not be found",
        r"repositório '[^'\n]{1,300}' inexistente",
        r"incapaz encontrar ref remoto",
        r"ramo remoto [^\s]{1,250} por encontrar em upstream",
    ),
    # What has another cause, and must not be called by what stands before it.
    None: (
        r"no space left on device|disk quota exceeded",
        r"cannot connect to the docker daemon|is the docker daemon running",
        r"dial unix [^\n]{0,300}",
        r"resolutionimpossible",
        r"refusing to merge unrelated histories",
        r"automatic merge failed",
        r"would be overwritten by (?:merge|checkout)",
        r"dockerfile parse error",
        r"port is already allocated|address already in use",
        r"out of memory|oom-?killed",
        r"no_pubkey",
    ),
}

# What follows from a cause that stands before it, and says something where none does.
_CONSEQUENCES: dict[FaultName, tuple[str, ...]] = {
    "empty-reply": (
        r"early eof|eof prematuro",
        r"the remote end hung up (?:unexpectedly|upon initial contact)",
        r"o lado remoto desligou (?:inesperadamente|após contacto inicial)",
        r"unexpected disconnect while reading sideband packet",
        r"expected flush after ref listing",
    ),
    "absent": (
        r"no matching distribution found for",
        r"could not find a version that satisfies the requirement",
        r"unable to locate package",
        r"does not have a release file",
    ),
}

# A status code behind words that say that it is one.
_CODED = re.compile(
    r"(?:returned error: |\bhttp/[\d.]{1,3} |\bhttp |\berror "
    r"|http (?:status|code|error)(?: code)?:? "
    r"|unexpected (?:http )?status(?: code)? (?:https?://[^\s]{1,600}: )?|\bstatus(?: code)?:? "
    r"|remote response: )([45]\d\d)(?![\w.])"
    r"|\b([45]\d\d) {1,2}(?:client error|not found|forbidden|unauthorized|too many requests"
    r"|internal server error|proxy authentication required|gone\b)"
)

_PATTERNS = [
    (name, re.compile(pattern, re.M)) for name, patterns in _CAUSES.items() for pattern in patterns
]
_LATER = [
    (name, re.compile(pattern)) for name, patterns in _CONSEQUENCES.items() for pattern in patterns
]
# Colours, which programs write between words.
_COLOUR = re.compile(r"\x1b\[[0-9;:?]{0,40}[A-Za-z]")


class Cause(NamedTuple):
    """What an error's text says.

    :param name: the class.
    :param line: the line that says so, as it stands in the text.
    """

    name: FaultName
    line: str


def classify(text: str) -> FaultName | None:
    """The class of trouble with the outside world that an error's text is about.

    Knows what git, Docker, BuildKit, pip, curl, apt, wget, ssh and Ollama print, in English and,
    where they speak it, Portuguese. Looks at nothing but the text, so that ``name`` may be the
    host's resolver or a DNS server: ``connectivity.checked`` tells.

    :param text: an error's message or the end of a log, as it was printed; of a longer one the last
        4 MiB are read.
    :returns: one of :data:`stackmend.connectivity.faults.TITLES`; ``None`` where the text is about
        something else.

    Example:
        >>> classify("dial tcp: lookup registry-1.docker.io on 10.0.0.2:53: no such host")
        'name'
    """
    cause = find_cause(text)
    return cause.name if cause else None


def find_cause(text: str) -> Cause | None:
    """The same with the line that decided.

    :param text: as for :func:`classify`.
    """
    text = _COLOUR.sub("", text[-MAXIMUM:]).replace("\r", "\n")
    lowered = unicodedata.normalize("NFC", text).lower()
    found = _find_last(_PATTERNS, lowered, coded=True) or _find_last(_LATER, lowered, coded=False)
    name, end = found or (None, 0)
    if name is None:
        return None
    line = text.split("\n")[lowered.count("\n", 0, end)]
    return Cause(name, line.strip())


def _find_last(
    patterns: list[tuple[FaultName | None, re.Pattern[str]]]
    | list[tuple[FaultName, re.Pattern[str]]],
    text: str,
    *,
    coded: bool,
) -> tuple[FaultName | None, int] | None:
    """The match that ends last, of several the longest; its class, and where it ends."""
    best: tuple[int, int] | None = None
    chosen: FaultName | None = None
    for name, pattern in patterns:
        for match in pattern.finditer(text):
            key = match.end(), -match.start()
            if best is None or key > best:
                best, chosen = key, name
    for match in _CODED.finditer(text) if coded else ():
        code = _CODES.get(int(match[1] or match[2]))
        key = match.end(), -match.start()
        if code and (best is None or key > best):
            best, chosen = key, code
    return None if best is None else (chosen, best[0])
