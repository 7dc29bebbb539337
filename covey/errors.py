"""What can go wrong for a training script: each message says what, why, and what to do."""


class CoveyError(Exception):
    """Any of the errors below."""


class NodeError(CoveyError):
    """No node could be found or started, or it refused this learner."""


class ShareError(CoveyError, ValueError):
    """The model's tensors cannot be shared as asked."""
