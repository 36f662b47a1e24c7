"""Folders that other users can reach: pytest closes those of tmp_path whenever it starts."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def reachable(user: int = -1, mode: int = 0o755) -> Iterator[Path]:
    """Make a folder of that user; at the end it is gone, with all that is in it."""
    with tempfile.TemporaryDirectory(prefix="fastecho-") as name:
        os.chown(name, user, -1)
        os.chmod(name, mode)
        yield Path(name)
