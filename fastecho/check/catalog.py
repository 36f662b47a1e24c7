"""The probes that there are: found by looking into their folder, in the order of the list.

Lives here: finding and naming them, choosing by name and profile. Does not live here: running
them (runner.py).
"""

from __future__ import annotations

from fastecho.errors import ConfigError

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from fastecho.check.path import Path
    from fastecho.check.verdict import Finding

__all__ = ["GROUPS", "Probe", "choose", "probes"]

GROUPS = {
    "reach": "can it be reached",
    "exact": "does every byte come back",
    "close": "are ends respected",
    "flow": "time, many connections, back-pressure",
    "path": "what becomes of datagrams on their way",
    "tcp": "what TCP tells",
    "server": "what the server does first (needs a server with --probes)",
}
"""In the order in which they are shown; others come behind."""
PHASES = ("first", "alone", "beside", "bulk")


class Probe:
    """One probe; the constants of its module (see probes/__init__.py) as attributes."""

    def __init__(self, module: ModuleType) -> None:
        self.name = module.__name__.rpartition(".")[2].replace("_", "-")
        self.title: str = module.TITLE
        self.group: str = module.GROUP
        self.quick: bool = module.QUICK
        self.phase: str = module.PHASE
        self.needs: tuple[str, ...] = module.NEEDS
        self.passed: str = module.PASSED
        self.failed: str = module.FAILED
        # The gates keep their own order.
        self.order: int = getattr(module, "ORDER", 100)
        self._run = module.run

    def __repr__(self) -> str:
        return f"<Probe {self.name}>"

    def run(self, path: Path) -> Finding:
        """Probe."""
        finding: Finding = self._run(path)
        return finding


def probes(*, udp: bool = False) -> list[Probe]:
    """Return all that there are for streams, or for datagrams."""
    from importlib import import_module
    from pkgutil import iter_modules

    folder = import_module(f"fastecho.check.{'datagram_probes' if udp else 'probes'}")
    found = [
        Probe(import_module(f"{folder.__name__}.{one.name}"))
        for one in iter_modules(folder.__path__)
    ]
    groups = list(GROUPS)

    def place(probe: Probe) -> tuple[int, str, int, str]:
        known = probe.group in groups
        return groups.index(probe.group) if known else 99, probe.group, probe.order, probe.name

    return sorted(found, key=place)


def choose(
    every: Sequence[Probe], *, quick: bool, only: Sequence[str] = (), skip: Sequence[str] = ()
) -> list[Probe]:
    """Return those that are to run; the gates ("first") always run.

    Args:
        every: all that there are.
        quick: only those of the quick profile, unless `only` names another.
        only, skip: names of probes or of groups.
    Raises:
        ConfigError: there is none of that name.
    """
    names = {probe.name for probe in every} | {probe.group for probe in every}
    for option, wanted in (("--only", only), ("--skip", skip)):
        for name in wanted:
            if name not in names:
                from difflib import get_close_matches

                near = get_close_matches(name, sorted(names), n=1)
                hint = f"did you mean {near[0]}?" if near else "see --list"
                raise ConfigError(option, name, f"is no probe and no group: {hint}")

    def is_in(probe: Probe, wanted: Sequence[str]) -> bool:
        return probe.name in wanted or probe.group in wanted

    chosen = [
        probe for probe in every if (is_in(probe, only) if only else probe.quick or not quick)
    ]
    chosen = [probe for probe in chosen if not is_in(probe, skip)]
    if not chosen:
        raise ConfigError("--skip", ",".join(skip), "leaves no probe")
    return [probe for probe in every if probe in chosen or probe.phase == "first"]
