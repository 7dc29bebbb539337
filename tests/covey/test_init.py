"""``import covey`` is cheap and offers what it promises."""

import subprocess
import sys
from importlib.metadata import version

import pytest

import covey


def test_importing_loads_nothing_heavy() -> None:
    program = "import sys, covey; covey.__version__; print(*{'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


def test_the_numpy_door_needs_no_torch() -> None:
    program = "import sys, covey; covey.attach, covey.Layout; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False"]


@pytest.mark.parametrize("ask", ["covey.join", "from covey import join"])
def test_without_torch_the_torch_door_says_what_to_install(ask: str) -> None:
    program = f"import sys; sys.modules['torch'] = None; import covey; covey.attach\n{ask}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    *where, told = done.stderr.splitlines()
    assert told.startswith("ModuleNotFoundError: covey.join needs PyTorch: pip install 'covey[to")
    assert not [line for line in where if "joining.py" in line or "During handling" in line]


def test_every_public_name_is_there() -> None:
    assert dir(covey) == sorted(covey.__all__)
    for name in covey.__all__:
        assert getattr(covey, name) is not None
    assert covey.__version__ == version("covey")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'jion'"):
        covey.jion  # noqa: B018
