"""`fastecho models`: the I/O models of the tutorial, and what each is good for.

Lives here: the list as text and JSON. Does not live here: the models (fastecho/models), serving by
one (serve.py, _model.py).
"""

from __future__ import annotations

import json

from fastecho import models

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from fastecho.models.options import Model

__all__ = ["add_arguments", "run"]

DESCRIPTION = """\
List the I/O models: the ways to serve many peers that the tutorial walks through, from
one blocking call after the other to epoll. Each is one short file of pure Python that can
be read on its own; native is fastecho's compiled core. `fastecho serve --model NAME`
serves by one."""

EXAMPLE = """\
examples:
  fastecho models
  fastecho models epoll
  fastecho serve --model epoll --show-messages"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `models`."""
    parser.description = DESCRIPTION
    parser.epilog = EXAMPLE
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="print the file of this model, to be read"
    )
    parser.add_argument("--json", action="store_true", help="print the list as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the list, or files."""
    from fastecho.errors import ConfigError

    for name in args.names:
        if name not in models.FILES:
            known = ", ".join(models.NAMES)
            raise ConfigError("NAME", name, f"is no model: there are {known}")
    chosen = [models.described(name) for name in args.names or models.NAMES]
    if args.json:
        print(json.dumps([_to_json(one) for one in chosen], indent=2))
    elif args.names:
        for one in chosen:
            print(_source(one.name), end="")
    else:
        print("\n".join(_lines(chosen)))
        print("\nfastecho models NAME prints a file; fastecho serve --model NAME serves by it")
    return 0


def _lines(chosen: list[Model]) -> list[str]:
    width = max(len(one.name) for one in chosen)
    found = []
    for one in chosen:
        found += [
            f"{one.name:{width}}  {one.idea}",
            f"{'':{width}}    good for: {one.good_for}",
            f"{'':{width}}    breaks:   {one.breaks}",
        ]
    return found


def _to_json(one: Model) -> dict[str, Any]:
    return {
        "name": one.name,
        "file": f"fastecho/models/{models.FILES[one.name]}.py",
        "idea": one.idea,
        "good_for": one.good_for,
        "breaks": one.breaks,
        "peers": one.peers,
        "largest_descriptor": one.largest_descriptor,
        "idle_cpu": one.idle_cpu,
    }


def _source(name: str) -> str:
    """Return the text of a model's file."""
    from importlib.util import find_spec

    spec = find_spec(f"fastecho.models.{models.FILES[name]}")
    assert spec is not None
    assert spec.loader is not None
    text: str = spec.loader.get_source(spec.name)  # type: ignore[attr-defined]
    return text
