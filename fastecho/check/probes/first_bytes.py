"""Whether connections come back that begin as another protocol does."""

from __future__ import annotations

from fastecho.check.samples import come_back

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho.check.path import Path
    from fastecho.check.verdict import Finding

TITLE = "no protocol is guessed from the first bytes"
GROUP, QUICK, PHASE, NEEDS = "exact", True, "beside", ()
PASSED = "What looks like HTTP, TLS, SSH or others passes as bytes do."
FAILED = (
    "Something between looks at the first bytes and takes the connection for another protocol: a "
    "proxy that guesses, a firewall with deep inspection, one port for several services."
)
NAME = b"echo.invalid"
HELLO = (
    b"\x03\x03" + bytes(range(32)) + b"\x00"  # version, random, no session
    b"\x00\x04\x13\x01\x13\x02\x01\x00"  # two ciphers, no compression
    + (len(NAME) + 9).to_bytes(2)
    + b"\x00\x00"
    + (len(NAME) + 5).to_bytes(2)
    + (len(NAME) + 3).to_bytes(2)
    + b"\x00"
    + len(NAME).to_bytes(2)
    + NAME
)
TLS = b"\x16\x03\x01" + (len(HELLO) + 4).to_bytes(2) + b"\x01" + len(HELLO).to_bytes(3) + HELLO
"""A ClientHello with a name, as far as boxes read it."""


def run(path: Path) -> Finding:
    """Send each beginning on a connection of its own."""
    samples = {
        "an HTTP GET": b"GET / HTTP/1.1\r\nHost: echo.invalid\r\nConnection: close\r\n\r\n",
        "an HTTP CONNECT": b"CONNECT echo.invalid:443 HTTP/1.1\r\nHost: echo.invalid:443\r\n\r\n",
        "an HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        "a TLS ClientHello": TLS,
        "an SSH greeting": b"SSH-2.0-echo\r\n",
        "SOCKS 5": b"\x05\x02\x00\x02",
        "SMTP": b"EHLO echo.invalid\r\n",
        "SIP": b"OPTIONS sip:echo.invalid SIP/2.0\r\nMax-Forwards: 70\r\n\r\n",
        "a BitTorrent handshake": b"\x13BitTorrent protocol" + bytes(48),
    }
    return come_back(path, samples, "beginnings of other protocols", FAILED)
