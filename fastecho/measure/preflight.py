"""Before a run: where the targets are, and whether descriptors and ports are enough.

Lives here: resolving names, the limits of this machine, sentences about connects that failed.
Does not live here: the plan's own rules (plan.py), the run (runner.py). A name with several
addresses is tried address by address, as any client does; nothing else here connects.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import time

from fastecho.address import is_loopback
from fastecho.errors import ConfigError, StartError

from .values import seconds_text

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastecho.address import Address

    from .plan import Plan

    Place = tuple[int, tuple[str, int] | str]

__all__ = [
    "check_descriptors", "check_ports", "check_start", "come_from_several", "connect_failure",
    "descriptors_needed", "local_addresses", "names_of", "resolve",
]  # fmt: skip

LARGEST_START_AHEAD = 3600.0
SPARE_DESCRIPTORS = 32
"""For what else a process opens while a run lasts: files, a log, the import of a module."""
DESCRIPTORS_OF_A_THREAD = 3
"""epoll, timer, memory file."""
ANSWER_SECONDS = 0.3
"""How long an address of several is given to answer a datagram."""
PORTS_OF_A_SOURCE = 8000
"""Connections from one address of 127.0.0.0/8 before the next is taken: far from all its ports."""


def names_of(plan: Plan) -> str:
    """Return the targets for a sentence: all of a few, else the first and how many more."""
    names = [str(one) for one in plan.targets]
    if len(names) > 3:
        return f"{names[0]} and {len(names) - 1} more"
    return " and ".join(names)


def check_start(start_at: float, label: str = "start_at", text: str | None = None) -> None:
    """Raise ConfigError if a time, in seconds since 1970, is over or more than an hour away."""
    ahead = start_at - time.time()
    shown = start_at if text is None else text
    if ahead < 0:
        raise ConfigError(label, shown, f"is over: it was {seconds_text(round(-ahead, 1))} ago")
    if ahead > LARGEST_START_AHEAD:
        raise ConfigError(
            label, shown, f"is {seconds_text(round(ahead))} away: at most an hour is possible"
        )


def resolve(plan: Plan) -> list[Place]:
    """Return family and numeric address of every target.

    Raises:
        StartError: a name does not resolve, or none of its addresses takes a connection.
        ConfigError: the sources are of another family than a target.
    """
    return [_place(one, plan) for one in plan.targets]


def _place(target: Address, plan: Plan) -> Place:
    if target.kind == "unix":
        assert target.path is not None
        return socket.AF_UNIX, target.path
    assert target.host is not None and target.port is not None
    try:
        kind = socket.SOCK_DGRAM if target.kind == "udp" else socket.SOCK_STREAM
        found = socket.getaddrinfo(target.host, target.port, type=kind)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        number = getattr(error, "errno", None) or 0
        raise StartError(number, f"{target} does not resolve: {why.lower()}") from None
    places: list[Place] = []
    for family, _, _, _, address in found:
        if family in (socket.AF_INET, socket.AF_INET6):
            place = (int(family), _host_port(address))
            if place not in places:
                places.append(place)
    fitting = [one for one in places if _fits(one, plan.sources)]
    if not fitting:
        raise ConfigError(
            "sources", ",".join(plan.sources), f"is of another address family than {target}"
        )
    if len(fitting) == 1:
        return fitting[0]
    if target.kind == "udp":
        return _first_answering(fitting)
    return _first_reachable(fitting, target, plan)


def _host_port(address: tuple[object, ...]) -> tuple[str, int]:
    """Return host and port of a socket address; a zone stays part of the host."""
    host, port = str(address[0]), address[1]
    assert isinstance(port, int)
    if len(address) == 4 and address[3] and "%" not in host:
        host = f"{host}%{address[3]}"
    return host, port


def _fits(place: Place, sources: Sequence[str]) -> bool:
    return all((":" in one) == (place[0] == socket.AF_INET6) for one in sources)


def _first_reachable(places: list[Place], target: Address, plan: Plan) -> Place:
    failure: OSError | None = None
    if plan.sources:
        _check_source(plan.sources[0])
    for family, address in places:
        with socket.socket(family) as sock:
            sock.settimeout(plan.timeout)
            try:
                if plan.sources:
                    sock.bind((plan.sources[0], 0))
                sock.connect(address)
            except OSError as error:
                failure = error
                continue
        return family, address
    assert failure is not None
    raise connect_failure(failure, str(target), plan.timeout)


def _first_answering(places: list[Place]) -> Place:
    """Return the first of several places that answers a datagram: connecting tells nothing here.

    Without any, it is the first that is not known to be empty.
    """
    silent = []
    for family, address in places:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.settimeout(ANSWER_SECONDS)
            try:
                sock.connect(address)
                sock.send(b"\n")
                sock.recv(1)
            except TimeoutError:
                silent.append((family, address))
            except OSError:
                continue
            else:
                return family, address
    return (silent or places)[0]


def connect_failure(error: OSError, names: str, timeout: float) -> StartError:
    """Return the error for connects that failed before the run, as one sentence."""
    number = error.errno or 0
    if isinstance(error, TimeoutError):
        number = errno.ETIMEDOUT
    reasons = {
        errno.ECONNREFUSED: "refused the connection: nothing listens there",
        errno.ECONNRESET: "reset the connection at once",
        errno.ETIMEDOUT: f"did not answer a connect within {seconds_text(timeout)}",
        errno.ENOENT: "does not exist",
        errno.EMFILE: "could not be connected to: too few descriptors (raise ulimit -n)",
        errno.EADDRNOTAVAIL: "could not be connected to: no local port is left (give more addresses"
        " by --source)",
        errno.EAGAIN: "has a full accept queue",
    }
    reason = reasons.get(number)
    if reason is None:
        reason = f"cannot be reached: {os.strerror(number).lower() if number else error}"
    # The load says how many failed; when all did, that is no news.
    count = re.match(r"(\d+) of (\d+) connections failed", error.strerror or "")
    part = f" ({count[0]})" if count and count[1] != count[2] else ""
    return StartError(number, f"{names} {reason}{part}")


def descriptors_needed(plan: Plan) -> int:
    """Return how many descriptors this process needs for the run, those that are open included."""
    opened = len(os.listdir("/proc/self/fd"))
    sockets = plan.connections + plan.idle_connections
    return opened + sockets + DESCRIPTORS_OF_A_THREAD * (plan.threads + 1) + SPARE_DESCRIPTORS


def check_descriptors(plan: Plan) -> None:
    """Raise StartError if the process may not have as many descriptors as the run needs."""
    import resource

    limit, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = descriptors_needed(plan)
    if limit == resource.RLIM_INFINITY or needed <= limit:
        return
    sockets = plan.connections + plan.idle_connections
    fix = f"ulimit -n {needed}"
    if hard != resource.RLIM_INFINITY and needed > hard:
        fix += f" (as root: the hard limit is {hard})"
    raise StartError(
        errno.EMFILE,
        f"{sockets} connections need {needed} descriptors, and this process may have {limit}: "
        f"{fix}",
    )


def check_ports(plan: Plan, places: Sequence[Place]) -> None:
    """Raise StartError if the local addresses have fewer ports than connections to a target."""
    sockets = plan.connections + plan.idle_connections
    each = -(-sockets // len(places))
    if each <= PORTS_OF_A_SOURCE:
        return
    ports = _ephemeral_ports()
    for place in set(places):
        if place[0] == socket.AF_UNIX or (_is_ipv4_loopback(place) and not plan.sources):
            continue
        wanted = each * places.count(place)
        if ports and wanted > ports * max(len(plan.sources), 1):
            addresses = -(-wanted // ports)
            raise StartError(
                errno.EADDRNOTAVAIL,
                f"{wanted} connections to one address need as many local ports, and each local "
                f"address has {ports} (net.ipv4.ip_local_port_range): give {addresses} by "
                "--source",
            )


def local_addresses(plan: Plan, places: Sequence[Place]) -> tuple[str, ...]:
    """Return the addresses to connect from; () leaves them to the load and the kernel.

    Several loads in one process do not know of each other: towards 127.0.0.0/8, where any address
    of it will do, their connections together decide how many are taken.

    Raises:
        StartError: a source is no address of this machine.
    """
    for source in plan.sources:
        _check_source(source)
    sockets = plan.connections + plan.idle_connections
    if plan.sources or plan.reconnect or sockets <= PORTS_OF_A_SOURCE:
        return plan.sources
    if not all(_is_ipv4_loopback(one) for one in places):
        return ()
    count = -(-sockets // PORTS_OF_A_SOURCE)
    return tuple(f"127.0.{1 + i // 250}.{1 + i % 250}" for i in range(count))


def come_from_several(plan: Plan) -> bool:
    """Tell whether connections to this machine will come from several addresses of 127.0.0.0/8."""
    many = plan.reconnect or plan.connections + plan.idle_connections > PORTS_OF_A_SOURCE
    loopback = any(is_loopback(one.host or "") and ":" not in str(one.host) for one in plan.targets)
    return many and loopback and not plan.sources


def _check_source(source: str) -> None:
    """Raise StartError for what is no address of this machine."""
    with socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET) as sock:
        try:
            sock.bind((source, 0))
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                sentence = f"--source {source} is no address of this machine"
                raise StartError(errno.EADDRNOTAVAIL, sentence) from None


def _is_ipv4_loopback(place: Place) -> bool:
    return place[0] == socket.AF_INET and is_loopback(place[1][0])


def _ephemeral_ports() -> int:
    """Return how many ports the kernel gives to connects from one address; 0 if unknown."""
    try:
        with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
            low, high = map(int, file.read().split())
    except (OSError, ValueError):
        return 0
    return high - low + 1
