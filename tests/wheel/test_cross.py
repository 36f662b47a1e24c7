"""Which tags a cross-built wheel may have, and what a part that fails or is left out leads to.

None of it needs the compiler of `make cross`, which tries everything else.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cross import Attempt, StepError, Target, main, stand_in, table
from cross import platform_complaints as complaints
from foreign import LackError, emulator, unpacked

WHEEL = "fastecho-0.1.0-cp311-abi3-{}.whl"
GLIBC = "manylinux_2_28_aarch64"


@pytest.mark.parametrize("tags", [GLIBC, "manylinux_2_17_aarch64.manylinux_2_28_aarch64"])
def test_tag_of_an_older_c_library_will_do(tags: str) -> None:
    assert complaints(WHEEL.format(tags), GLIBC) == []


@pytest.mark.parametrize(
    "tag",
    [
        "manylinux_2_29_aarch64", "manylinux_3_0_aarch64", "manylinux_2_28_x86_64",
        "musllinux_1_2_aarch64", "linux_aarch64",
    ],
)  # fmt: skip
def test_other_processor_or_c_library_is_a_complaint(tag: str) -> None:
    assert complaints(WHEEL.format(tag), GLIBC) == [f"the tag is {tag}, not {GLIBC}"]


class Faked(Attempt):
    """An attempt whose only part ends as it is told."""

    def __init__(self, end: str | Exception) -> None:
        super().__init__(Target("none", "none", "none", "none"), Path("none"))
        self._end = end

    def parts(self) -> list[tuple[str, Callable[[], str]]]:
        def part() -> str:
            if isinstance(self._end, Exception):
                raise self._end
            return self._end

        return [("built", part)]


@pytest.mark.parametrize(
    ("ends", "status", "last"),
    [
        (["well"], 0, "1 passed, 0 not tried, 0 FAILED"),
        (["well", LackError("no qemu")], 0, "1 passed, 1 not tried, 0 FAILED"),
        ([LackError("no qemu")], 1, "0 passed, 1 not tried, 0 FAILED"),
        (["well", StepError("cc ended with 1")], 1, "1 passed, 0 not tried, 1 FAILED"),
        (["well", subprocess.TimeoutExpired("program", 900)], 1, "1 passed, 0 not tried, 1 FAILED"),
    ],
)
def test_failed_part_fails_the_run_and_a_part_left_out_is_said(
    ends: list[str | Exception], status: int, last: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert table({str(number): Faked(end) for number, end in enumerate(ends)}) == status
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == last
    for end, line in zip(ends, lines[1:], strict=False):
        assert line.endswith(str(end))


def test_missing_emulator_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(LackError, match=r"^qemu-vax is missing .*apt install qemu-user-static"):
        emulator("vax")


def test_system_without_apt_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(
        LackError, match=r"^apt-get is missing: python3 for arm64 comes from Debian"
    ):
        unpacked("python3", "arm64", tmp_path / "debian")
    assert not (tmp_path / "debian").exists()


def test_unknown_target_is_named() -> None:
    with pytest.raises(SystemExit, match=r"^cross: the targets are aarch64.*, not vax-linux-gnu$"):
        main(["vax-linux-gnu"])


def test_stand_in_defines_every_name_once() -> None:
    program = stand_in({"PyList_New", "_Py_Dealloc"})
    assert program.count("char PyList_New[64];") == program.count("char _Py_Dealloc[64];") == 1
