"""Checks of `Prefer` (RFC 7240): how long a client is kept waiting is the client's to say."""

from lab.conform.placing import ASYNC, COMPLETES_WITHIN_S
from lab.conform.section import Section
from lab.conform.subject import Reply, Subject, require

WAIT_S = 5
ENOUGH = 0.9  # of the wait: clocks differ, and the answer may be prepared a little earlier
LOOKS = 4
MALFORMED = ("wait=soon", "wait=-1", "wait", ";;=,wait==2", '"')

waiting = Section("docs/api.md, Waiting")


@waiting.check("respond-async", "`Prefer: respond-async` is answered by 202 as soon as the order is durable.")
async def respond_async(subject: Subject) -> None:
    seen: list[int] = []
    for _ in range(LOOKS):  # one that happened to be finished says nothing
        reply = await subject.place_accepted(prefer=ASYNC)
        seen.append(reply.status)
        if reply.status == 202:
            require(ASYNC in reply.preferences_applied(), f"202 with {_applied(reply)}")
            return
    require(False, f"{LOOKS} orders were answered by {seen}, each after all its steps")


@waiting.check(
    "wait", "`Prefer: wait=N` waits until all steps are final, or N seconds; it is named as applied."
)
async def wait(subject: Subject) -> None:
    _expect_waited(await subject.place_accepted(prefer=f"wait={WAIT_S}"))


@waiting.check("wait-and-async", "`respond-async, wait=N` waits as `wait=N`, then answers 202.")
async def wait_and_async(subject: Subject) -> None:
    _expect_waited(await subject.place_accepted(prefer=f"{ASYNC}, wait={WAIT_S}"))


@waiting.check("wait-zero", "`wait=0` does not wait.")
async def wait_zero(subject: Subject) -> None:
    reply = await subject.place_accepted(prefer="wait=0")
    require("wait=0" in reply.preferences_applied(), _applied(reply))


@waiting.check("read-wait", "GET honours `wait`, of at most 30 s.")
async def read_wait(subject: Subject) -> None:
    placed = await subject.place_accepted(prefer=ASYNC)
    final = await subject.read_final(placed.order_id(), COMPLETES_WITHIN_S)
    require(final.get("status") != "in_progress", f"still in progress after {COMPLETES_WITHIN_S:.0f} s")
    for given, applied in ((f"wait={WAIT_S}", f"wait={WAIT_S}"), ("wait=100", "wait=30")):
        reply = await subject.read(placed.order_id(), prefer=given)
        require(applied in reply.preferences_applied(), f"Prefer: {given} gets {_applied(reply)}")


@waiting.check("malformed-prefer", "Malformed preferences are ignored.")
async def malformed(subject: Subject) -> None:
    placed = await subject.place_accepted(prefer=MALFORMED[0])
    read = [await subject.read(placed.order_id(), prefer=given) for given in MALFORMED[1:]]
    for given, reply in zip(MALFORMED, (placed, *read), strict=True):
        require(reply.status in (200, 201, 202), f"{reply}, with Prefer: {given}")
        require(not reply.preferences_applied(), f"Prefer: {given} gets {_applied(reply)}")


def _expect_waited(reply: Reply) -> None:
    require(f"wait={WAIT_S}" in reply.preferences_applied(), _applied(reply))
    if reply.status == 202:
        require(reply.took_s >= WAIT_S * ENOUGH, f"202 after {reply.took_s:.2f} s, of {WAIT_S} s")


def _applied(reply: Reply) -> str:
    return f"{reply.asked}: Preference-Applied is {reply.headers.get('Preference-Applied', 'absent')!r}"
