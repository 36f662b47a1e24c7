"""What failures are called and what they mean, in words that every output shares.

What lives here: a table. What may not live here: what counts as which failure (src_c/load.h),
layout (cli, page.py).
"""

from __future__ import annotations

__all__ = ["FAILURES"]

FAILURES = {
    "late": ("late", "the right bytes, after the timeout"),
    "corrupt": ("corrupt", "other bytes came back"),
    "misplaced": ("misplaced", "the bytes of another message of that connection"),
    "lost": ("lost", "the connection ended first, or none was open when they were due"),
    "timed_out": ("timed out", "the connection gave no byte for the timeout"),
    "unsent": ("unsent", "still waiting in the generator when the run was given up"),
    "extra_bytes": ("bytes too many", "nothing was due"),
    "reset": ("reset", "connections that the server ended by RST"),
    "closed": ("closed", "connections that the server ended by FIN"),
    "refused": ("refused", "connects that nobody accepted"),
    "connect_timed_out": ("connects timed out", "no answer to a connect"),
    "other": ("other", "connections that ended by another error"),
}
"""Each kind of failure: its name, and what happened."""
