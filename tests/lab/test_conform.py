"""`duet conform`: a right implementation passes every check, and for each flaw the right checks fail."""

import asyncio
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from lab import conform
from lab.bench.orders import Origin
from lab.client import open_client
from lab.conform.examination import AT_THE_END, FAIL, IN_EACH_STYLE, ONCE, Examination, examine
from lab.conform.placing import ASYNC
from lab.conform.representation import faults, status_faults
from lab.conform.subject import REQUEST_S, Subject, fresh_key
from lab.errors import LabError, OneLineErrors
from lab.order import STYLES
from lab.samples import sample_order
from lab.targets import Target
from tests.lab.small_checkout import SmallCheckout, serving
from tests.support.ports import port_base

MOST_ORDERS = 120
WITH_KEYS = {"replay", "replay-at-once", "same-json", "quoted-key", "key-length", "concurrent"}
REFUSALS = {
    *("other-body", "key-length", "invalid-fields", "invalid-style", "malformed-json", "media-type"),
    *("body-size", "not-found", "method", "problem-page"),
}
FLAWS: Mapping[str, set[str]] = {
    "forgets-keys": {*WITH_KEYS, "other-body", "retried"},
    "racing": {"concurrent", "retried"},
    "silent": WITH_KEYS,
    "spaced": {"same-json"},
    "long-keys": {"key-length"},
    "binds-refused": {"refused-key"},
    "text-errors": REFUSALS,
    "relative-type": REFUSALS,
    "no-pointers": {"invalid-fields", "invalid-style"},
    "ignores-prefer": {"respond-async", "wait", "wait-and-async", "wait-zero", "read-wait"},
    "hurries": {"wait", "wait-and-async"},
    "absolute": {"location"},
    "no-retry-after": {"status", "read"},
    "wrong-total": {"representation", "optional-fields", "completes", "read"},
    "acts-twice": {"effects-once"},
    "loses": {"effects-once"},
    "orphans": {"no-orphans"},
}
# What was cut off when such a check failed is an order of which nobody was told.
CUT_OFF = {"forgets-keys", "racing"}


async def examined(small: SmallCheckout, *styles: str, **changes: Any) -> Examination:
    async with serving(small) as target, open_client() as client:
        return await examine(client, replace(target, **changes), styles)


def outcomes(examination: Examination, outcome: str) -> dict[str, str]:
    """What was seen, by the names of the checks that ended so."""
    return {result.check.name: result.seen for result in examination.results if result.outcome == outcome}


async def test_a_right_implementation_passes_in_both_styles_with_a_bounded_number_of_orders() -> None:
    small = SmallCheckout()
    examination = await examined(small)
    assert outcomes(examination, FAIL) == {}
    assert list(outcomes(examination, "skipped")) == ["token"]
    assert tuple(examination.styles) == STYLES
    assert examination.orders == len(small.orders) <= MOST_ORDERS
    assert len(examination.results) == 2 * len(IN_EACH_STYLE) + len(ONCE) + len(AT_THE_END)


@pytest.mark.parametrize("flaw", FLAWS)
async def test_for_each_flaw_the_right_checks_fail_and_no_other(flaw: str) -> None:
    examination = await examined(SmallCheckout(frozenset({flaw})), STYLES[0])
    failed = outcomes(examination, FAIL)
    assert not examination.passed
    assert set(failed) - ({"no-orphans"} if flaw in CUT_OFF else set()) == FLAWS[flaw]
    assert all(failed.values()), "every failure says what was seen"


async def test_of_a_style_that_is_not_served_it_is_said_and_the_other_is_examined() -> None:
    examination = await examined(SmallCheckout(styles=("choreography",)))
    assert examination.passed
    assert tuple(examination.styles) == ("choreography",)
    skipped = outcomes(examination, "skipped")
    assert skipped["accepted"].startswith(
        "it does not serve this style: POST /checkouts?style=orchestration: 422"
    )
    assert skipped["other-style"] == "one style is examined"


async def test_a_style_that_is_accepted_and_not_obeyed_is_not_served_either() -> None:
    examination = await examined(SmallCheckout(frozenset({"one-style"}), ("choreography",)))
    assert tuple(examination.styles) == ("choreography",)
    assert set(outcomes(examination, FAIL)) == {"invalid-style"}
    assert outcomes(examination, "skipped")["accepted"].endswith("style is 'choreography'")


async def test_a_style_that_is_asked_for_and_not_served_fails_and_nothing_more_is_said_of_it() -> None:
    examination = await examined(SmallCheckout(styles=("choreography",)), "orchestration")
    assert set(outcomes(examination, FAIL)) == {"accepted"}
    assert set(outcomes(examination, "skipped").values()) == {"no order is accepted"}


async def test_without_effects_exactly_once_is_said_to_be_not_checked() -> None:
    examination = await examined(SmallCheckout(frozenset({"loses"})), STYLES[0], effects={})
    assert examination.passed
    skipped = outcomes(examination, "skipped")
    assert skipped["effects-once"].startswith("not checked: ")
    assert "no-orphans" in skipped


async def test_where_a_token_is_given_a_request_without_one_has_to_be_refused() -> None:
    small = SmallCheckout()
    async with serving(small) as target, open_client() as client:
        with_token = replace(target, origin=replace(target.origin, token="secret"))
        examination = await examine(client, with_token, STYLES[:1])
    assert set(outcomes(examination, FAIL)) == {"token"}


@pytest.mark.parametrize(("share", "accepted"), [(1.0, 1), (0.6, 0)])
async def test_a_dropped_request_is_an_order_only_if_it_was_whole(share: float, accepted: int) -> None:
    small = SmallCheckout()
    async with serving(small) as target, open_client() as client:
        subject, key = Subject(client, target, STYLES[0]), fresh_key()
        await subject.drop(sample_order(), key, share=share, linger_s=0.3)
        assert len(small.orders) == accepted
        assert subject.promised == {}
        reply = await subject.place(key=key, prefer=ASYNC)
        assert ("Idempotency-Replayed" in reply.headers) == bool(accepted)
        assert list(subject.promised) == list(small.orders)


async def test_where_nothing_answers_it_says_what_to_do() -> None:
    with port_base() as port:
        target = Target("nobody", Origin("127.0.0.1", port), "", "", {})
        async with open_client() as client:
            with pytest.raises(LabError, match=r"nothing answers at http://127.0.0.1:.*: start it first"):
                await examine(client, target, ())


def test_every_check_has_a_name_of_its_own_a_sentence_and_where_it_is_written() -> None:
    checks = (*IN_EACH_STYLE, *ONCE, *AT_THE_END)
    assert len({check.name for check in checks}) == len(checks)
    for check in checks:
        assert check.requires.endswith("."), check.name
        assert check.where.startswith(("docs/", "README.md")), check.name
    assert REQUEST_S <= 10


def right() -> dict[str, Any]:
    step = {"status": "succeeded", "attempts": 1, "finished_at": "2026-11-22T09:00:00.01Z"}
    return {
        "order_id": "1",
        "style": "orchestration",
        "status": "completed",
        **sample_order(),
        "total_minor": 4348,
        "accepted_at": "2026-11-22T09:00:00Z",
        "completed_at": "2026-11-22T09:00:00.012Z",
        "steps": {"email": step, "rewards": {"status": "skipped", "attempts": 0, "reason": "has not joined"}},
        "newer": "fields are ignored",
    }


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({}, None),
        ({"order_id": 7}, "order_id is 7"),
        ({"status": "done"}, "status is 'done'"),
        ({"currency": "EUR"}, "currency is 'EUR', not as sent"),
        ({"accepted_at": "2026-11-22T09:00:00"}, "accepted_at is '2026-11-22T09:00:00'"),
        ({"completed_at": None}, "completed_at is None"),
        ({"status": "in_progress"}, "while the order is not completed"),
        ({"steps": []}, "steps is [], not an object"),
        ({"steps": {"email": {"status": "ok"}}}, "steps.email has no status"),
        ({"steps": {"email": {"status": "failed", "attempts": 1}}}, "failed without a reason"),
        ({"steps": {"email": {"status": "succeeded", "attempts": "1"}}}, "attempts is '1'"),
    ],
)
def test_a_representation_is_held_to_its_fields(changes: dict[str, Any], fault: str | None) -> None:
    found = faults(right() | changes, sample_order())
    assert found == [] if fault is None else any(fault in each for each in found), found


def test_the_orders_status_follows_from_the_steps_that_are_awaited() -> None:
    pending, failed = {"status": "pending"}, {"status": "failed"}
    for steps, due in (
        ({"a": pending, "b": failed}, "in_progress"),
        ({"a": failed}, "needs_attention"),
        ({"a": {"status": "skipped"}, "b": {**pending, "awaited": False}}, "completed"),
        ({}, "in_progress"),
    ):
        assert status_faults({"status": due, "steps": steps}) == []
        assert status_faults({"status": "unheard-of", "steps": steps}) != []


@contextmanager
def served_beside(small: SmallCheckout) -> Iterator[str]:
    """Serve it in a thread of its own, for a command; its URL."""
    urls: list[str] = []
    ready, ended = threading.Event(), threading.Event()

    async def serve() -> None:
        async with serving(small) as target:
            urls.append(f"http://127.0.0.1:{target.origin.port}")
            ready.set()
            await asyncio.to_thread(ended.wait, 60)

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    try:
        assert ready.wait(20)
        yield urls[0]
    finally:
        ended.set()
        thread.join(20)


def run(*arguments: str) -> Result:
    app = typer.Typer(cls=OneLineErrors, pretty_exceptions_enable=False)
    app.callback()(lambda: None)
    conform.register(app)
    return CliRunner().invoke(app, ["conform", *arguments])


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No system that runs on this machine is found by its port."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def test_the_command_says_what_is_required_what_was_seen_and_ends_with_1_if_a_check_fails() -> None:
    with served_beside(SmallCheckout(frozenset({"absolute"}))) as url:
        result = run(url, "--style", "orchestration")
        assert result.exit_code == 1
        assert "FAIL    location (orchestration)\n        required: `Location` is " in result.output
        assert "        seen: Location is 'http://127.0.0.1:" in result.output
        assert "1 failed, " in result.output
        told = run(url, "--style", "choreography", "--json")
        document = json.loads(told.stdout)
        assert (told.exit_code, document["passed"], document["styles"]) == (1, False, ["choreography"])
        [failed] = [check for check in document["checks"] if check["result"] == "FAIL"]
        assert (failed["name"], failed["where"]) == ("location", "docs/api.md, Place an order")


def test_the_command_takes_a_targets_file_and_ends_with_0_if_all_is_well(tmp_path: Any) -> None:
    with served_beside(SmallCheckout()) as url:
        effects = [
            f'[effects.{name}]\nurl = "{url}/{name}/effects"' for name in ("email", "warehouse", "rewards")
        ]
        lines = [f'checkout = "{url}"', 'style = "orchestration"', *effects]
        (tmp_path / "mine.toml").write_text("\n".join(lines))
        result = run("--target", str(tmp_path / "mine.toml"))
        assert result.exit_code == 0, result.output
        assert "pass    effects-once\n" in result.output
        assert "choreography" not in result.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "say what to check: URL, --port-base, or --target FILE.toml"),
        (["http://example.com"], "http://example.com is not on this machine; say --remote"),
        (["ftp://127.0.0.1"], "is not as http://host:port/path"),
        (["--target", "nowhere.toml"], "cannot read the target nowhere.toml"),
    ],
)
def test_what_cannot_be_examined_is_refused_in_one_line(arguments: list[str], said: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("duet: ")
    assert said in result.stderr
