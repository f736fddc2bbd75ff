"""One wording for a name that is not on the list: what was given, the nearest one, all of them."""

from collections.abc import Iterable
from difflib import get_close_matches


def unknown(kind: str, given: str, allowed: Iterable[str]) -> ValueError:
    """The error to raise when ``given`` is not one of ``allowed``.

    Args:
        kind: what is being named, in the user's words, such as ``architecture``.
        given: the name as the user typed it.
        allowed: the right names, in the order in which they are listed.
    """
    names = list(allowed)
    nearest = get_close_matches(given, names, n=1, cutoff=0.5)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ";"
    return ValueError(f"unknown {kind} {given!r}{hint} choose from: {', '.join(names) or 'none'}")
