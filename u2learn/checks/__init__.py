"""The checks of the assignments: property tests that say what is wrong, not only that something is.

    from u2learn.checks import check
    check("1.2", conv2d)

prints one green line, or stops with one red line: the mistake that was recognised, or the first case in which
the answer differs, with what came out and what was expected. The cases are random and PyTorch is the judge,
so a hard-coded answer fails. There are no solutions in here, but those of the labs, and nothing asks the
network.
"""

from u2learn.checks.core import NotYet, check

__all__ = ["NotYet", "check"]
