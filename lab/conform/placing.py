"""Checks of placing and reading an order: what is answered, and that it is the representation."""

from urllib.parse import urlsplit

from lab.conform.representation import faults, status_faults
from lab.conform.section import Section
from lab.conform.subject import Reply, Subject, require
from lab.ledger import COMPLETED, IN_PROGRESS
from lab.order import STYLES
from lab.samples import sample_order

COMPLETES_WITHIN_S = 10.0
ASYNC = "respond-async"

placing = Section("docs/api.md, Place an order")
reading = Section("docs/api.md, Read an order")


@placing.check("accepted", "A valid order is answered by 201 or 202, in the style that is asked for.")
async def accepted(subject: Subject) -> None:
    reply = await subject.place_accepted()
    told = reply.document().get("style")
    require(subject.style in ("", told), f"style is {told!r}, not {subject.style!r}")


@placing.check("representation", "The answer is the order's representation, with all its fields, as sent.")
async def representation(subject: Subject) -> None:
    reply = await subject.place_accepted()
    _expect(faults(reply.document(), sample_order()), reply)


@placing.check("optional-fields", "Optional fields may be left out; `ship_to.name` is then the customer's.")
async def optional_fields(subject: Subject) -> None:
    order = sample_order()
    order["ship_to"] = {key: order["ship_to"][key] for key in ("line1", "city", "country")}
    reply = await subject.place_accepted(order)
    _expect(faults(reply.document(), order), reply)


@placing.check("location", "`Location` is the order's path, relative, with 201 and 202.")
async def location(subject: Subject) -> None:
    reply = await subject.place_accepted(prefer=ASYNC)
    told = reply.headers.get("Location", "")
    parts = urlsplit(told)
    require(told.startswith("/") and not parts.netloc, f"Location is {told!r}, not a relative path")
    path = told.removeprefix(subject.target.origin.path)
    found = await subject.send("GET", path)
    require(found.status == 200, f"{found} (200 was due)")
    require(found.order_id() == reply.order_id(), f"{told} leads to the order {found.order_id()}")


@placing.check("status", "201 is answered if no step is pending, else 202 with `Retry-After` in seconds.")
async def status(subject: Subject) -> None:
    for prefer in (None, ASYNC):
        reply = await subject.place_accepted(prefer=prefer)
        document = reply.document()
        _expect(status_faults(document), reply)
        due = 202 if document["status"] == IN_PROGRESS else 201
        require(reply.status == due, f"{reply.asked}: {reply.status} with status {document['status']}")
        if due == 202:
            _expect_retry_after(reply)


@placing.check("completes", "An order of a member is completed: three steps by name, each succeeded.")
async def completes(subject: Subject) -> None:
    reply = await subject.place_accepted()
    document = await subject.read_final(reply.order_id(), COMPLETES_WITHIN_S)
    steps = {name: step.get("status") for name, step in document.get("steps", {}).items()}
    seen = f"after {COMPLETES_WITHIN_S:.0f} s the order is {document.get('status')!r} with steps {steps}"
    require(document.get("status") == COMPLETED, seen)
    due = dict.fromkeys(("email", "warehouse", "rewards"), "succeeded")
    require(due.items() <= steps.items(), seen)
    _expect([*faults(document, sample_order()), *status_faults(document)], reply)


@placing.check("no-member", "For a customer who has not joined rewards, that step is skipped with a reason.")
async def no_member(subject: Subject) -> None:
    reply = await subject.place_accepted(sample_order(rewards_member=False))
    document = await subject.read_final(reply.order_id(), COMPLETES_WITHIN_S)
    step = document.get("steps", {}).get("rewards", {})
    require(step.get("status") == "skipped" and step.get("reason"), f"the step rewards is {step}")


@reading.check("read", "GET answers 200 with the same representation; while in progress with `Retry-After`.")
async def read(subject: Subject) -> None:
    reply = await subject.place_accepted(prefer=ASYNC)
    found = await subject.read(reply.order_id())
    require(found.status == 200, f"{found} (200 was due)")
    _expect([*faults(found.document(), sample_order()), *status_faults(found.document())], found)
    if found.document()["status"] == IN_PROGRESS:
        _expect_retry_after(found)


@placing.check("default-style", "Without `style` the implementation chooses, and tells which.")
async def default_style(subject: Subject) -> None:
    reply = await subject.place_accepted(style="")
    told = reply.document().get("style")
    require(told in STYLES, f"style is {told!r}, not one of {', '.join(STYLES)}")


def _expect(found: list[str], reply: Reply) -> None:
    require(not found, f"{reply.asked}: {'; '.join(found)}")


def _expect_retry_after(reply: Reply) -> None:
    told = reply.headers.get("Retry-After", "")
    require(told.isascii() and told.isdigit(), f"{reply.asked}: {reply.status} with Retry-After {told!r}")
