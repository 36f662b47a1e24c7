"""A peer of a UDP echo, to be run on a host of the rig: sends datagrams, prints what comes back.

    python -m udp_peer HOST PORT --sizes 64,1400 [--train BYTES] [--broadcast]

One JSON list of {"from": HOST, "size": N, "right": BOOL}, one for each reply, in their order. They
are awaited until there is one for each datagram, or none for `--quiet` seconds.
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import struct

SOL_UDP, UDP_SEGMENT = 17, 103
"""Of linux/udp.h; Python has no names for them."""


def main() -> None:
    """Do what the arguments say."""
    parser = argparse.ArgumentParser()
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--sizes", default="64")
    parser.add_argument("--train", type=int, default=0)
    parser.add_argument("--broadcast", action="store_true")
    parser.add_argument("--quiet", type=float, default=1.0)
    args = parser.parse_args()
    family, _, _, _, place = socket.getaddrinfo(args.host, args.port, type=socket.SOCK_DGRAM)[0]
    dice = random.Random(1)
    datagrams = [dice.randbytes(int(size)) for size in args.sizes.split(",")]
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(args.quiet)
        if args.broadcast:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        for data in datagrams:
            beside = [(SOL_UDP, UDP_SEGMENT, struct.pack("=H", args.train))] if args.train else []
            sock.sendmsg([data], beside, 0, place)
        expected = [
            data[at : at + args.train] if args.train else data
            for data in datagrams
            for at in range(0, len(data) or 1, args.train or len(data) or 1)
        ]
        replies = []
        try:
            for data in expected:
                reply, source = sock.recvfrom(1 << 17)
                right = reply == data
                replies.append({"from": source[0], "size": len(reply), "right": right})
        except TimeoutError:
            pass
    print(json.dumps(replies))


if __name__ == "__main__":
    main()
