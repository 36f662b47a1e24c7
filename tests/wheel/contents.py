"""What a wheel must hold to install anywhere, and what it must not hold.

Lives here: the rules, as functions from a wheel to complaints; run as a program, this file prints
them. Does not live here: whether the wheel works (smoke.py), what an sdist holds
(test_packaging.py).
"""

from __future__ import annotations

import re
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXTENSIONS = ("_core", "_load")

# Where shells and man look, below the prefix of an installation.
SHELL_FILES = (
    "share/bash-completion/completions/fastecho",
    "share/zsh/site-functions/_fastecho",
    "share/fish/vendor_completions.d/fastecho.fish",
    "share/man/man1/fastecho.1",
)

# Debug information makes an extension six times larger; perf needs the symbol table.
FORBIDDEN_SECTIONS = (b".debug_info", b".debug_line", b".debug_str", b".gnu_debuglink")
NEEDED_SECTION = b"\0.symtab\0"

TAGS = re.compile(r"(?P<python>cp\d+)-(?P<abi>abi3|cp\d+t)-(?P<platforms>[\w.]+)")
PLATFORM = re.compile(r"(manylinux|musllinux)_\d+_\d+_\w+|manylinux2014_\w+")


def name_complaints(name: str) -> list[str]:
    """Return what is wrong with the tags in a wheel's file name."""
    parts = name.removesuffix(".whl").split("-", 2)
    found = TAGS.fullmatch(parts[-1]) if len(parts) == 3 and parts[0] == "fastecho" else None
    if not found:
        return [f"the name is not fastecho-VERSION-PYTHON-ABI-PLATFORM: {name}"]
    complaints = [
        f"no installer elsewhere takes the platform {platform}"
        for platform in found["platforms"].split(".")
        if not PLATFORM.fullmatch(platform)
    ]
    python, abi = found["python"], found["abi"]
    if (python, abi) != ("cp311", "abi3") and abi != f"{python}t":
        complaints.append(f"{python}-{abi} is neither cp311-abi3 nor a free-threaded build")
    return complaints


def file_complaints(names: set[str], modules: set[str]) -> list[str]:
    """Return what is missing from a wheel and what should not be there, by name.

    Args:
        names: of all files in the wheel.
        modules: the Python files that the package has in the source tree.
    """
    extension = re.compile(rf"fastecho/({'|'.join(EXTENSIONS)})\.(abi3|cpython-\d+t-[\w-]+)\.so")
    found = sorted(match[1] for match in map(extension.fullmatch, names) if match)
    complaints = []
    if found != sorted(EXTENSIONS):
        complaints.append(f"the extensions are {found}, not {sorted(EXTENSIONS)}")
    complaints += [f"missing: {name}" for name in sorted(modules - names)]
    data = re.compile(r"fastecho-[^/]+\.data/data/(.+)")
    shared = {match[1]: match[0] for match in map(data.fullmatch, names) if match}
    complaints += [f"missing: {name}" for name in SHELL_FILES if name not in shared]
    known = {shared.get(name) for name in SHELL_FILES}
    for name in sorted(names - modules - known):
        metadata = re.match(r"fastecho-[^/]+\.dist-info/", name)
        if not (metadata or extension.fullmatch(name) or name.endswith("/")):
            complaints.append(f"does not belong here: {name}")
    return complaints


def extension_complaints(name: str, data: bytes) -> list[str]:
    """Return what is wrong with a compiled extension."""
    if not data.startswith(b"\x7fELF"):
        return [f"{name} is no ELF file"]
    found = [section.decode() for section in FORBIDDEN_SECTIONS if section in data]
    complaints = [f"{name} has debug information: {', '.join(found)}"] if found else []
    if NEEDED_SECTION not in data:
        complaints.append(f"{name} has no symbol table, which perf needs")
    return complaints


def package_files(tree: Path) -> set[str]:
    """Return the files that every wheel holds: modules, stubs and the marker of type hints."""
    found = (path for path in (tree / "fastecho").rglob("*") if "__pycache__" not in path.parts)
    wanted = {".py", ".pyi", ".typed"}
    return {path.relative_to(tree).as_posix() for path in found if path.suffix in wanted}


def wheel_complaints(wheel: Path, tree: Path = ROOT) -> list[str]:
    """Return everything that is wrong with a wheel of this source tree."""
    complaints = name_complaints(wheel.name)
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        complaints += file_complaints(names, package_files(tree))
        for name in sorted(names):
            if name.endswith(".so"):
                complaints += extension_complaints(name, archive.read(name))
    return complaints


def main(names: list[str]) -> int:
    """Print the complaints about each wheel; return 1 if there are any, or no wheel."""
    complaints = [f"{name}: {one}" for name in names for one in wheel_complaints(Path(name))]
    print("\n".join(complaints) or f"holds what it must: {', '.join(names)}")
    return 1 if complaints or not names else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
