"""A file store: uploads and downloads in `length` frames, with checksums.

    python examples/file_store.py 127.0.0.1:7002 FOLDER

The first byte of a frame says what it is. A peer sends P (put: the name), D (data) as often as it
likes, E (end: SHA-256 of all data) and gets O (ok) or N (no, and why); or G (get: the name), and
gets D frames and E, or N. An upload is written beside its place and moved there only when the
checksum is right: nobody ever sees a part of one, whatever ends the connection.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from fastecho import Client, Connection, Reason, Server

PART = 60_000  # below the default max_frame


class Upload:
    """A file that is not complete yet; the connection's `context`."""

    def __init__(self, target: Path) -> None:
        self.target = target
        number, self.place = tempfile.mkstemp(dir=target.parent, prefix=".part-")
        self.file = open(number, "wb")  # noqa: SIM115 - end() closes it
        self.sum = hashlib.sha256()

    def add(self, data: bytes) -> None:
        self.file.write(data)
        self.sum.update(data)

    def end(self, checksum: bytes | None) -> bool:
        """Move the file to its place if the checksum is right; otherwise remove it."""
        self.file.close()
        if self.sum.digest() == checksum:
            os.replace(self.place, self.target)
            return True
        os.unlink(self.place)
        return False


class FileStore:
    """The callbacks. What they do with the disk holds up their worker, so there are several."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: bytes) -> Path | None:
        """Return the place of a file; None if the name leads anywhere else."""
        text = name.decode(errors="replace")
        fine = text == Path(text).name and not text.startswith(".") and text.isprintable()
        return self.folder / text if fine else None

    def on_message(self, connection: Connection, frame: bytes) -> bytes | None:
        kind, body = frame[:1], frame[1:]
        upload: Upload | None = connection.context
        if kind == b"D" and upload is not None:
            upload.add(body)
            return None
        if kind == b"E" and upload is not None:
            connection.context = None
            return b"O" if upload.end(body) else b"Nwrong checksum"
        path = self.path(body)
        if path is None or upload is not None or kind not in (b"P", b"G"):
            return b"Nnot like this"
        if kind == b"P":
            connection.context = Upload(path)
            return None
        try:
            with open(path, "rb") as file:
                connection.writelines(frames_of(file))
        except OSError as error:
            return b"N" + os.strerror(error.errno or 0).encode()
        return None

    def on_close(self, connection: Connection, reason: Reason) -> None:
        if connection.context is not None:
            connection.context.end(None)


def frames_of(file: BinaryIO) -> Iterator[bytes]:
    """Yield a file as D frames and E."""
    total = hashlib.sha256()
    while data := file.read(PART):
        total.update(data)
        yield b"D" + data
    yield b"E" + total.digest()


def send(client: Client, frame: bytes) -> None:
    client.send(len(frame).to_bytes(4, "big") + frame)


def receive(client: Client) -> bytes:
    return client.recv_exactly(int.from_bytes(client.recv_exactly(4), "big"))


def upload(client: Client, name: str, file: BinaryIO) -> None:
    """Put a file into the store."""
    send(client, b"P" + name.encode())
    for frame in frames_of(file):
        send(client, frame)
    if (answer := receive(client)) != b"O":
        raise OSError(f"{name}: {answer[1:].decode()}")


def download(client: Client, name: str) -> bytes:
    """Get a file from the store."""
    send(client, b"G" + name.encode())
    data = bytearray()
    while (frame := receive(client))[:1] == b"D":
        data += frame[1:]
    if frame[:1] != b"E" or frame[1:] != hashlib.sha256(data).digest():
        raise OSError(f"{name}: {frame[1:].decode(errors='replace')}")
    return bytes(data)


def make_server(bind: str, folder: Path) -> Server:
    store = FileStore(folder)
    return Server(
        bind, threads=4, frame="length", on_message=store.on_message, on_close=store.on_close
    )


if __name__ == "__main__":
    server = make_server(sys.argv[1], Path(sys.argv[2]))
    server.start()
    print("listening on", server.address, flush=True)
    server.serve_forever()
