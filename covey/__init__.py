"""Machines that train one model together, with nobody in charge.

    import covey
    swarm = covey.join(model, optimizer)      # the rest of the training script stays as it is

Everything here is loaded when first used: ``import covey`` alone imports neither torch nor numpy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from covey.attachment import Attachment, attach
    from covey.errors import CoveyError, NodeError, ShareError
    from covey.joining import Swarm, join
    from covey.protocols.layout import Kind, Layout, Tensor

__version__: str
__all__ = [
    "Attachment",
    "CoveyError",
    "Kind",
    "Layout",
    "NodeError",
    "ShareError",
    "Swarm",
    "Tensor",
    "__version__",
    "attach",
    "join",
]

_HOMES = {
    "Attachment": "covey.attachment",
    "attach": "covey.attachment",
    "CoveyError": "covey.errors",
    "NodeError": "covey.errors",
    "ShareError": "covey.errors",
    "Swarm": "covey.joining",
    "join": "covey.joining",
    "Kind": "covey.protocols.layout",
    "Layout": "covey.protocols.layout",
    "Tensor": "covey.protocols.layout",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("covey")
    if name not in _HOMES:
        raise AttributeError(f"module 'covey' has no attribute {name!r}")
    try:
        value = getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ModuleNotFoundError(
            f"covey.{name} needs PyTorch: pip install 'covey[torch]'; covey.attach works without",
            name="torch",
        ) from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
