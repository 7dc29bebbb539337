"""Many nodes in one process and in virtual time: the daemon's own core, on an imagined network.

Only the clock, the network and the files are replaced.  ``World`` is the flock; what its nodes work
on is a ``Workload``: vectors alone (consensus.py) or models in training (learning.py).
"""
