"""The arithmetic in use: the C extension where there is one, else numpy; the same to the bit."""

from typing import TYPE_CHECKING

from covey.gossip import native, reference

if TYPE_CHECKING:
    chosen = reference  # the extension has the same functions, their arguments by position only
else:
    chosen = native.extension or reference
