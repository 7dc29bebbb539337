"""The house style as a test: what CONTRIBUTING.md asks, checked on each file's syntax tree."""

import ast
import functools
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("protocols", "gossip", "simulate", "node", "covey")  # imports go only to the left
FOLDERS = (*LAYERS, "examples", "tests")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
SOURCES = [path for path in FILES if path.parent.name in LAYERS and path.parent.parent == ROOT]

FILE_LINES_MAX = 400
EXAMPLE_LINES_MAX = 80
FUNCTION_LINES_MAX = 70
ARGUMENTS_MAX = 8

# Inputs and outputs, clocks, threads and chance are brought by the caller.
_SANS_IO = {"asyncio", "threading", "multiprocessing", "concurrent", "socket", "ssl", "select"}
_SANS_IO |= {"time", "os", "pathlib", "tempfile", "shutil", "subprocess", "logging", "secrets"}
_SANS_IO |= {"aiohttp", "zeroconf", "torch"}
BANNED = {"protocols": _SANS_IO, "gossip": _SANS_IO, "node": {"torch"}, "covey": set[str]()}
# A simulation brings its own time and chance; it reads data, and computes with torch.
BANNED["simulate"] = _SANS_IO - {"pathlib", "torch"}
DOORS = {"simulate/cli.py", "gossip/native.py"}  # where the outer world comes in
# Each of these turns bytes into code, or a warning into silence.
BANNED_EVERYWHERE = {"pickle", "marshal", "shelve", "dill", "cloudpickle"}
BANNED_CALLS = {"eval", "exec", "compile", "breakpoint"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), name_of(path))


@functools.cache
def nodes_of(path: Path) -> list[ast.AST]:
    """Everything in its syntax tree."""
    return list(ast.walk(tree_of(path)))


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything imported, at the top of the file or inside a function."""
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write the whole name, not a relative one"
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


def layer_of(name: str) -> str | None:
    """The layer a dotted name belongs to; None for other people's packages."""
    parts = name.split(".")
    if parts[0] != "covey":
        return None
    return parts[1] if len(parts) > 1 and parts[1] in LAYERS[:-1] else "covey"


def none(faults: Iterable[str]) -> None:
    """All of them at once: whoever mends one wants to see the others."""
    assert not (found := list(faults)), "\n".join(found)


def test_imports_go_downwards() -> None:
    none(
        f"{name_of(path)}:{line}: {path.parent.name} is below {layer}; "
        f"the order is {' <- '.join(LAYERS)}"
        for path in SOURCES
        for line, name in imported(path)
        if (layer := layer_of(name)) and LAYERS.index(layer) > LAYERS.index(path.parent.name)
    )


def test_nothing_real_needs_the_simulator() -> None:
    none(
        f"{name_of(path)}:{line}: {name} is not for a node"
        for path in SOURCES
        if path.parent.name != "simulate"
        for line, name in imported(path)
        if layer_of(name) == "simulate"
    )


def test_no_banned_import() -> None:
    def banned(path: Path) -> set[str]:
        layer = set() if name_of(path) in DOORS else BANNED[path.parent.name]
        return layer | BANNED_EVERYWHERE

    none(
        f"{name_of(path)}:{line}: {path.parent.name} may not import {name}"
        for path in SOURCES
        for line, name in imported(path)
        if name.split(".")[0] in banned(path)
    )


def test_chance_is_an_argument() -> None:
    none(
        f"{name_of(path)}:{line}: take a Random as an argument, not {name}"
        for path in SOURCES
        if path.parent.name in ("protocols", "gossip")
        for line, name in imported(path)
        if name.split(".")[0] == "random" and name != "random.Random"
    )


def test_no_code_from_data() -> None:
    none(
        f"{name_of(path)}:{node.lineno}: {node.func.id}() has no place here"
        for path in FILES
        for node in nodes_of(path)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in BANNED_CALLS
    )


def test_no_fault_is_swallowed() -> None:
    """A bug must stay visible: whoever catches everything logs it as a bug or raises again."""

    def swallows(handler: ast.ExceptHandler) -> bool:
        caught = ast.unparse(handler.type) if handler.type is not None else "everything"
        if not {"everything", "Exception", "BaseException"} & set(caught.strip("()").split(", ")):
            return False
        inside = list(ast.walk(handler))
        raises = any(isinstance(child, ast.Raise) for child in inside)
        logs = any(isinstance(c, ast.Attribute) and c.attr == "exception" for c in inside)
        return not (raises or logs)

    none(
        f"{name_of(path)}:{node.lineno}: catches everything and says nothing"
        for path in SOURCES
        for node in nodes_of(path)
        if isinstance(node, ast.ExceptHandler) and swallows(node)
    )


def test_every_file_says_what_it_is() -> None:
    none(f"{name_of(p)} has no docstring" for p in FILES if not ast.get_docstring(tree_of(p)))


def test_files_are_short() -> None:
    def most(path: Path) -> int:
        return EXAMPLE_LINES_MAX if path.parent.name == "examples" else FILE_LINES_MAX

    none(
        f"{name_of(path)} has {lines} lines; split it, {most(path)} is the most"
        for path in FILES
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > most(path)
    )


Function = ast.FunctionDef | ast.AsyncFunctionDef


def lines_of(function: Function) -> int:
    """Besides its docstring."""
    assert function.end_lineno is not None
    lines = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function):
        text = function.body[0]
        assert text.end_lineno is not None
        lines -= text.end_lineno - text.lineno + 1
    return lines


def arguments_of(function: Function) -> int:
    """How many, besides self; none where click makes one of each flag."""
    if any("click" in ast.unparse(decorator) for decorator in function.decorator_list):
        return 0
    given = function.args
    names = [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])


def test_functions_are_short_and_take_little() -> None:
    found = [(path, n) for path in FILES for n in nodes_of(path) if isinstance(n, Function)]
    none(
        f"{name_of(path)}:{f.lineno}: {f.name} has {lines_of(f)} lines besides its docstring"
        for path, f in found
        if lines_of(f) > FUNCTION_LINES_MAX
    )
    none(
        f"{name_of(path)}:{f.lineno}: {f.name} takes {arguments_of(f)} arguments; make a dataclass"
        for path, f in found
        if arguments_of(f) > ARGUMENTS_MAX
    )


def test_no_test_is_skipped() -> None:
    none(
        f"{name_of(path)}:{node.lineno}: every test runs, everywhere"
        for path in FILES
        if path.is_relative_to(ROOT / "tests")
        for node in nodes_of(path)
        if isinstance(node, ast.Attribute) and node.attr in ("skip", "skipif", "importorskip")
    )


def test_every_file_has_its_tests() -> None:
    none(
        f"{name_of(path)} has no tests/{path.parent.name}/test_{path.name}"
        for path in SOURCES
        if path.stem not in ("__init__", "__main__")
        and not (ROOT / "tests" / path.parent.name / f"test_{path.name}").is_file()
    )


@pytest.mark.parametrize("layer", LAYERS)
def test_every_layer_is_typed(layer: str) -> None:
    assert (ROOT / layer / "py.typed").is_file()


def test_type_checkers_see_every_file() -> None:
    """.src/covey repeats the installed package as links; a file without one is never checked."""
    links = ROOT / ".src" / "covey"
    wanted = {path.name for path in (ROOT / "covey").iterdir() if path.suffix in (".py", ".typed")}
    wanted |= set(LAYERS[:-1])
    assert {link.name for link in links.iterdir() if link.name != "__pycache__"} == wanted
    for name in wanted:
        link = links / name
        target = ROOT / name if name in LAYERS else ROOT / "covey" / name
        assert link.is_symlink(), f".src/covey/{name} is not a link"
        assert not link.readlink().is_absolute()
        assert link.resolve() == target, f".src/covey/{name} points at {link.resolve()}"


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("covey", ("torch", "numpy", "aiohttp", "asyncio")),
        ("covey.protocols", ("torch", "asyncio")),
        ("covey.gossip", ("torch", "asyncio")),
        ("covey.node", ("torch",)),
        ("covey.node.cli", ("torch", "numpy", "aiohttp", "zeroconf")),
        ("covey.simulate.cli", ("torch", "sklearn", "matplotlib", "asyncio")),
        ("covey.node.daemon", ("torch", "sklearn")),
        ("covey.node.demo", ("torch", "sklearn", "aiohttp")),
    ],
)
def test_imports_stay_light(module: str, absent: tuple[str, ...]) -> None:
    """What a fresh interpreter loads decides how fast a command starts and how small a node is."""
    program = f"import sys, {module}; print(*sorted(sys.modules.keys() & set({absent!r})))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.split() == []


def test_the_versions_that_are_tested_are_pinned() -> None:
    """Every dependency named in pyproject.toml has one exact version in constraints.txt."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        asked += extra
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    for requirement in asked:
        name = requirement.split(">")[0].split("[")[0].strip()
        assert name.lower().replace("_", "-") in pinned, f"{name} is not pinned"
