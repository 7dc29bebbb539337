"""Which of two models stands when nodes with different ones meet: one rule, no election.

A lineage is named by its founder: the node whose initial weights it began with.  The one that has
trained longer stands, counted in doublings of its age so that two young flocks do not swap back and
forth while both grow; among equals the smaller founder.  Fresh nodes are the case of age zero.
"""

from covey.protocols import limits
from covey.protocols.messages import Lineage

_LAGGARD_MIN = 16  # outer steps behind before a node of the same lineage copies instead of mixing


def outranks(a: Lineage, b: Lineage) -> bool:
    """Whether ``a`` stands over ``b``.  An empty lineage (no model yet) never stands."""
    if not a.founder or a.founder == b.founder:
        return False
    if not b.founder:
        return True
    return (a.age.bit_length(), b.founder) > (b.age.bit_length(), a.founder)


def should_copy(mine: Lineage, theirs: Lineage) -> bool:
    """Whether a node with ``mine`` gives up its weights for ``theirs``.

    That is when the other lineage stands, or in the same one when this node was away so long that
    it is less than half as far.
    """
    if mine.founder and mine.founder == theirs.founder:
        return theirs.age - mine.age > _LAGGARD_MIN and 2 * mine.age < theirs.age
    return outranks(theirs, mine)


def mixable(mine: Lineage, theirs: Lineage) -> bool:
    """Whether the two may average: one lineage, and neither so far behind that it should copy."""
    same = bool(mine.founder) and mine.founder == theirs.founder
    return same and not should_copy(mine, theirs) and not should_copy(theirs, mine)


def older(lineage: Lineage) -> Lineage:
    """The lineage one outer step later; a peer may have told us the greatest age there is."""
    return Lineage(lineage.founder, min(lineage.age + 1, limits.AGE_MAX))


def eldest(a: Lineage, b: Lineage) -> Lineage:
    """The lineage of both with the greater age, which nodes pass on as they meet."""
    assert a.founder == b.founder
    return a if a.age >= b.age else b
