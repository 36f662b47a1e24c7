"""`fastecho models`: the I/O models of the tutorial, what each is good for, and how they compare.

Lives here: the options, the list as text and JSON. Does not live here: the models
(fastecho/models), serving by one (serve.py, _model.py), measuring them (_models_run.py).
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
serves by one.

With --run, measure them one beside the other under the load of `fastecho bench`: whom
each serves, rate, latency, CPU for each message. Each is a process of its own; they take
short turns. One that hangs, ends or refuses is shown as such. Ctrl-C shows what there is.

Exit code 0; with --run 1 if nothing could be measured, 4 if the compiled part or, for
--html, fastecho[report] is missing, 130 if it was interrupted before there was a result."""

EXAMPLE = """\
examples:
  fastecho models
  fastecho models epoll
  fastecho models --run --html models.html
  fastecho models blocking epoll native --run --connections 1,10 --duration 1s
  fastecho serve --model epoll --show-messages"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `models`."""
    parser.description = DESCRIPTION
    parser.epilog = EXAMPLE
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="print the file of this model, to be read; with --run, measure only these",
    )
    parser.add_argument(
        "--json",
        nargs="?",
        const="-",
        metavar="FILE",
        help="the list, or with --run the figures, as JSON (keys: docs/reference/models.md)",
    )
    group = parser.add_argument_group("measuring")
    group.add_argument("--run", action="store_true", help="measure the models")
    group.add_argument(
        "--connections", metavar="N,N", help="so many at a time (default: 1,10,100,1000)"
    )
    group.add_argument(
        "--duration",
        metavar="TIME",
        help="load for each model and number of connections (default: 3s)",
    )
    group.add_argument(
        "--html",
        metavar="FILE",
        help="one page with charts, which needs no network (needs fastecho[report])",
    )


def run(args: argparse.Namespace) -> int:
    """Print the list, or files; or measure."""
    _check(args)
    if args.run:
        from fastecho.cli import _models_run

        return _models_run.run(args, list(dict.fromkeys(args.names or models.NAMES)))
    chosen = [models.described(name) for name in args.names or models.NAMES]
    if args.json is not None:
        from fastecho.cli._outputs import check_path, write_text

        check_path("json", args.json)
        write_text(args.json, json.dumps([_to_json(one) for one in chosen], indent=2) + "\n")
    elif args.names:
        for one in chosen:
            print(_source(one.name), end="")
    else:
        print("\n".join(_lines(chosen)))
        print(
            "\nfastecho models NAME prints a file; fastecho serve --model NAME serves by it;"
            "\nfastecho models --run measures them"
        )
    return 0


def _check(args: argparse.Namespace) -> None:
    """Raise ConfigError for what is no model, and for options that do not fit."""
    from fastecho.errors import ConfigError

    for name in args.names:
        if name not in models.FILES:
            known = ", ".join(models.NAMES)
            raise ConfigError("NAME", name, f"is no model: there are {known}")
    for flag in ("json", "html"):
        if (taken := getattr(args, flag)) in models.FILES:
            reason = f"was taken for a file: write the model before --{flag}, or ./{taken}"
            raise ConfigError(f"--{flag}", taken, reason)
    for flag in ("connections", "duration", "html"):
        if not args.run and getattr(args, flag) is not None:
            raise ConfigError(f"--{flag}", getattr(args, flag), "has no effect without --run")


def _lines(chosen: list[Model]) -> list[str]:
    """Return a line for each model: what it is good for, and what it declares that it cannot do."""
    name, good = (max(len(getattr(one, key)) for one in chosen) for key in ("name", "good_for"))
    return [f"{one.name:{name}}  {one.good_for:{good}}  {_limits(one)}".rstrip() for one in chosen]


def _limits(one: Model) -> str:
    if one.peers is not None:
        return f"serves {one.peers} at a time"
    if one.largest_descriptor is not None:
        return f"descriptors to {one.largest_descriptor:,}"
    return "a core, even when idle" if one.idle_cpu else ""


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
