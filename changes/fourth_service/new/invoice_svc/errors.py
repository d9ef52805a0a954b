"""The invoice service's problem types, beyond the common ones: it has none of its own."""

from servicekit.problems import Catalogue


def catalogue(base_url: str) -> Catalogue:
    """The problem types as they resolve under this service's URL."""
    return Catalogue("invoice", base_url)
