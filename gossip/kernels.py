"""The arithmetic in use: the C extension where it was built, else numpy; the same to the bit.

``COVEY_NUMPY=1`` in the environment chooses numpy although the extension is there.
"""

import os
from typing import TYPE_CHECKING

from covey.gossip import reference

if TYPE_CHECKING:
    chosen = reference  # the extension has the same functions, their arguments by position only
    IN_USE: str
elif os.environ.get("COVEY_NUMPY", "0") not in ("", "0"):
    chosen, IN_USE = reference, "numpy (COVEY_NUMPY is set)"
else:
    try:
        from covey.gossip import _kernels as chosen

        IN_USE = f"C ({chosen.VECTOR})" if chosen.VECTOR else "C"
    except ImportError:
        chosen, IN_USE = reference, "numpy (no extension built)"
