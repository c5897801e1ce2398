"""A service by a name that it has: its port, what speaks there, and whether it runs. Pure."""

from stackmend.addresses.applications import classify_form
from stackmend.addresses.corrections import report_ambiguous, report_wrong
from stackmend.addresses.kinds import KIND_OF_SCHEME, KINDS, SCHEME_PORTS, split_name
from stackmend.addresses.stack import Stack
from stackmend.addresses.state import Address, Judgement

#: What other protocols' schemes are called in the table of kinds.
_SPEAKS = {
    "https": "http",
    "amqps": "amqp",
    "pyamqp": "amqp",
    "neo4j": "bolt",
    "postgres": "postgresql",
    "pgsql": "postgresql",
    "rediss": "redis",
    "valkey": "redis",
    "valkeys": "redis",
    "mariadb": "mysql",
    "mysql2": "mysql",
}
#: Kinds that speak one protocol beside another: what their ports speak says nothing against it.
_RELATED = ({"redis", "sentinel"}, {"elasticsearch", "opensearch"})


def classify_target(stack: Stack, address: Address, target: str) -> Judgement:
    """What is thought of an address that leads to a service, as far as its name goes."""
    port = address.port
    right = Judgement(address=address)
    if stack.is_unselected(address, target):
        return right
    if form := classify_form(stack, address, target):
        return form
    if not port:
        return _classify_running(stack, address, target)
    if port in stack.names.ports[target]:
        return _classify_protocol(stack, address, target) or _classify_running(
            stack, address, target
        )
    ran = stack.running.services.get(target)
    if ran and ran.sockets and any(socket.port == port for socket in ran.sockets):
        return _classify_running(stack, address, target)
    if stack.names.has_mention(target, port):
        return right
    group = stack.names.groups[target]
    numbers = {
        number
        for name, number, _ in stack.names.published.get(port, ())
        if name in group and number != port
    }
    kind = stack.names.kinds[target]
    if len(numbers) == 1:
        (number,) = numbers
        cause = f"{port} is the port of {target} on the host; in its network it is {number}"
        if address.published or stack.names.can_listen(target, port):
            return report_ambiguous(
                stack, address, "published-port", cause, {target: number}, itself=True
            )
        return report_wrong(stack, address, "published-port", cause, target, number)
    if kind and len(KINDS[kind].ports) == 1 and not stack.names.can_listen(target, port):
        ((usual, speaks),) = KINDS[kind].ports.items()
        others = {
            number
            for name, other in KINDS.items()
            if name != kind
            for number in (*other.ports, *other.schemes.values())
        }
        declared = stack.names.ports[target] == {usual}
        spoken = address.scheme in ("", "tcp") or _name_protocol(address) == speaks
        if port in others and declared and spoken and (address.explicit or address.port_place):
            cause = f"{target} runs {kind}, which listens on {usual}"
            return report_wrong(stack, address, "wrong-kind", cause, target, usual)
    return _classify_running(stack, address, target)


def _classify_protocol(stack: Stack, address: Address, target: str) -> Judgement | None:
    """A port that speaks something else than the address."""
    kind, port = stack.names.kinds[target], address.port
    if not kind or not address.scheme or port not in KINDS[kind].ports:
        return None
    ports = KINDS[kind].ports
    scheme = _name_protocol(address)
    speaks = ports[port]
    if speaks == scheme or {scheme, speaks} & {"grpc", "tcp"}:
        return None
    if scheme in ports.values() and address.scheme not in ("https",):
        (number,) = [number for number, spoken in ports.items() if spoken == scheme]
        cause = f"port {port} of {target} speaks {speaks}, and port {number} {scheme}"
        if scheme == "clickhouse":
            if address.driver:
                # Drivers that speak HTTP below a scheme of their own.
                return None
            if "migration" not in split_name(address.place.hint):
                return report_ambiguous(
                    stack, address, "wrong-kind", cause, {target: number}, itself=True
                )
        if stack.names.is_configured(target):
            return report_ambiguous(
                stack, address, "wrong-kind", cause, {target: number}, itself=True
            )
        return report_wrong(stack, address, "wrong-kind", cause, target, number)
    other = KIND_OF_SCHEME.get(address.scheme)
    if not other or other == kind or any({kind, other} <= related for related in _RELATED):
        return None
    return Judgement(
        address=address,
        status="wrong",
        reason="wrong-kind",
        cause=f"{target} runs {kind}, which does not speak {address.scheme}",
        remedy=f"name a service that runs {other}, or use {speaks}://",
    )


def _name_protocol(address: Address) -> str:
    """What a scheme is called in the table of kinds."""
    return _SPEAKS.get(address.scheme, address.scheme)


def _classify_running(stack: Stack, address: Address, target: str) -> Judgement:
    ran, port = stack.running.services.get(target), address.port
    right = Judgement(address=address)
    if ran is None:
        return right
    if not ran.up:
        return Judgement(
            address=address,
            status="wrong",
            reason="not-up",
            cause=f"{target} does not run",
            remedy=f"start {target}; its log says why it ended",
        )
    if not port or ran.sockets is None:
        return right
    listening = [socket for socket in ran.sockets if socket.port == port]
    if not listening:
        usual = SCHEME_PORTS.get(address.scheme, 0)
        reachable = {socket.port for socket in ran.sockets if not socket.loopback}
        cause = f"nothing in {target} listens on port {port}"
        if usual in reachable and usual != port and KIND_OF_SCHEME.get(address.scheme):
            return report_wrong(stack, address, "not-listening", cause, target, usual)
        has = ", ".join(map(str, sorted(reachable))) or "none"
        return Judgement(
            address=address,
            status="wrong",
            reason="not-listening",
            cause=f"{cause} (it listens on: {has})",
            remedy=f"correct the port, or have {target} listen on {port}",
        )
    if all(socket.loopback for socket in listening):
        return Judgement(
            address=address,
            status="wrong",
            reason="loopback-only",
            cause=f"{target} listens on port {port} of its own loopback alone",
            remedy=f"have {target} listen on 0.0.0.0",
        )
    return right
