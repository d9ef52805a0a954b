"""Who calls: bearer tokens, each with a role. Compared in constant time; refuses what it does not know."""

import hmac
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from pydantic import SecretStr
from starlette.requests import Request

from servicekit.problems import ProblemError


@dataclass(frozen=True)
class Caller:
    """The holder of a token: what it may do, and its name (the scope of its idempotency keys)."""

    role: str
    name: str


@dataclass(frozen=True)
class Credential:
    """One token that the service knows, and whose it is."""

    token: str
    caller: Caller


def by_role(**tokens: SecretStr) -> "Authenticator":
    """Who may call where each role has one token: `by_role(operator=..., conductor=...)`."""
    return Authenticator(
        [Credential(token.get_secret_value(), Caller(role, role)) for role, token in tokens.items()]
    )


class Authenticator:
    """Finds the caller of a request among the credentials given.

    `anonymous` is who comes without a token; None: nobody may.
    """

    def __init__(self, credentials: Sequence[Credential], anonymous: Caller | None = None) -> None:
        self._credentials = [(credential.token.encode(), credential.caller) for credential in credentials]
        self._anonymous = anonymous

    def require(self, *roles: str) -> Callable[[Request], Awaitable[Caller]]:
        """A FastAPI dependency that lets only these roles through (401 for no or a wrong token, else 403)."""

        async def caller_of(request: Request) -> Caller:
            return self.admit(request.headers.get("authorization"), roles)

        return caller_of

    def admit(self, authorization: str | None, roles: Sequence[str]) -> Caller:
        """The caller named by an Authorization header, if its role is one of these. Raises ProblemError."""
        caller = self.identify(authorization)
        if caller.role not in roles and authorization is None:
            raise ProblemError("unauthorized", f"This route needs the token of {' or '.join(roles)}.")
        if caller.role not in roles:
            raise ProblemError("forbidden", f"This route is for {' or '.join(roles)}, not {caller.role}.")
        return caller

    def identify(self, authorization: str | None) -> Caller:
        """The caller named by an Authorization header. Raises ProblemError("unauthorized")."""
        if authorization is None:
            if self._anonymous is None:
                raise ProblemError("unauthorized", "This route needs a bearer token.")
            return self._anonymous
        scheme, _, token = authorization.partition(" ")
        offered = token.strip().encode()
        # Every token is compared, so that the time taken tells nothing.
        found = [caller for known, caller in self._credentials if hmac.compare_digest(known, offered)]
        if scheme.lower() != "bearer" or not found:
            raise ProblemError("unauthorized", "The token is not one that this service knows.")
        return found[0]
