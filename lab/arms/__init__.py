"""The four arms of `duet faults`: both durable styles and, beside them, what people usually write.

All run by the very same `duet up`, in front of the very same services, so that every verb works on each of
them: a naive arm is a tree (`DUET_ROOT`) whose `checkout` is another one.
"""

from lab.arms.tree import ARMS, BOOK, Arm, make_tree
from lab.baselines.book import read_book

__all__ = ["ARMS", "BOOK", "Arm", "make_tree", "read_book"]
