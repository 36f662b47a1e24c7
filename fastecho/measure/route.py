"""The way to a server, as the user chose it: its address, our own, the type of service.

Lives here: checking these, opening connections that follow them (a PROXY header is a part of
that), what the kernel knows of a connection (TCP_INFO). Does not live here: when to connect and
what to send (pinger.py), looking names up and connecting as such (fastecho/dial.py), the header
itself (fastecho/proxy_header.py).
"""

from __future__ import annotations

import socket
import sys
from time import perf_counter_ns

from fastecho.address import Address, parse_bind, parse_target
from fastecho.datagrams import Datagrams
from fastecho.dial import connect, connect_error, reason, resolve, text_of
from fastecho.errors import ConfigError
from fastecho.proxy_header import checked_version, header_of

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastecho.identity import Identity

__all__ = ["FAMILIES", "Line", "Route", "tcp_info"]

IP_BIND_ADDRESS_NO_PORT = 24
"""Linux: choose our port when we connect, when it only has to differ for one target (ip(7))."""

IPV6_TCLASS = getattr(socket, "IPV6_TCLASS", 67)

FAMILIES: dict[str, int] = {"IPv4": socket.AF_INET, "IPv6": socket.AF_INET6}
NAMES = {family: name for name, family in FAMILIES.items()}


class Line:
    """A connection that is open, in a blocking mode.

    Attributes:
        sock: the socket.
        peer, local: both ends as text; `local` is "" for a Unix socket without a name.
        connect_ns: how long connect(2) took.
        identity: who answers on it; None where that was not asked for.
    """

    __slots__ = ("connect_ns", "identity", "local", "peer", "sock")

    def __init__(self, sock: socket.socket, peer: str, connect_ns: int) -> None:
        self.sock = sock
        self.peer = peer
        self.connect_ns = connect_ns
        self.identity: Identity | None = None
        name = text_of(sock.family, sock.getsockname())
        self.local = "" if name == "unix:" else name


class Route:
    """Connects to one server, always in the same way.

    Args:
        address: HOST:PORT, [V6]:PORT, :PORT, the same behind udp://, or unix:PATH.
        source: our own address, ADDR, ADDR:PORT or [V6]:PORT; None lets the kernel choose.
        tos: type of service (IPv4) or traffic class (IPv6), 0..255; None leaves it.
        family: AF_INET or AF_INET6 takes only such addresses of a name; 0 takes both.
        send_proxy: "v1" or "v2" sends a PROXY header first on each connection; None sends none.
        udp: whether the caller wants open_datagrams(), not open().
    Raises:
        ConfigError: one of them has no valid form, or two of them do not fit.
    """

    def __init__(
        self,
        address: str | tuple[str, int] | Address,
        source: str | None = None,
        tos: int | None = None,
        family: int = 0,
        send_proxy: str | None = None,
        *,
        udp: bool = False,
    ) -> None:
        self.address = parse_target(address, udp=udp)
        self._send_proxy = None if send_proxy is None else checked_version(send_proxy)
        self._source = None if source is None else _parse_source(source)
        self._tos = tos
        if tos is not None and not 0 <= tos <= 255:
            raise ConfigError("tos", tos, "must be a whole number from 0 to 255")
        self._family = family
        # The one that answered first; from then on there is no other.
        self._target: tuple[int, object] | None = None
        if self.address.kind == "unix":
            wanted = {"source": source, "tos": tos, "family": NAMES.get(family)}
            for name, value in wanted.items():
                if value is not None:
                    raise ConfigError(name, value, f"has no effect on {self.address}")
            return
        if self._source is not None:
            host = self._source.host or ""
            ours = socket.AF_INET6 if ":" in host else socket.AF_INET
            if family not in (0, ours):
                raise ConfigError("source", source, f"is no {NAMES[family]} address")
            self._family = ours

    @property
    def has_fixed_port(self) -> bool:
        """Whether our own port was chosen by the user."""
        return self._source is not None and self._source.port != 0

    def open(self, timeout: float) -> Line:
        """Connect within `timeout` seconds; the first time, to the first address that answers.

        Raises:
            OSError: with an errno and one sentence; nothing stays open.
        """
        if self._target is not None:
            return self._open_one(*self._target, timeout)
        targets = self._targets()
        deadline = perf_counter_ns() + int(timeout * 1e9)
        failures: list[tuple[str, OSError]] = []
        for i, (family, place) in enumerate(targets):
            share = max((deadline - perf_counter_ns()) / 1e9, 0.001) / (len(targets) - i)
            try:
                line = self._open_one(family, place, share)
            except SourceError:
                raise
            except OSError as error:
                failures.append((text_of(family, place), error))
            else:
                self._target = (family, place)
                return line
        raise connect_error(self.address, failures)

    def open_datagrams(self) -> Datagrams:
        """Return a UDP socket for the server, to which nothing was sent yet.

        Raises:
            OSError: with an errno and one sentence; nothing stays open.
        """
        try:
            return Datagrams(self._targets(), self._prepare)
        except (SourceError, socket.gaierror):
            raise
        except OSError as error:
            sentence = f"cannot reach {self.address}: {reason(error)}"
            raise OSError(error.errno, sentence) from None

    def _targets(self) -> Sequence[tuple[int, object]]:
        try:
            return resolve(self.address, self._family)
        except socket.gaierror as error:
            if not self._family or error.errno == socket.EAI_AGAIN:
                raise
            sentence = f"cannot resolve {self.address.host} to an {NAMES[self._family]} address"
            raise socket.gaierror(error.errno, f"{sentence}: {_detail(error)}") from None

    def _open_one(self, family: int, place: object, timeout: float) -> Line:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            self._prepare(sock)
            began = perf_counter_ns()
            connect(sock, place, timeout)
            line = Line(sock, text_of(family, place), perf_counter_ns() - began)
            if self._send_proxy is not None:
                sock.sendall(header_of(sock, self._send_proxy))
            return line
        except BaseException:
            sock.close()
            raise

    def _prepare(self, sock: socket.socket) -> None:
        """Give a new socket its type of service and its own address."""
        if self._tos is not None:
            if sock.family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, IPV6_TCLASS, self._tos)
            else:
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, self._tos)
        if self._source is None:
            return
        if self._source.port:
            # Else the port could not be used again for a minute after each connection.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        elif sys.platform == "linux" and sock.type == socket.SOCK_STREAM:
            sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        try:
            place = socket.getaddrinfo(
                self._source.host,
                self._source.port,
                sock.family,
                sock.type,
                flags=socket.AI_NUMERICHOST,
            )[0][4]
            sock.bind(place)
        except OSError as error:
            sentence = f"cannot use the source {self._source_text()}: {reason(error)}"
            raise SourceError(error.errno, sentence) from None

    def _source_text(self) -> str:
        assert self._source is not None and self._source.host is not None
        return str(self._source) if self._source.port else self._source.host


class SourceError(OSError):
    """Our own address cannot be used: no other target would help."""


def _detail(error: OSError) -> str:
    return reason(error).rpartition(": ")[2]


def _parse_source(text: str) -> Address:
    """Parse ADDR, ADDR:PORT, IPV6 or [IPV6]:PORT; port 0 lets the kernel choose."""
    host = text.removeprefix("[").removesuffix("]")
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host.partition("%")[0])
        except (OSError, ValueError):
            continue
        return parse_bind((host, 0), "source")
    address = parse_bind(text, "source") if ":" in text else None
    if address is None or address.kind != "tcp" or not address.host:
        raise ConfigError("source", text, "must be an address of this machine: ADDR or ADDR:PORT")
    if ":" not in address.host:
        try:
            socket.inet_pton(socket.AF_INET, address.host)
        except (OSError, ValueError):
            raise ConfigError("source", text, "must have an address, not a name") from None
    return address


def tcp_info(sock: socket.socket) -> tuple[int, int, int] | None:
    """Return the kernel's smoothed rtt and its variation (us), and all retransmissions so far.

    None where there is none: Unix sockets, other systems. Source: struct tcp_info, linux/tcp.h.
    """
    if sys.platform != "linux" or sock.family not in NAMES:
        return None
    try:
        data = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    except OSError:  # a kernel in a sandbox may not have it
        return None
    if len(data) < 104:
        return None
    return tuple(int.from_bytes(data[at : at + 4], sys.byteorder) for at in (68, 72, 100))  # type: ignore[return-value]
