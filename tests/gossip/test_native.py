"""Which arithmetic is in use, asked of fresh interpreters."""

import os
import subprocess
import sys

from covey.gossip import native


def in_use(before: str = "", **environment: str) -> str:
    """What a fresh interpreter computes with."""
    program = f"{before}; from covey.gossip import native; print(native.IN_USE)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", program.removeprefix("; ")],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_the_environment_may_ask_for_numpy() -> None:
    assert in_use(COVEY_NUMPY="1") == "numpy (COVEY_NUMPY is set)"
    assert in_use(COVEY_NUMPY="0").startswith(("C", "numpy (no extension"))


def test_without_the_extension_it_is_numpy() -> None:
    hidden = "import sys; sys.modules['covey.gossip._kernels'] = None"
    assert in_use(hidden, COVEY_NUMPY="") == "numpy (no extension built)"


def test_an_extension_of_another_version_is_left_alone() -> None:
    old = "import sys, types; sys.modules['covey.gossip._kernels'] = types.ModuleType('old')"
    assert in_use(old, COVEY_NUMPY="").startswith("numpy (the extension built is of another")


def test_an_extension_in_use_is_told_with_its_instructions() -> None:
    assert (native.extension is not None) == native.IN_USE.startswith("C")
