"""The C extension, _kernels.c, where it was built and the environment does not forbid it.

``COVEY_NUMPY=1`` has numpy do the arithmetic although the extension is there.  This loads no numpy,
so that a command may tell which of the two is in use.
"""

import os
from importlib import import_module
from types import ModuleType

extension: ModuleType | None = None
if os.environ.get("COVEY_NUMPY", "0") not in ("", "0"):
    IN_USE = "numpy (COVEY_NUMPY is set)"
else:
    try:
        extension = import_module("covey.gossip._kernels")
        IN_USE = f"C ({extension.VECTOR})" if extension.VECTOR else "C"
    except ImportError:
        IN_USE = "numpy (no extension built)"
