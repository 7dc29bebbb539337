"""The C extension, _kernels.c, where it was built and the environment does not forbid it.

``COVEY_NUMPY=1`` has numpy do the arithmetic although the extension is there.  This loads no numpy,
so that a command may tell which of the two is in use.
"""

import os
from importlib import import_module
from types import ModuleType

INTERFACE = 8  # of the source beside this file; one that was built from another is of no use


def _found() -> tuple[ModuleType | None, str]:
    """The extension, if it is to be used, and what is in use, in words."""
    if os.environ.get("COVEY_NUMPY", "0") not in ("", "0"):
        return None, "numpy (COVEY_NUMPY is set)"
    try:
        built = import_module("covey.gossip._kernels")
    except ImportError:
        return None, "numpy (no extension built)"
    if getattr(built, "INTERFACE", None) != INTERFACE:
        return None, "numpy (the extension built is of another version: install covey again)"
    return built, f"C ({built.VECTOR})" if built.VECTOR else "C"


extension, IN_USE = _found()
