"""PROXY headers, put together by the specification: what a proxy in front of a server sends."""

from __future__ import annotations

import socket
import struct

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
ALPN, AUTHORITY, CRC32C, NOOP, UNIQUE_ID = 1, 2, 3, 4, 5

SOURCE, DESTINATION = ("192.0.2.7", 51123), ("198.51.100.1", 7)
SOURCE_6, DESTINATION_6 = ("2001:db8::7", 51123), ("2001:db8::1", 7)


def crc32c(data: bytes) -> int:
    """Return the Castagnoli sum, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def v1(source: tuple[str, int] = SOURCE, destination: tuple[str, int] = DESTINATION) -> bytes:
    """Return a header of version 1."""
    family = "TCP6" if ":" in source[0] else "TCP4"
    return f"PROXY {family} {source[0]} {destination[0]} {source[1]} {destination[1]}\r\n".encode()


def tlv(kind: int, value: bytes) -> bytes:
    """Return one type, length and value."""
    return struct.pack("!BH", kind, len(value)) + value


def binary(command: int, family: int, rest: bytes) -> bytes:
    """Return a header of version 2 from its parts: command and family are its bytes 13 and 14."""
    return SIGNATURE + struct.pack("!BBH", command, family, len(rest)) + rest


def v2(
    source: tuple[str, int] = SOURCE,
    destination: tuple[str, int] = DESTINATION,
    tlvs: bytes = b"",
    *,
    checksum: int | None = None,
) -> bytes:
    """Return a header of version 2; checksum: None for none, else how far from the right one."""
    kind = socket.AF_INET6 if ":" in source[0] else socket.AF_INET
    addresses = socket.inet_pton(kind, source[0]) + socket.inet_pton(kind, destination[0])
    rest = addresses + struct.pack("!HH", source[1], destination[1]) + tlvs
    family = 0x21 if kind == socket.AF_INET6 else 0x11
    if checksum is None:
        return binary(0x21, family, rest)
    blank = binary(0x21, family, rest + tlv(CRC32C, bytes(4)))
    return blank[:-4] + struct.pack("!I", (crc32c(blank) + checksum) % 2**32)


LOCAL = binary(0x20, 0, b"")
UNSPEC = binary(0x21, 0, tlv(NOOP, bytes(3)))
UNIX = binary(0x21, 0x31, b"/run/front".ljust(108, b"\0") + b"/run/back".ljust(108, b"\0"))
UNKNOWN = b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n"
