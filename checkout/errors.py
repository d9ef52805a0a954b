"""The checkout service's problem types, beyond the common ones."""

from servicekit.problems import Catalogue, ProblemType

OWN = {
    "idempotency-key-invalid": ProblemType(
        400,
        "The Idempotency-Key is not valid",
        "Send one key of 1 to 255 printable ASCII characters, for example a UUID.",
    ),
    "idempotency-key-reused": ProblemType(
        422,
        "The Idempotency-Key belongs to another request",
        "Use a fresh key for another order; use a key again only with the very same body and style.",
    ),
    "order-status": ProblemType(
        409,
        "The order's status does not allow this",
        "Read the order again: retry wants one with a failed step that is not in progress, abandon one that "
        "is not completed.",
    ),
    "broker-unavailable": ProblemType(
        503,
        "The broker stores no events at present",
        "Ask again after the seconds in `Retry-After`: a retry may be asked for more than once.",
    ),
    "too-many-streams": ProblemType(
        503,
        "Too many event streams are open",
        "Try again after the seconds in `Retry-After`, or poll the order with `Prefer: wait`.",
    ),
}


def catalogue(base_url: str) -> Catalogue:
    """The problem types as they resolve under this service's URL."""
    return Catalogue("checkout", base_url, OWN)
