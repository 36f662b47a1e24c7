"""The rules for a wheel's contents: nothing is said of a proper one, and each offence is found.

The wheels here are made by hand; `make wheel` holds the real one to the same rules.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from contents import EXTENSIONS, SHELL_FILES, main, name_complaints, package_files, wheel_complaints

ROOT = Path(__file__).resolve().parents[2]
NAME = "fastecho-0.1.0-cp311-abi3-manylinux_2_28_x86_64.whl"
BINARY = b"\x7fELF\0.symtab\0.strtab\0"


@pytest.fixture
def files() -> dict[str, bytes]:
    """Return what a proper wheel holds."""
    files = dict.fromkeys(package_files(ROOT), b"")
    files |= {f"fastecho/{name}.abi3.so": BINARY for name in EXTENSIONS}
    files |= {f"fastecho-0.1.0.data/data/{name}": b"" for name in SHELL_FILES}
    return files | {
        "fastecho-0.1.0.dist-info/METADATA": b"",
        "fastecho-0.1.0.dist-info/RECORD": b"",
    }


def write(folder: Path, files: dict[str, bytes], name: str = NAME) -> Path:
    """Write a wheel with these files."""
    with zipfile.ZipFile(folder / name, "w") as archive:
        for path, data in files.items():
            archive.writestr(path, data)
    return folder / name


def test_proper_wheel_is_accepted(tmp_path: Path, files: dict[str, bytes]) -> None:
    assert wheel_complaints(write(tmp_path, files)) == []


def test_modules_are_those_of_the_package() -> None:
    modules = package_files(ROOT)
    wanted = {"fastecho/__init__.py", "fastecho/cli/serve.py", "fastecho/_core.pyi"}
    assert wanted | {"fastecho/py.typed"} <= modules
    assert not any(name.endswith((".pyx", ".pxd", ".so")) for name in modules)


@pytest.mark.parametrize(
    "name",
    [
        NAME,
        "fastecho-0.1.0-cp311-abi3-musllinux_1_2_aarch64.whl",
        "fastecho-0.1.0-cp311-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "fastecho-0.1.0-cp314-cp314t-manylinux_2_28_aarch64.whl",
    ],
)
def test_name_that_installs_elsewhere_is_accepted(name: str) -> None:
    assert name_complaints(name) == []


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("fastecho-0.1.0-cp311-abi3-linux_x86_64.whl", "takes the platform linux_x86_64"),
        ("fastecho-0.1.0-cp312-abi3-manylinux_2_28_x86_64.whl", "cp312-abi3 is neither"),
        ("fastecho-0.1.0-cp312-cp312-manylinux_2_28_x86_64.whl", "is not fastecho-VERSION"),
        ("fastecho-0.1.0-cp314-cp315t-manylinux_2_28_x86_64.whl", "cp314-cp315t is neither"),
        ("fastecho-0.1.0-py3-none-any.whl", "is not fastecho-VERSION"),
        ("slowecho-0.1.0-cp311-abi3-manylinux_2_28_x86_64.whl", "is not fastecho-VERSION"),
    ],
)
def test_name_that_does_not_install_elsewhere_is_found(name: str, says: str) -> None:
    (said,) = name_complaints(name)
    assert says in said


@pytest.mark.parametrize(
    ("added", "says"),
    [
        ({"fastecho/_core.pyx": b""}, "does not belong here: fastecho/_core.pyx"),
        ({"fastecho/_core.c": b""}, "does not belong here: fastecho/_core.c"),
        ({"src_c/slab.h": b""}, "does not belong here: src_c/slab.h"),
        ({"tests/conftest.py": b""}, "does not belong here: tests/conftest.py"),
        ({"fastecho/_fast.abi3.so": BINARY}, "does not belong here: fastecho/_fast.abi3.so"),
        ({"fastecho.libs/libz.so": BINARY}, "does not belong here: fastecho.libs/libz.so"),
        (
            {"fastecho-0.1.0.data/data/share/man/man1/slowecho.1": b""},
            "does not belong here: fastecho-0.1.0.data/data/share/man/man1/slowecho.1",
        ),
        ({"fastecho/_core.abi3.so": b"MZ"}, "fastecho/_core.abi3.so is no ELF file"),
        ({"fastecho/_core.abi3.so": BINARY + b".debug_info"}, "has debug information: .debug_info"),
        ({"fastecho/_core.abi3.so": b"\x7fELF\0"}, "has no symbol table"),
        (
            {"fastecho/_core.cpython-314t-x86_64-linux-gnu.so": BINARY},
            "the extensions are ['_core', '_core', '_load']",
        ),
    ],
)
def test_what_does_not_belong_in_a_wheel_is_found(
    tmp_path: Path, files: dict[str, bytes], added: dict[str, bytes], says: str
) -> None:
    (said,) = wheel_complaints(write(tmp_path, files | added))
    assert says in said


@pytest.mark.parametrize(
    ("lost", "says"),
    [
        ("fastecho/cli/serve.py", "missing: fastecho/cli/serve.py"),
        ("fastecho/py.typed", "missing: fastecho/py.typed"),
        (
            "fastecho-0.1.0.data/data/share/man/man1/fastecho.1",
            "missing: share/man/man1/fastecho.1",
        ),
        ("fastecho/_load.abi3.so", "the extensions are ['_core']"),
    ],
)
def test_what_is_missing_from_a_wheel_is_found(
    tmp_path: Path, files: dict[str, bytes], lost: str, says: str
) -> None:
    del files[lost]
    (said,) = wheel_complaints(write(tmp_path, files))
    assert says in said


def test_complaint_ends_the_program_with_1(
    tmp_path: Path, files: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    good = write(tmp_path, files)
    bad = write(tmp_path, files, NAME.replace("manylinux_2_28", "linux"))
    assert main([str(good)]) == 0
    assert main([str(good), str(bad)]) == 1
    assert "takes the platform linux_x86_64" in capsys.readouterr().out
    assert main([]) == 1
