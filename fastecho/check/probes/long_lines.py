"""Whether lines come back that are far longer than boxes expect."""

from __future__ import annotations

from fastecho.check.samples import come_back

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from fastecho.check.path import Path
    from fastecho.check.verdict import Finding

TITLE = "very long lines pass"
GROUP, QUICK, PHASE, NEEDS = "exact", True, "beside", ()
PASSED = "No line is too long, and none is cut or folded."
FAILED = (
    "Something between reads lines into a buffer of its own and cuts, folds or refuses long ones: "
    "a proxy for a protocol of lines."
)
SIZES = (998, 1024, 4096, 8192, 16385, 65537)


def run(path: Path) -> Finding:
    """Send a line of each length, with a newline at its end, on a connection of its own."""
    sizes = SIZES if path.quick else (*SIZES, 1_000_001)
    samples = {f"a line of {size:,} bytes": b"l" * size + b"\nend\n" for size in sizes}
    samples["a long line like a header of HTTP"] = (
        b"GET / HTTP/1.1\r\nCookie: " + b"c" * 20000 + b"\r\n\r\n"
    )
    return come_back(path, samples, f"lines of up to {max(sizes):,} bytes", FAILED)
