"""Checks of `Idempotency-Key`: a repeat with the same key is the same order, whatever comes between."""

import asyncio
import json

from lab.conform.placing import ASYNC
from lab.conform.refusing import expect_problem
from lab.conform.section import Section
from lab.conform.subject import ACCEPTED, FailedError, Reply, SkippedError, Subject, fresh_key, require
from lab.samples import sample_order

AT_ONCE = 8
ROUNDS = 3
LONGEST_KEY = 255
REPLAYED = "Idempotency-Replayed"

repeating = Section("docs/api.md, Repeating")


@repeating.check(
    "replay", "The same key with the same body gives the same order, with `Idempotency-Replayed: true`."
)
async def replay(subject: Subject) -> None:
    key = fresh_key()
    first = await subject.place_accepted(key=key)
    require(not _is_replayed(first), f"the first answer says {REPLAYED}")
    _expect_replay(first, await subject.place(key=key))


@repeating.check(
    "replay-at-once", "A repeat while the first request's order is in progress gives that order."
)
async def replay_at_once(subject: Subject) -> None:
    key = fresh_key()
    first = await subject.place_accepted(key=key, prefer=ASYNC)
    _expect_replay(first, await subject.place(key=key, prefer=ASYNC))


@repeating.check("same-json", "The same body is the same JSON, whatever its order of fields and its spacing.")
async def same_json(subject: Subject) -> None:
    key, order = fresh_key(), sample_order()
    first = await subject.place_accepted(order, key=key)
    turned = json.dumps(dict(reversed(order.items())), indent=3).encode()
    _expect_replay(first, await subject.place(order, key=key, content=turned))


@repeating.check("quoted-key", '`"k"` and `k` are the same key.')
async def quoted_key(subject: Subject) -> None:
    key = fresh_key()
    first = await subject.place_accepted(key=f'"{key}"')
    _expect_replay(first, await subject.place(key=key))


@repeating.check("other-body", "The same key with another body is 422, `idempotency-key-reused`.")
async def other_body(subject: Subject) -> None:
    key = fresh_key()
    await subject.place_accepted(key=key)
    reply = await subject.place(sample_order() | {"currency": "EUR"}, key=key)
    expect_problem(reply, 422, slug="idempotency-key-reused")


@repeating.check("other-style", "The same key with another `style` is 422, `idempotency-key-reused`.")
async def other_style(subject: Subject) -> None:
    others = [style for style in subject.served if style != subject.style]
    if not others:
        raise SkippedError("one style is examined")
    key = fresh_key()
    await subject.place_accepted(key=key)
    reply = await subject.place(key=key, style=others[0])
    expect_problem(reply, 422, slug="idempotency-key-reused")


@repeating.check("key-length", "A key has 1 to 255 characters; any other is 400.")
async def key_length(subject: Subject) -> None:
    longest = fresh_key().ljust(LONGEST_KEY, "k")
    first = await subject.place_accepted(key=longest)
    _expect_replay(first, await subject.place(key=longest))
    expect_problem(await subject.place(key=longest + "k"), 400)
    expect_problem(await subject.place(key='""'), 400)


@repeating.check("refused-key", "A 4xx answer binds no key.")
async def refused_key(subject: Subject) -> None:
    key = fresh_key()
    refused = await subject.place(sample_order() | {"lines": []}, key=key)
    require(400 <= refused.status < 500, f"{refused} (422 was due)")
    reply = await subject.place_accepted(key=key)
    require(not _is_replayed(reply), f"the order is said to be {REPLAYED}")


@repeating.check("no-key", "Without a key every request is an order of its own.")
async def no_key(subject: Subject) -> None:
    first, second = await subject.place_accepted(), await subject.place_accepted()
    require(first.order_id() != second.order_id(), f"two requests became one order, {first.order_id()}")
    require(not _is_replayed(second), f"the second answer says {REPLAYED}")


@repeating.check(
    "concurrent", f"{AT_ONCE} requests at once with one key make one order, {AT_ONCE - 1} of them replayed."
)
async def concurrent(subject: Subject) -> None:
    for _ in range(ROUNDS):
        key = fresh_key()
        replies = await asyncio.gather(*(subject.place(key=key) for _ in range(AT_ONCE)))
        if wrong := [reply for reply in replies if reply.status not in ACCEPTED]:
            raise FailedError(f"{wrong[0]} (201 or 202 was due)")
        ids = {reply.order_id() for reply in replies}
        require(len(ids) == 1, f"{len(ids)} orders for one key: {', '.join(sorted(ids))}")
        fresh = [reply for reply in replies if not _is_replayed(reply)]
        require(len(fresh) == 1, f"{len(fresh)} of {AT_ONCE} answers don't say {REPLAYED}")


def _is_replayed(reply: Reply) -> bool:
    return reply.headers.get(REPLAYED) == "true"


def _expect_replay(first: Reply, repeat: Reply) -> None:
    require(repeat.status in ACCEPTED, f"{repeat} (201 or 202 was due)")
    ids = (first.order_id(), repeat.order_id())
    require(ids[0] == ids[1], f"two orders for one key: {ids[0]} and {ids[1]}")
    require(_is_replayed(repeat), f"{REPLAYED} is {repeat.headers.get(REPLAYED, 'absent')!r}, not 'true'")
