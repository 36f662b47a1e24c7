"""Reaching every address of one family that a name has: what the probes ipv4 and ipv6 share."""

from __future__ import annotations

import socket

from fastecho.check.path import Stream, no_route
from fastecho.check.pattern import Plain
from fastecho.check.talk import Talk, converse
from fastecho.check.verdict import SPOILED, NotTestable, failed, passed
from fastecho.dial import reason, text_of

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho.check.path import Path
    from fastecho.check.verdict import Finding

__all__ = ["reach_all"]


def reach_all(path: Path, family: int, name: str) -> Finding:
    """Connect to each address of a family at once, and let a line come back."""
    host = path.address.host
    try:
        places = [one for one in path.places() if one[0] == family]
    except socket.gaierror as error:
        raise NotTestable(reason(error)) from None
    if not places:
        is_other = _is_literal(host or "")
        what = "is an address of the other family" if is_other else f"has no {name} address"
        raise NotTestable(f"{host} {what}")
    for place in places:
        if why := no_route(*place):
            where = text_of(*place)
            raise NotTestable(f"this machine has no way to {where}: {why}")
    streams = path.connect_all(places)
    try:
        return _verdict(path, places, streams)
    finally:
        for stream in streams:
            if isinstance(stream, Stream):
                stream.close()


def _verdict(
    path: Path, places: list[tuple[int, object]], streams: list[Stream | OSError]
) -> Finding:
    line = Plain(b"fastecho check %d\n" % path.seed)
    talks = {i: Talk(one, line) for i, one in enumerate(streams) if isinstance(one, Stream)}
    converse(path, list(talks.values()))
    good, bad, spoiled = [], [], True
    for i, (place, stream) in enumerate(zip(places, streams, strict=True)):
        where = text_of(*place)
        if isinstance(stream, OSError):
            bad.append(f"{where}: {reason(stream)}")
            spoiled = False
        elif talks[i].is_whole:
            good.append(f"{where} in {stream.connect_s * 1e3:.3f} ms")
        else:
            bad.append(f"{where}: {talks[i].story()}")
            spoiled = spoiled and talks[i].difference() is not None
    values = {"addresses": len(places), "addresses_reached": len(good)}
    if bad:
        return failed("; ".join(bad), SPOILED if spoiled else "", **values)
    return passed(f"connected to {', '.join(good)}", **values)


def _is_literal(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host.partition("%")[0])
        except (OSError, ValueError):
            continue
        return True
    return False
