"""The house style as a test: what CONTRIBUTING.md asks, checked on each file's syntax tree."""

import ast
import subprocess
import sys
from collections.abc import Iterator
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


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), name_of(path))


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything imported, at the top of the file or inside a function."""
    for node in ast.walk(tree):
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


def every(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=name_of)


@every(SOURCES)
def test_imports_go_downwards(path: Path) -> None:
    own = LAYERS.index(path.parent.name)
    for line, name in imported(tree_of(path)):
        layer = layer_of(name)
        assert layer is None or LAYERS.index(layer) <= own, (
            f"{name_of(path)}:{line}: {path.parent.name} is below {layer}; "
            f"the order is {' <- '.join(LAYERS)}"
        )


@every([path for path in SOURCES if path.parent.name != "simulate"])
def test_nothing_real_needs_the_simulator(path: Path) -> None:
    for line, name in imported(tree_of(path)):
        assert layer_of(name) != "simulate", f"{name_of(path)}:{line}: {name} is not for a node"


@every(SOURCES)
def test_no_banned_import(path: Path) -> None:
    layer = set() if name_of(path) in DOORS else BANNED[path.parent.name]
    banned = layer | BANNED_EVERYWHERE
    for line, name in imported(tree_of(path)):
        assert name.split(".")[0] not in banned, (
            f"{name_of(path)}:{line}: {path.parent.name} may not import {name}"
        )


@every([path for path in SOURCES if path.parent.name in ("protocols", "gossip")])
def test_chance_is_an_argument(path: Path) -> None:
    for line, name in imported(tree_of(path)):
        drawn = name.split(".")[0] == "random" and name != "random.Random"
        assert not drawn, f"{name_of(path)}:{line}: take a Random as an argument, not {name}"


@every(FILES)
def test_no_code_from_data(path: Path) -> None:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in BANNED_CALLS, (
                f"{name_of(path)}:{node.lineno}: {node.func.id}() has no place here"
            )


@every(SOURCES)
def test_no_fault_is_swallowed(path: Path) -> None:
    """A bug must stay visible: whoever catches everything logs it as a bug or raises again."""
    for node in ast.walk(tree_of(path)):
        if not isinstance(node, ast.ExceptHandler):
            continue
        caught = ast.unparse(node.type) if node.type is not None else "everything"
        if not {"everything", "Exception", "BaseException"} & set(caught.strip("()").split(", ")):
            continue
        inside = list(ast.walk(node))
        raises = any(isinstance(child, ast.Raise) for child in inside)
        logs = any(isinstance(c, ast.Attribute) and c.attr == "exception" for c in inside)
        assert raises or logs, f"{name_of(path)}:{node.lineno}: catches {caught} and says nothing"


@every(FILES)
def test_every_file_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(tree_of(path)), f"{name_of(path)} has no docstring"


@every(FILES)
def test_files_are_short(path: Path) -> None:
    most = EXAMPLE_LINES_MAX if path.parent.name == "examples" else FILE_LINES_MAX
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= most, f"{name_of(path)} has {lines} lines; split it, {most} is the most"


@every(FILES)
def test_functions_are_short_and_take_little(path: Path) -> None:
    for node in ast.walk(tree_of(path)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        where = f"{name_of(path)}:{node.lineno}: {node.name}"
        assert node.end_lineno is not None
        lines = node.end_lineno - node.lineno + 1
        if ast.get_docstring(node):
            text = node.body[0]
            assert text.end_lineno is not None
            lines -= text.end_lineno - text.lineno + 1
        assert lines <= FUNCTION_LINES_MAX, f"{where} has {lines} lines besides its docstring"
        given = node.args
        names = [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
        count = len([name for name in names if name not in ("self", "cls")])
        if not any("click" in ast.unparse(d) for d in node.decorator_list):  # one per flag there
            assert count <= ARGUMENTS_MAX, f"{where} takes {count} arguments; make a dataclass"


@every([path for path in FILES if path.is_relative_to(ROOT / "tests")])
def test_no_test_is_skipped(path: Path) -> None:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Attribute) and node.attr in ("skip", "skipif", "importorskip"):
            raise AssertionError(f"{name_of(path)}:{node.lineno}: every test runs, everywhere")


@every([path for path in SOURCES if path.stem not in ("__init__", "__main__")])
def test_every_file_has_its_tests(path: Path) -> None:
    tests = ROOT / "tests" / path.parent.name / f"test_{path.name}"
    assert tests.is_file(), f"{name_of(path)} has no {name_of(tests)}"


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
