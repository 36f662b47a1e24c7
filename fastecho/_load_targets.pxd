# Where the connections of a load go, and where they start from, as the kernel takes it.
#
# Lives here: addresses from Python as bytes of a sockaddr, the source addresses that are used where
# none is named. Does not live here: names, which are looked up before (fastecho/measure), whose
# memory the bytes are (fastecho/_load.pyx).

from libc.stdint cimport uint32_t

cimport fastecho._sys as _sys
from fastecho._load_cdefs cimport *

cdef enum:
    # Connections towards 127.0.0.0/8 that share a source address; source addresses in
    # reconnect mode.
    PER_SOURCE = 8000
    RECONNECT_SOURCES = 64


cdef inline object within(str name, value, low, high):
    """Return the value, which must lie there."""
    if not low <= value <= high:
        raise ValueError(f"{name} must be between {low} and {high}, not {value}")
    return value


cdef inline bytes packed(int family, address):
    """Return the socket address as the kernel takes it. A host must be numeric."""
    import os
    import socket
    import struct

    if family == _sys.AF_UNIX:
        path = os.fsencode(address)
        if not 1 <= len(path) <= 107:
            raise ValueError(f"address must be a path of 1 to 107 bytes, not {path!r}")
        return struct.pack("=H", family) + path + (b"" if path[0] == 0 else b"\0")
    if family not in (_sys.AF_INET, _sys.AF_INET6):
        raise ValueError(f"family must be AF_INET, AF_INET6 or AF_UNIX, not {family}")
    try:
        host, port = address
        within("port", port, 0, 65535)
        found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, 0,
                                   socket.AI_NUMERICHOST | socket.AI_NUMERICSERV)[0][4]
    except (OSError, TypeError, ValueError) as error:
        raise ValueError(f"address must be (numeric host, port), not {address!r}") from error
    packed = socket.inet_pton(family, found[0].partition("%")[0])
    if family == _sys.AF_INET:
        return struct.pack("=H2s4s8x", family, found[1].to_bytes(2, "big"), packed)
    return struct.pack("=H2sI16sI", family, found[1].to_bytes(2, "big"), 0, packed, found[3])


cdef inline list default_sources(int family, bytes address, int mode, uint32_t connections):
    """Return source addresses so many that ports cannot run out; none where one is enough."""
    cdef uint32_t count
    if family != _sys.AF_INET or address[4] != 127:
        return []
    if mode == FE_LOAD_RECONNECT:
        count = RECONNECT_SOURCES
    elif connections > PER_SOURCE:
        count = (connections + PER_SOURCE - 1) // PER_SOURCE
    else:
        return []
    return [f"127.0.{1 + i // 250}.{1 + i % 250}" for i in range(count)]


cdef inline list packed_sources(int family, address, sources):
    """Return the packed source addresses for a target: those of its family, if there are some."""
    if family == _sys.AF_UNIX:
        raise ValueError(f"sources need an IP address family, not AF_UNIX: {sources!r}")
    fitting = [host for host in sources if (":" in host) == (family == _sys.AF_INET6)]
    if not fitting:
        raise ValueError(f"none of the sources {sources!r} fits the target {address!r}")
    return [packed(family, (host, 0)) for host in fitting]
