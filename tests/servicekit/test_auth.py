"""Who calls: tokens, roles, and what is told to whom."""

import httpx
import pytest

from servicekit.auth import Authenticator, Caller, Credential
from servicekit.problems import ProblemError
from tests.servicekit.conftest import GUEST, KEEPER

KEEPER_CALLER = Caller("operator", "keeper")
CREDENTIALS = [
    Credential("keeper-token-0123", KEEPER_CALLER),
    Credential("gr\u00fcn-token", Caller("x", "y")),
]
SOMEBODY = Caller("caller", "anonymous")


@pytest.mark.parametrize(
    "header", ["Bearer keeper-token-0123", "bearer keeper-token-0123", "BEARER  keeper-token-0123 "]
)
def test_the_holder_of_a_token_is_known(header: str) -> None:
    assert Authenticator(CREDENTIALS).identify(header) == KEEPER_CALLER


@pytest.mark.parametrize("anonymous", [None, SOMEBODY])
@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        "Bearer keeper-token-012",
        "Bearer keeper-token-01234",
        "keeper-token-0123",
        "Basic keeper-token-0123",
        "Bearer keeper-token-0123, Bearer x",
        "Bearer \u00fc",
    ],
)
def test_a_wrong_token_is_refused_also_where_none_is_needed(header: str, anonymous: Caller | None) -> None:
    with pytest.raises(ProblemError) as refused:
        Authenticator(CREDENTIALS, anonymous).identify(header)
    assert refused.value.slug == "unauthorized"
    assert "keeper" not in refused.value.detail


def test_without_a_token_one_is_anonymous_if_that_is_allowed() -> None:
    assert Authenticator(CREDENTIALS, SOMEBODY).identify(None) == SOMEBODY
    with pytest.raises(ProblemError):
        Authenticator(CREDENTIALS).identify(None)


async def test_a_route_opens_to_its_role_alone(client: httpx.AsyncClient) -> None:
    assert (await client.get("/whoami", headers=KEEPER)).json() == {"name": "keeper"}
    forbidden = await client.get("/whoami", headers=GUEST)
    unknown = await client.get("/whoami")
    assert (forbidden.status_code, unknown.status_code) == (403, 401)
    assert unknown.headers["www-authenticate"] == "Bearer"
    assert "www-authenticate" not in forbidden.headers
