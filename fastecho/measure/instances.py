"""Connections and replies by the instance of the server that answered: adding them up, their JSON.

Lives here: names, their order, how many are kept. Does not live here: whose connection is whose
(src_c/load_greeting.h for a load, pinger.py for probes).
"""

from __future__ import annotations

from fastecho.errors import shown

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fastecho._load import Load

    Instances = dict[str, dict[str, int]]

__all__ = ["MOST_NAMES", "OTHERS", "add_up", "from_json", "of_load", "place_of"]

MOST_NAMES = 256
"""So many instances are counted by name, all others together."""
OTHERS = ""
"""Stands for the others; no instance has this name."""
KEYS = ("connections", "messages")


def place_of(name: str) -> tuple[bool, str]:
    """Return what names are sorted by: the others come last."""
    return name == OTHERS, name


def add_up(several: Iterable[Mapping[str, Mapping[str, int]]]) -> Instances:
    """Return the sums by name, sorted."""
    found: Instances = {}
    for one in several:
        for name, counts in one.items():
            is_full = len(found.keys() - {OTHERS}) >= MOST_NAMES
            kept = OTHERS if is_full and name not in found else name
            sums = found.setdefault(kept, dict.fromkeys(KEYS, 0))
            for key in KEYS:
                sums[key] += counts[key]
    return {name: found[name] for name in sorted(found, key=place_of)}


def of_load(load: Load) -> Instances:
    """Return what a load has counted; names that differ in their escapes alone are one."""
    import json

    return add_up(
        {json.loads(f'"{name}"'): dict(zip(KEYS, counts, strict=True))}
        for name, *counts in load.instances()
    )


def from_json(data: object) -> Instances | None:
    """Return the instances of a saved result; None: nobody asked who answers.

    Raises:
        ValueError: it is broken; a sentence that says how.
    """
    if data is None:
        return None
    if not isinstance(data, dict):
        raise ValueError(f"has {shown(data)} for 'instances': it must be an object")
    for name, counts in data.items():
        right = isinstance(counts, dict) and all(
            type(counts.get(key)) is int and 0 <= counts[key] < 2**63 for key in KEYS
        )
        if not right:
            raise ValueError(f"has {shown(counts)} for instance {shown(name)}: it must have counts")
    return add_up([data])
