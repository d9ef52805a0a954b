"""Targets: what a file must say, what is refused, and how effects that others tell of are held to account."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from lab.bench.orders import Origin
from lab.client import open_client
from lab.compare.windows import completions
from lab.errors import LabError
from lab.ledger import Effect
from lab.targets import EffectsAt, Target, parse_option, read_target
from tests.lab.fake_checkout import fake_checkout, reply
from tests.lab.fake_system import FakeTime

NINE = datetime(2026, 11, 22, 9, tzinfo=UTC)
MINIMAL = """
checkout = "http://127.0.0.1:9000"
[effects.email]
url = "http://127.0.0.1:9001/effects"
"""
WHOLE = """
checkout = "http://[::1]:9000/shop/"
style = "saga"
token_file = "client.token"
operator_token = "op"
[effects.mail]
url = "http://localhost:9001/effects"
[effects.rewards]
url = "http://127.0.0.1:9002/v2/effects"
token = "own"
[effects.gifts]
url = "http://127.0.0.1:9003/effects"
members_only = true
"""


def described(folder: Path, text: str) -> Path:
    file = folder / "target.toml"
    file.write_text(text)
    return file


def test_a_minimal_target_is_a_checkout_and_one_service(tmp_path: Path) -> None:
    assert parse_option(f"ours={described(tmp_path, MINIMAL)}") == Target(
        name="ours",
        origin=Origin("127.0.0.1", 9000, "", None),
        style="",
        operator_token="",
        effects={"email": EffectsAt("http://127.0.0.1:9001/effects", "", False)},
    )


def test_a_target_says_its_style_its_tokens_and_who_owes_members_only(tmp_path: Path) -> None:
    (tmp_path / "client.token").write_text("t0k\n")
    target = read_target("ours", described(tmp_path, WHOLE))
    assert target.origin == Origin("::1", 9000, "/shop", "t0k")
    assert (target.style, target.operator_token) == ("saga", "op")
    assert target.effects == {
        "mail": EffectsAt("http://localhost:9001/effects", "op", False),
        "rewards": EffectsAt("http://127.0.0.1:9002/v2/effects", "own", True),
        "gifts": EffectsAt("http://127.0.0.1:9003/effects", "op", True),
    }


@pytest.mark.parametrize(
    "host", ["192.0.2.7", "shop.example", "0.0.0.0", "127.0.0.1.example", "[2001:db8::1]"]
)
def test_what_is_beyond_this_machine_is_driven_only_if_the_file_says_so(host: str, tmp_path: Path) -> None:
    for where in ("9000", "9001/effects"):
        text = MINIMAL.replace(f"127.0.0.1:{where}", f"{host}:{where}")
        with pytest.raises(LabError, match="is not on this machine; say remote = true if it is yours"):
            read_target("ours", described(tmp_path, text))
        assert read_target("ours", described(tmp_path, "remote = true" + text)).name == "ours"


@pytest.mark.parametrize("given", ["ours", "=x.toml", "ours=", "a b=x.toml", "../x=x.toml", "undecided=x"])
def test_an_option_that_names_no_target_is_refused(given: str) -> None:
    with pytest.raises(LabError, match=r"--target .*: (give NAME=FILE.toml|a name has)"):
        parse_option(given)


SPOILT = {
    "checkout = 5": "checkout: give a text in quotes",
    "checkot = 'x'": "checkot is unknown: known are checkout, effects",
    "checkout = 'https://127.0.0.1:1'": "is not as http://host:port/path",
    "checkout = '127.0.0.1:1'": "is not as http://host:port/path",
    "checkout = 'http://me:word@127.0.0.1:1'": "is not as http://host:port/path",
    "checkout = 'http://127.0.0.1:1/?a=b'": "is not as http://host:port/path",
    "checkout = 'http://127.0.0.1:1/a b'": "is not as http://host:port/path",
    "checkout = 'http://127.0.0.1:99999'": "[Pp]ort",
    "checkout = 'http://127.0.0.1:0'": "has no port to connect to",
    "checkout = 'http://[::1'": "Invalid IPv6 URL",
    "style = 'a b'": "style: 'a b' does not fit",
    "style = 1": "style: give a text in quotes",
    "remote = 'yes'": "remote: say true or false",
    "token = ''": "token: a token is one line",
    "token = 5": "token: a token is one line",
    'token = "a\\r\\nX-Evil: 1"': "token: a token is one line",
    "token_file = 'nowhere'": "token_file: cannot read .*nowhere",
    "token_file = 5": "token_file: give a text in quotes",
    "token = 'a'\ntoken_file = 'b'": "token and token_file: give one of them",
    "checkout = 'http://127.0.0.1:1'\neffects = 5": "effects: give a table for each service",
    "[effects]\nemail = 5": r"effects\.email: give a table",
    "[effects.email]": r"effects\.email\.url is missing",
    "[effects.email]\nurl = 'http://127.0.0.1:1'\nurll = 1": r"effects\.email\.urll is unknown",
    "[effects.email]\nurl = 'ftp://127.0.0.1:1'": "is not as http://host:port/path",
    "[effects.email]\nurl = 'http://127.0.0.1:1'\nmembers_only = 1": r"effects\.email\.members_only: say",
    "[effects.email]\nurl = 'http://127.0.0.1:1'\ntoken_file = 'nowhere'": r"email\.token_file: cannot",
}


@pytest.mark.parametrize("line", SPOILT)
def test_a_file_that_describes_no_target_is_refused_with_what_is_wrong(line: str, tmp_path: Path) -> None:
    checkout, _, effects = MINIMAL.strip().partition("\n")
    key = line.split()[0]
    text = "\n".join(
        [
            *([] if key == "checkout" else [checkout]),
            line,
            *([] if "effects" in line else [effects]),
        ]
    )
    with pytest.raises(LabError, match=SPOILT[line]) as raised:
        read_target("ours", described(tmp_path, text))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["checkout = ", "\x00", "style = 'x'", ""])
def test_a_file_that_lacks_all_or_half_of_it_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"cannot read the target|describes no target"):
        read_target("ours", described(tmp_path, text))
    with pytest.raises(LabError, match="cannot read the target"):
        read_target("ours", tmp_path / "nowhere.toml")


def test_a_target_that_shows_no_effects_can_be_examined_but_not_compared(tmp_path: Path) -> None:
    file = described(tmp_path, MINIMAL.partition("[")[0])
    assert read_target("ours", file).effects == {}
    with pytest.raises(LabError, match="names no effects"):
        parse_option(f"ours={file}")


@dataclass
class FakeEffects:
    """Pages of two effects a service, at ports 1 and 2, for who has the token of that port."""

    tokens: Mapping[int, str]
    told: dict[int, list[tuple[str, datetime]]] = field(default_factory=dict)
    requests: list[httpx.Request] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        port = request.url.port or 0
        if self.tokens.get(port) and request.headers.get("Authorization") != f"Bearer {self.tokens[port]}":
            return httpx.Response(401, json={"title": "Who are you?"})
        first = int(request.url.params.get("cursor", "0"))
        found = self.told.get(port, [])
        page = [{"order_id": order_id, "at": at.isoformat()} for order_id, at in found[first : first + 2]]
        more = str(first + 2) if first + 2 < len(found) else None
        return httpx.Response(200, json={"effects": page, "next": more})


def a_target(port: int = 1, token: str = "") -> Target:
    effects = {
        "email": EffectsAt("http://127.0.0.1:1/effects", token, False),
        "rewards": EffectsAt("http://127.0.0.1:2/effects", "", True),
    }
    return Target("ours", Origin("127.0.0.1", port), "", "", effects)


async def read(fake: FakeEffects, target: Target) -> dict[str, list[Effect]]:
    async with open_client(httpx.MockTransport(fake)) as client:
        return await target.read_effects(client, FakeTime().patience(5))


async def test_effects_are_read_page_by_page_with_the_token_of_their_service_if_any() -> None:
    told = [(f"o-{number}", NINE) for number in range(5)]
    fake = FakeEffects({1: "secret"}, {1: told, 2: told[:1]})
    found = await read(fake, a_target(token="secret"))
    assert found == {"email": [Effect(*each) for each in told], "rewards": [Effect("o-0", NINE)]}
    assert [request.url.port for request in fake.requests] == [1, 1, 1, 2]
    assert "Authorization" not in fake.requests[-1].headers


async def test_a_service_that_refuses_to_tell_is_named_with_its_reason() -> None:
    with pytest.raises(LabError, match=r"ours's email does not show its effects at .*: Who are you\?"):
        await read(FakeEffects({1: "secret"}), a_target(token="wrong"))


async def test_a_service_that_does_not_answer_is_waited_for_only_so_long() -> None:
    def down(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    async with open_client(httpx.MockTransport(down)) as client:
        with pytest.raises(LabError, match="1/effects: refused"):
            await a_target().read_effects(client, FakeTime().patience(5))


async def test_a_target_that_is_there_passes_the_check_and_one_that_is_not_is_named() -> None:
    async with open_client(httpx.MockTransport(FakeEffects({}))) as client:
        async with fake_checkout(lambda *_: reply(202, "o-1")) as fake:
            await a_target(fake.port).check(client, FakeTime().patience(5))
        with pytest.raises(LabError, match=f"target ours: nothing listens at .* port {fake.port}"):
            await a_target(fake.port).check(client, FakeTime().patience(5))


PROMISED = {"member": True, "other": False}


def effects_of(*order_ids: str) -> list[Effect]:
    return [Effect(order_id, NINE) for order_id in order_ids]


def test_a_target_whose_orders_each_have_their_effects_once_balances_whatever_others_order() -> None:
    found = {"email": effects_of("member", "other", "a-stranger's"), "rewards": effects_of("member")}
    ledger = a_target().reconcile(PROMISED, found)
    assert ledger["balances"] is True
    assert ledger["accepted"] == 2
    assert json.loads(json.dumps(ledger)) == ledger


@pytest.mark.parametrize(
    ("email", "rewards", "kind", "service", "order_id"),
    [
        (("member",), ("member",), "missing", "email", "other"),
        (("member", "other"), (), "missing", "rewards", "member"),
        (("member", "other", "other"), ("member",), "duplicate", "email", "other"),
        (("member", "other"), ("member", "member"), "duplicate", "rewards", "member"),
        (("member", "other"), ("member", "other"), "unexpected", "rewards", "other"),
    ],
)
def test_a_planted_loss_or_duplicate_or_a_gift_to_nobody_fails_the_ledger_of_a_target(
    email: tuple[str, ...], rewards: tuple[str, ...], kind: str, service: str, order_id: str
) -> None:
    found = {"email": effects_of(*email), "rewards": effects_of(*rewards)}
    ledger = a_target().reconcile(PROMISED, found)
    assert ledger["balances"] is False
    assert ledger["ids"][kind][service] == [order_id]
    assert {each: ledger[each] for each in ("missing", "duplicate", "unexpected")} == {
        "missing": 0,
        "duplicate": 0,
        "unexpected": 0,
        kind: 1,
    }


def test_an_order_is_completed_when_the_last_effect_that_it_is_owed_is_there() -> None:
    soon, late = NINE + timedelta(seconds=1), NINE + timedelta(seconds=2)
    found = {
        "email": [Effect("member", soon), Effect("other", soon), Effect("half", soon)],
        "rewards": [Effect("member", late)],
    }
    rows = [("member", 0.0, 1.0, True), ("other", 0.0, 1.0, False), ("half", 0.0, 1.0, True)]
    done = completions(rows, found, frozenset({"rewards"}))
    assert done == {"member": late.timestamp(), "other": soon.timestamp()}
