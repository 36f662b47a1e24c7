"""The rules that the sources keep: no GIL, no state in headers, clean builds, no machine names.

Each rule is a function from text to complaints. It is run over the tree, where it must find
nothing, and over a small offence, where it must find exactly that.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "fastecho"
MAX_LINES = 600

LIBC_HEADERS = {
    "assert.h", "errno.h", "inttypes.h", "limits.h", "math.h", "stdalign.h", "stdatomic.h",
    "stdbool.h", "stddef.h", "stdint.h", "stdlib.h", "string.h",
}  # fmt: skip

C_TYPES = {"bint", "char", "double", "float", "int", "long", "short", "void", "unsigned", "signed"}
OBJECT_TYPES = {"bytearray", "bytes", "dict", "frozenset", "list", "memoryview", "object", "set"}
OBJECT_TYPES |= {"slice", "str", "tuple", "type"}
GIL_HELD = "Phase *"
"""What only exists while the GIL is held, and stands for it among the arguments of a function."""


@cache
def project_files() -> tuple[Path, ...]:
    """Return every file that belongs to the project, in a checkout and in an unpacked sdist."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    names = listing.stdout.split("\0") if listing.returncode == 0 else []
    if "setup.py" not in names:
        made = re.compile(
            r"(^|/)(build|dist|__pycache__|[^/]*\.egg-info|\.[a-z_]+_cache|\.hypothesis|\.venv)/"
        )
        found = (path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*") if path.is_file())
        names = [name for name in found if not made.search(name) and not name.endswith(".so")]
    return tuple(sorted(ROOT / name for name in names if name and (ROOT / name).is_file()))


def sources(*suffixes: str) -> list[Path]:
    """Return the project's source files with one of these suffixes."""
    return [path for path in project_files() if path.suffix in suffixes]


def name_of(path: Path) -> str:
    """Return a path as it is shown and used as a test's id."""
    return path.relative_to(ROOT).as_posix()


CYTHON_FILES = sources(".pyx", ".pxd")

# What runs without the GIL


def logical_lines(text: str) -> Iterator[str]:
    """Yield a Cython file's statements: without comments and strings, brackets joined."""
    text = re.sub(r'"""(?:[^\\]|\\.)*?"""', '""', text, flags=re.S)
    text = re.sub(r'"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)*\'', '""', text)
    text = re.sub(r"#.*", "", text)
    depth, start = 0, 0
    for place, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if character == "\n" and depth == 0:
            yield " ".join(text[start:place].splitlines()).rstrip()
            start = place + 1


def is_object(declaration: str, classes: set[str]) -> bool:
    """Tell whether an argument or a return type is a Python object."""
    words = re.sub(r"=.*", "", declaration).replace("const ", "").split()
    if not words or "*" in declaration or "[" in declaration or "(" in declaration:
        return False
    if len(words) == 1 and words[0] not in C_TYPES and not words[0].endswith("_t"):
        return True  # an argument without a type, such as self
    return words[0] in OBJECT_TYPES or words[0] in classes


def split_arguments(text: str) -> list[str]:
    """Split an argument list at its outer commas."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def closing(text: str, start: int) -> int:
    """Return where the bracket that opens at `start` closes; the last place if it does not."""
    depth = 0
    for place in range(start, len(text)):
        depth += (text[place] == "(") - (text[place] == ")")
        if depth == 0:
            return place
    return len(text) - 1


def signature(line: str) -> tuple[str, str, str] | None:
    """Return result type, arguments and tail of a C function or pointer to one, else None."""
    found = re.match(r"\s*(?:cdef|cpdef|ctypedef)\s+(?:(?:inline|public|readonly|api)\s+)*", line)
    rest = line[found.end() :].rstrip(":") if found else ""
    head, bracket, _ = rest.partition("(")
    if not bracket or "=" in head:
        return None
    start = len(head)
    if re.match(r"\(\s*\*", rest[start:]):
        start = rest.find("(", closing(rest, start))
    else:
        head = re.sub(r"\w+\s*$", "", head)  # the function's name
    end = closing(rest, start)
    return head.strip(), rest[start + 1 : end], rest[end + 1 :]


def function_complaints(line: str, classes: set[str]) -> list[str]:
    """Return what the declaration of a C function leaves out."""
    parts = signature(line)
    if parts is None:
        return []
    kind, arguments, tail = parts
    returns_object = not kind or is_object(f"{kind} result", classes)
    takes_object = arguments.startswith(GIL_HELD) or any(
        is_object(part, classes) for part in split_arguments(arguments)
    )
    complaints = []
    if not returns_object and not re.search(r"\bnoexcept\b|\bexcept\b\s*\??\s*[-\w]", tail):
        complaints.append(f"says nothing about exceptions: {line.strip()}")
    if not returns_object and not takes_object and not re.search(r"\bnogil\b", tail):
        complaints.append(f"needs no GIL but keeps it: {line.strip()}")
    return complaints


def gil_complaints(text: str, classes: set[str]) -> list[str]:
    """Return the C functions of a Cython file that leave out what they owe.

    A function whose result is no Python object says what happens to an exception: noexcept,
    or except with a value. A function that neither takes nor returns a Python object says
    nogil; so does each foreign function, or its whole block. Nothing takes the GIL. Classes
    are final, so that their methods are called directly.
    """
    complaints = []
    before = ""
    block: int | None = None  # indentation of an extern block that is not nogil as a whole
    for line in logical_lines(text):
        if not line.strip():
            continue
        indent = len(line) - len(line.lstrip())
        if block is not None and indent <= block:
            block = None
        if re.match(r"\s*cdef\s+extern\s+from\b", line):
            block = None if line.endswith(" nogil:") else indent
        elif block is not None:
            if "(" in line and not re.search(r"\bnogil\b", line):
                complaints.append(f"is foreign and keeps the GIL: {line.strip()}")
        elif re.match(r"\s*cdef\s+class\b", line) and line.endswith(":"):
            if before.strip() != "@cython.final":
                complaints.append(f"a class is not final: {line.strip()}")
        elif re.search(r"\bwith\s+gil\b", line):
            complaints.append(f"takes the GIL: {line.strip()}")
        else:
            complaints += function_complaints(line, classes)
        before = line
    return complaints


@cache
def extension_classes() -> set[str]:
    """Return the names of all extension classes of ours."""
    found: set[str] = set()
    for path in CYTHON_FILES:
        found.update(re.findall(r"^\s*cdef\s+class\s+(\w+)", path.read_text(), re.M))
    return found


@pytest.mark.parametrize("path", CYTHON_FILES, ids=name_of)
def test_c_function_says_noexcept_and_nogil(path: Path) -> None:
    assert gil_complaints(path.read_text(), extension_classes()) == []


@pytest.mark.parametrize(
    "line",
    [
        "cdef int f(int a) noexcept nogil:",
        "cdef inline ssize_t f(int a,\n                      const char *b) except -1 nogil:",
        "cdef int f(const unsigned char[::1] v) except? -1 nogil:",
        "cdef object f(int rc, str what):",
        "cdef list f(self):",
        "cdef int f(self, int n) except -1:",
        "cdef void f(Echo e) noexcept:",
        "cdef int rc = f(1)",
        "cdef int (*callback)(int) noexcept nogil",
        'cdef extern from "x.h" nogil:\n    int f(int)',
        "cdef extern from *:\n    int f(int) noexcept nogil\n    int X",
        "@cython.final\ncdef class Echo:",
        "ctypedef int (*callback)(void *) noexcept nogil",
    ],
)
def test_proper_c_function_is_accepted(line: str) -> None:
    assert gil_complaints(line + "\n", {"Echo"}) == []


@pytest.mark.parametrize(
    "line",
    [
        "cdef void f() nogil:",
        "cdef int f(int a) noexcept:",
        "cdef int f(int a) except -1:",
        "cdef inline ssize_t f(int a,\n                      const char *b) nogil:",
        "cdef int f(self, int n):",
        "cdef void f(Echo e):",
        "cdef Worker *f(Worker *w) noexcept:",
        "cdef int (*callback)(int) noexcept",
        'cdef extern from "x.h":\n    int f(int)',
        "cdef class Echo:",
        "    with gil:",
        "cdef int f(Echo e) noexcept with gil:",
    ],
)
def test_careless_c_function_is_found(line: str) -> None:
    assert len(gil_complaints(line + "\n", {"Echo"})) == 1


# Headers that decide and never act


def header_complaints(text: str) -> list[str]:
    """Return what a header of src_c must not hold: system headers, mutable statics, exports."""
    complaints = [
        f"includes <{name}>" for name in re.findall(r"#\s*include\s*<([^>]+)>", text)
        if name not in LIBC_HEADERS
    ]  # fmt: skip
    code = re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.S)
    complaints += [
        f"mutable static: {line.strip()}"
        for line in re.findall(r"^\s*static\s+(?!inline\b|const\b)[^\n]*", code, re.M)
    ]
    complaints += [
        f"not static inline: {line.strip()}"
        for line in re.findall(
            r"^(?!static\b|typedef\b|_Static_assert\b)[a-z_][\w *]*\([^\n]*", code, re.M
        )
    ]
    return complaints


C_HEADERS = [path for path in sources(".h") if path.parent == ROOT / "src_c"]


@pytest.mark.parametrize("path", C_HEADERS, ids=name_of)
def test_header_makes_no_system_call_and_keeps_no_state(path: Path) -> None:
    text = path.read_text()
    assert header_complaints(text) == []
    for name in re.findall(r'#\s*include\s*"([^"]+)"', text):
        assert (path.parent / name).is_file(), name


@pytest.mark.parametrize(
    "text",
    [
        "#include <Python.h>\n",
        "#include <sys/socket.h>\n",
        "#include <time.h>\n",
        "static int calls;\n",
        "static inline void f(void)\n{\n    static int calls;\n}\n",
        "int f(void)\n{\n    return 0;\n}\n",
    ],
)
def test_forbidden_line_in_a_header_is_found(text: str) -> None:
    assert len(header_complaints(text)) == 1


# Shape of a file

CODE = sources(".py", ".pyi", ".pyx", ".pxd", ".h", ".c")


def opening(path: Path) -> str:
    """Return the docstring or comment that a file starts with."""
    text = re.sub(r"^(#(!| *cython:| *distutils:).*\n)+", "", path.read_text()).lstrip()
    if path.suffix in {".py", ".pyi"}:
        return ast.get_docstring(ast.parse(text)) or ""
    if text.startswith(('"""', "/*")):
        return text[3:].split('"""' if text[0] == '"' else "*/")[0]
    lines = re.match(r"(?:(?:#|//).*\n)*", text)
    return lines[0] if lines else ""


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_file_fits_one_reading_and_says_what_it_is(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES
    assert len(opening(path).split()) >= 5


# Clean builds


# Not warn.maybe_uninitialized: it calls every result that is returned through a pointer
# uninitialized. The C compiler judges that better.
CYTHON = [sys.executable, "-m", "cython", "-3"]
CYTHON += ["-X", "warn.unused=True", "-X", "warn.unreachable=True"]


def run_quietly(command: list[str], **more: str) -> str:
    """Run a command that must succeed; return all that it printed."""
    result = subprocess.run(
        command, env={**os.environ, **more}, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout
    return result.stdout


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    """Translate both extensions to C, once: the file, and what Cython said, by name."""
    pytest.importorskip("Cython", reason="needs the build tools")
    folder = tmp_path_factory.mktemp("generated")

    def translate(path: Path) -> tuple[Path, str]:
        target = folder / f"{path.stem}.c"
        return target, run_quietly([*CYTHON, "-o", str(target), str(path)])

    paths = sources(".pyx")
    with ThreadPoolExecutor(len(paths)) as pool:
        return dict(zip((path.stem for path in paths), pool.map(translate, paths), strict=True))


def test_extensions_are_the_core_and_the_load() -> None:
    assert [path.stem for path in sources(".pyx")] == ["_core", "_load"]


@pytest.mark.timeout(180)
def test_cython_remarks_nothing(generated: dict[str, tuple[Path, str]]) -> None:
    """No warning and no performance hint: a cdef without noexcept would give one."""
    assert {name: said for name, (_, said) in generated.items() if said} == {}


def test_cython_remarks_a_missing_noexcept(tmp_path: Path) -> None:
    (tmp_path / "careless.pyx").write_text(
        "cdef void f() nogil:\n    pass\n\ndef g():\n    with nogil:\n        f()\n"
    )
    assert "performance hint" in run_quietly([*CYTHON, str(tmp_path / "careless.pyx")])


BUILDS = [(name, limited) for name in ("_core", "_load") for limited in (True, False)]


@pytest.fixture(scope="module")
def compiled(generated: dict[str, tuple[Path, str]]) -> dict[tuple[str, bool], str]:
    """Compile each extension for the stable ABI and for the full one; what the compiler said."""
    compiler = os.environ.get("CC", "gcc")
    if shutil.which(compiler) is None:
        pytest.skip("needs a C compiler")

    def compile_one(build: tuple[str, bool]) -> str:
        name, limited = build
        command = [compiler, "-std=gnu11", "-O1", "-Wall", "-Wextra", "-DNDEBUG", "-fPIC"]
        command.append("-DPy_LIMITED_API=0x030b0000" if limited else "-Wno-unused-parameter")
        command += [f"-I{ROOT / 'src_c'}", f"-I{sysconfig.get_path('include')}"]
        return run_quietly([*command, "-c", str(generated[name][0]), "-o", os.devnull])

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return dict(zip(BUILDS, pool.map(compile_one, BUILDS), strict=True))


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", ["_core", "_load"])
@pytest.mark.parametrize("limited", [True, False], ids=["stable-abi", "full-api"])
def test_compiler_warns_of_nothing(
    compiled: dict[tuple[str, bool], str], name: str, limited: bool
) -> None:
    """Optimized, because some warnings need the optimizer. The flags are those of setup.py.

    Without the limited API, Cython 3.3's own conversion of an enum ignores a parameter. Ours are
    judged with it.
    """
    assert compiled[name, limited] == ""


# Nothing of this machine


def leak_complaints(text: str, secrets: set[str]) -> list[str]:
    """Return paths of somebody's machine and package registries in a text."""
    paths = re.findall(r"(?<![\w.~/-])/(?:root|work|home/\w+|Users/\w+)/[^\s'\"`]*", text)
    registries = re.findall(r"(?:https?|file)://[^\s'\"`)]*(?:pypi|simple/?\b)[^\s'\"`)]*", text)
    options = re.findall(r"--(?:extra-)?index-url|PIP_(?:EXTRA_)?INDEX_URL", text)
    return paths + registries + options + sorted(secret for secret in secrets if secret in text)


@cache
def machine_names() -> frozenset[str]:
    """Return this machine's own paths and registry hosts, whatever they are."""
    names = {str(ROOT), f"{Path.home()}/"}
    config = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True
    ).stdout
    for url in re.findall(r"https?://[^\s']+", config):
        names.add(urlsplit(url).hostname or "")
    # A path of one component, or a public host, may be in a text for its own sake.
    public = {"", "pypi.org", "files.pythonhosted.org", "github.com", "localhost", "127.0.0.1"}
    return frozenset(name for name in names - public if name.count("/") != 1)


@pytest.mark.parametrize("path", project_files(), ids=name_of)
def test_file_names_no_machine_and_no_registry(path: Path) -> None:
    if path == Path(__file__).resolve():
        return
    assert leak_complaints(path.read_text(errors="replace"), set(machine_names())) == []


@pytest.mark.parametrize(
    "text",
    [
        "see /ho" + "me/someone/notes.txt",
        "cd /ro" + "ot/x",
        "pip install --index" + "-url x",
        "https://mirror.example/pyp" + "i/x",
        "the file is in nowhere-else",
    ],
)
def test_name_of_a_machine_is_found(text: str) -> None:
    assert len(leak_complaints(text, {"nowhere-else"})) == 1
