"""What a matcher's error means. llguidance tells its kinds apart by their words alone."""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from llguidance import LLMatcher

NO_TEXT: Final = "no text matches it"
REFUSED: Final = "it does not allow a token that was sampled"
TOO_COMPLEX: Final = "it is too complex"


def trouble_of(matcher: "LLMatcher") -> str:
    """One of the sentences above, of a matcher in its error state."""
    error = matcher.get_error()
    if error.startswith("NoExtension"):
        return NO_TEXT
    # Its words for a token that breaks the grammar, and for one after the grammar's end.
    if "satisfy the grammar" in error or error.startswith("parser stopped"):
        return REFUSED
    # All others are limits: states, expressions, items.
    return TOO_COMPLEX
