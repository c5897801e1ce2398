"""The host, by the name that containers have for it. Pure."""

from stackmend.addresses.corrections import report_wrong
from stackmend.addresses.stack import Stack
from stackmend.addresses.state import Address, Judgement

#: The host, by a name that Docker Desktop knows and Linux does not.
GATEWAYS = frozenset({"host.docker.internal", "gateway.docker.internal"})


def classify_gateway(stack: Stack, address: Address) -> Judgement:
    """What is thought of the host's name in a container."""
    service, port = address.place.service, address.port
    right = Judgement(address=address)
    # What only the image says may be an example of something that nobody uses.
    if address.place.kind == "image" or address.side != "server" or stack.is_unused(address):
        return right
    local = [
        (name, target) for name, target, is_local in stack.names.published.get(port, ()) if is_local
    ]
    if len(local) == 1 and stack.names.can_reach(service, local[0][0]):
        cause = f"{local[0][0]} publishes port {port} on the host's loopback alone"
        return report_wrong(stack, address, "host-loopback", cause, *local[0])
    if not stack.names.is_elsewhere(service, address.host):
        owner = stack.names.owners[service] or service
        if owner != service or stack.names.is_host(service):
            # Another's namespace has that one's names; the host's own may know it.
            return right
        return Judgement(
            address=address,
            status="wrong",
            reason="no-extra-host",
            needs={"extra_hosts": [f"{address.host}:host-gateway"]},
            cause=f"Docker on Linux does not know {address.host} without extra_hosts",
            remedy=f'add to {service}: extra_hosts: ["{address.host}:host-gateway"]',
        )
    if port and port in stack.running.filtered:
        return Judgement(
            address=address,
            status="wrong",
            reason="host-firewall",
            cause=f"the host's packet filter keeps containers from its port {port}",
            remedy=f"let the bridge of {service} reach port {port} of the host",
        )
    sockets = stack.running.host
    if port and sockets is not None:
        listening = [socket for socket in sockets if socket.port == port]
        if listening and all(socket.loopback for socket in listening):
            return Judgement(
                address=address,
                status="wrong",
                reason="host-loopback",
                cause=f"what listens on port {port} of the host does so on its loopback alone",
                remedy="have it listen on 0.0.0.0, or on the address of Docker's bridge",
            )
        if not listening and port not in stack.names.published:
            return Judgement(
                address=address,
                status="wrong",
                reason="not-listening",
                cause=f"nothing listens on port {port} of the host",
                remedy="start it there, or correct the port",
            )
    return right
