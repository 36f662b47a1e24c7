"""`import fastecho` costs next to nothing and offers exactly the documented names."""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import fastecho

ROOT = Path(__file__).resolve().parent.parent

# Written out again on purpose: a name that comes or goes changes the interface.
PUBLIC = {
    "Client",
    "ConfigError",
    "Connection",
    "ExtensionMissingError",
    "FastechoError",
    "Fault",
    "ForkedError",
    "ListenQueue",
    "Peer",
    "Reason",
    "Server",
    "StartError",
    "Stats",
    "TcpInfo",
    "__version__",
    "black_hole",
}


MEASURE = {
    "DatagramPinger", "Interval", "Pinger", "Plan", "Result", "Rule", "find_max", "read", "run",
}  # fmt: skip


def run_python(code: str) -> str:
    """Run `code` in a Python of its own and return what it printed."""
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result.stdout


def test_public_names_are_exactly_the_documented_ones() -> None:
    assert len(fastecho.__all__) == len(PUBLIC)
    assert set(fastecho.__all__) == PUBLIC
    assert {name for name in dir(fastecho) if not name.startswith("_")} == PUBLIC - {"__version__"}


@pytest.mark.parametrize("name", sorted(PUBLIC - {"__version__"}))
def test_public_name_is_a_documented_class(name: str) -> None:
    value = getattr(fastecho, name)
    assert inspect.isclass(value)
    assert value.__name__ == name
    assert value.__doc__ is not None
    assert getattr(fastecho, name) is value


def test_star_import_brings_the_public_names() -> None:
    namespace: dict[str, object] = {}
    exec("from fastecho import *", namespace)
    assert set(namespace) - {"__builtins__"} == PUBLIC


def test_unknown_name_is_an_attribute_error_that_names_it() -> None:
    with pytest.raises(AttributeError, match=r"^module 'fastecho' has no attribute 'Sever'$"):
        fastecho.Sever  # type: ignore[attr-defined]  # noqa: B018


def test_type_checkers_see_the_names_that_the_table_resolves() -> None:
    tree = ast.parse((ROOT / "fastecho" / "__init__.py").read_text())
    seen = {
        alias.name: (node.module or "").removeprefix("fastecho.")
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == fastecho._HOMES


def test_import_loads_no_other_module() -> None:
    code = (
        "import sys; before = set(sys.modules); import fastecho;"
        "print(*sorted(set(sys.modules) - before))"
    )
    assert run_python(code).split() == ["fastecho", "fastecho._version"]


def test_measure_offers_exactly_the_documented_names() -> None:
    from fastecho import measure

    assert set(measure.__all__) == MEASURE == set(measure._HOMES)
    assert {name for name in dir(measure) if not name.startswith("_")} == MEASURE
    for name in MEASURE:
        assert getattr(measure, name).__doc__
    with pytest.raises(AttributeError, match=r"^module 'fastecho.measure' has no attribute 'go'$"):
        measure.go  # type: ignore[attr-defined]  # noqa: B018


def test_import_of_measure_loads_no_other_module() -> None:
    code = (
        "import sys; before = set(sys.modules); from fastecho import measure;"
        "print(*sorted(set(sys.modules) - before))"
    )
    loaded = {"fastecho", "fastecho._version", "fastecho.measure"}
    assert set(run_python(code).split()) <= {*loaded, "__future__", "fastecho.errors"}


def test_import_adds_at_most_ten_milliseconds_of_cpu() -> None:
    code = (
        "import time; start = time.process_time(); import fastecho;"
        "print(time.process_time() - start)"
    )
    # The least of several runs: a neighbour on the same core can only add to it.
    assert min(float(run_python(code)) for _ in range(5)) <= 0.010


def test_version_stands_in_one_place() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in project["project"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {
        "attr": "fastecho._version.__version__"
    }
    assert re.fullmatch(r"\d+\.\d+\.\d+", fastecho.__version__)
    for name in ("setup.py", "pyproject.toml", "Makefile", "fastecho/__init__.py"):
        assert fastecho.__version__ not in (ROOT / name).read_text(), name


def test_installed_metadata_has_the_version_and_needs_nothing() -> None:
    code = (
        "import importlib.metadata as m, json; d = m.distribution('fastecho');"
        "print(json.dumps([d.version, d.requires, d.metadata['License-Expression']]))"
    )
    version, needs, licence = json.loads(run_python(code))
    assert (version, licence) == (fastecho.__version__, "MIT")
    assert [one for one in needs or () if "extra ==" not in one] == []


def test_command_prints_the_version() -> None:
    command = Path(sys.executable).with_name("fastecho")
    for words in ([str(command)], [sys.executable, "-m", "fastecho"]):
        result = subprocess.run([*words, "--version"], capture_output=True, text=True, timeout=30)
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout == f"fastecho {fastecho.__version__}\n"
