"""The listening TCP socket: bound here and handed to every server, so a restart refuses nobody."""

import errno
import ipaddress
import socket

from backplane_core.errors import SetupError

EVERY_INTERFACE = "0.0.0.0"  # noqa: S104 - TGI's default; the launcher warns

_BACKLOG = 2048


def resolves(hostname: str) -> bool:
    """Whether the name, or the address, is one to listen on."""
    try:
        socket.getaddrinfo(hostname or None, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        return False
    return True


def listen(hostname: str, port: int) -> socket.socket:
    """Bind and listen. A name is resolved, IPv4 first; `::` takes IPv4 too.

    Raises:
        SetupError: the name is unknown, the address is not this machine's, the port is taken or
            needs more rights.
    """
    try:
        found = socket.getaddrinfo(
            hostname or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise SetupError(
            f"--hostname {hostname} does not resolve: {error.strerror}",
            remedy="name an address of this machine, such as 0.0.0.0 or 127.0.0.1",
        ) from error
    # False sorts first: IPv4 before IPv6, since "localhost" is usually both.
    family, kind, protocol, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise _explain(error, hostname, port) from error
    return listening


def address_of(listening: socket.socket) -> tuple[str, int]:
    """Where a client on this machine reaches the socket: host and port."""
    host: str
    port: int
    host, port = listening.getsockname()[:2]
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port  # noqa: S104 - compared, not bound


def url_of(listening: socket.socket, *, tls: bool = False) -> str:
    """`address_of` as a URL."""
    host, port = address_of(listening)
    scheme = "https" if tls else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def is_open_to_others(listening: socket.socket) -> bool:
    """Whether other machines may reach it: it listens beyond loopback."""
    host: str = listening.getsockname()[0]
    return not ipaddress.ip_address(host.partition("%")[0]).is_loopback


def _explain(error: OSError, hostname: str, port: int) -> SetupError:
    match error.errno:
        case errno.EADDRINUSE:
            return SetupError(
                f"port {port} is in use on {hostname}",
                remedy="stop what listens there, or choose another --port",
            )
        case errno.EACCES:
            return SetupError(
                f"this user may not listen on port {port}", remedy="choose a --port from 1024 up"
            )
        case errno.EADDRNOTAVAIL:
            return SetupError(
                f"--hostname {hostname} is no address of this machine",
                remedy="name one that is, such as 0.0.0.0 or 127.0.0.1",
            )
        case _:
            return SetupError(f"cannot listen on {hostname}:{port}: {error.strerror}")
