"""The C extension against numpy.

The extension is compiled here, as setup.py says and once more for the sanitizers: these tests need
a C compiler and Python's headers.
"""

import ast
import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.gossip import kernels, mixing, native, quantiser, reference
from covey.gossip.quantiser import LAYERS, Quantiser
from tests.gossip.kernel_checks import ARGUMENTS, LENGTHS, blocks_in, equal, load, refused

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "gossip" / "_kernels.c"
COMPILER = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
STRICT = ["-Wall", "-Wextra", "-Werror"]
# The plain loops, since the others are checked where the processor has AVX2.
SANITIZED = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1", "-g1", "-DPLAIN"]


def compile_to(folder: Path, *flags: str) -> "subprocess.Popen[str]":
    """Begin to compile the extension into ``folder`` with setup.py's flags and ``flags``."""
    tree = ast.parse((ROOT / "setup.py").read_text())
    keywords = [node for node in ast.walk(tree) if isinstance(node, ast.keyword)]
    [own] = [ast.literal_eval(k.value) for k in keywords if k.arg == "extra_compile_args"]
    include = sysconfig.get_path("include")
    place = ["-shared", "-fPIC", f"-I{include}", str(SOURCE), "-o", str(folder / "_kernels.so")]
    if sys.platform == "darwin":
        place += ["-undefined", "dynamic_lookup"]
    command = [*COMPILER, *own, *STRICT, *flags, *place]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The extension built plainly, and with sanitizers."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("plain", "sanitized")}
    flags = {"plain": [], "sanitized": SANITIZED}
    compiling = {name: compile_to(folders[name], *flags[name]) for name in folders}
    for process in compiling.values():
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    return {name: folder / "_kernels.so" for name, folder in folders.items()}


@pytest.fixture(scope="module")
def extension(built: dict[str, Path]) -> ModuleType:
    return load(built["plain"])


@pytest.mark.parametrize("name", ARGUMENTS)
def test_c_equals_numpy_at_every_edge(extension: ModuleType, name: str) -> None:
    for seed, length in enumerate(LENGTHS):
        equal(extension, name, length, seed)


@pytest.mark.parametrize("name", ARGUMENTS)
@settings(max_examples=30)
@given(length=st.integers(0, 1000), seed=st.integers(0, 2**32 - 1))
def test_c_equals_numpy(extension: ModuleType, name: str, length: int, seed: int) -> None:
    equal(extension, name, length, seed)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_that_do_not_fit_are_refused(extension: ModuleType, name: str) -> None:
    refused(extension, name)


def test_the_source_is_of_the_version_that_is_asked_for(extension: ModuleType) -> None:
    assert extension.INTERFACE == native.INTERFACE


def test_every_function_is_checked(extension: ModuleType) -> None:
    functions = {name for name in dir(extension) if callable(getattr(extension, name))}
    assert {name for name in functions if not name.startswith("__")} == set(ARGUMENTS)


def test_sanitizers_find_nothing(built: dict[str, Path]) -> None:
    """Neither an access out of bounds nor undefined behaviour."""
    asked = [*COMPILER, "-print-file-name=libasan.so"]
    library = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    environment = {
        "LD_PRELOAD": str(Path(library).resolve()),
        "ASAN_OPTIONS": "detect_leaks=0",  # the interpreter's own
        "PYTHONMALLOC": "malloc",
    }
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/gossip/kernel_checks.py"), str(built["sanitized"])],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "equal\n"), done.stderr


@settings(max_examples=30)
@given(st.sampled_from([1, 100, 64 * 30]), st.integers(-6, 6), st.integers(0, 2**32 - 1))
def test_an_exchange_is_the_same_with_either(
    extension: ModuleType, length: int, apart: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((2, length)).astype(np.float32)
    y = x + y * np.float32(2.0**apart)
    scales = np.full(blocks_in(length), 0.5, np.float32)

    def told() -> tuple[bytes, ...]:
        a, b = Quantiser(x, scales, seed), Quantiser(y, scales, seed)
        out = []
        for layer in range(LAYERS):
            out += [bytes(a.write(layer)), bytes(b.write(layer))]
            a.read(layer, out[-1])
            b.read(layer, out[-2])
        moved = x.copy()
        a.moves(0.5).add(moved, moved)
        distance, largest = a.outcome(scales * 100)
        return *out, moved.tobytes(), largest.tobytes(), distance.hex().encode()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantiser, "kernels", extension)
        with_c = told()
        patch.setattr(quantiser, "kernels", reference)
        assert told() == with_c


def test_a_norm_is_the_same_with_either(extension: ModuleType) -> None:
    a, b = np.random.default_rng(0).standard_normal((2, 200_001)).astype(np.float32)
    found = set()
    with pytest.MonkeyPatch.context() as patch:
        for module in (extension, reference):
            patch.setattr(mixing, "kernels", module)
            found.add((mixing.norm(a), mixing.norm(a, b)))
    assert len(found) == 1


def test_the_extension_is_chosen_where_it_is_in_use() -> None:
    assert kernels.chosen is (native.extension or reference)
