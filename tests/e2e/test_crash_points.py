"""Each named crash point once: the process dies just there by SIGKILL, under load, and the ledger balances.

The points are those that the code names (`reach("...")`), so that a new one is tested without a word here.
Those of the participants' common part are reached in each of the three.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.faults import HEAR_SOON, PARTICIPANTS
from tests.support.system import RESUME_SOON, ROOT, SERVICES, LiveSystem, eventually, live_system

POINT = re.compile(r"""\breach\(["']([\w.-]+)["']\)""")
COMMON = "participant"


def points_in_the_code() -> list[tuple[str, str]]:
    """All named points, each with the service that is to die there: `("email", "email.after-send")`."""
    folders = [*(described.parent for described in ROOT.glob("*/service.toml")), ROOT / "servicekit"]
    texts = [source.read_text() for folder in folders for source in folder.rglob("*.py")]
    named = sorted({point for text in texts for point in POINT.findall(text)})
    return [(name, point) for point in named for name in _who_reaches(point)]


def _who_reaches(point: str) -> tuple[str, ...]:
    owner = point.partition(".")[0]
    return PARTICIPANTS if owner == COMMON else (owner,)


POINTS = points_in_the_code()


@pytest.fixture(scope="module")
def armed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveSystem]:
    """A system whose services watch for `crash-NAME` beside its data, and resume soon."""
    folder = tmp_path_factory.mktemp("armed")
    files = {f"{name.upper()}_CRASH_FILE": str(folder / f"crash-{name}") for name in SERVICES}
    with live_system(folder, RESUME_SOON | HEAR_SOON | files) as system:
        yield system


def test_every_service_has_crash_points_before_and_after_its_commit() -> None:
    for name in (*SERVICES, COMMON):
        moments = {
            point.partition(".")[2].partition("-")[0] for _, point in POINTS if point.startswith(f"{name}.")
        }
        assert moments >= {"before", "after"}, name


@pytest.mark.parametrize(("name", "point"), POINTS)
def test_a_crash_just_there_loses_nothing_and_repeats_nothing(
    armed: LiveSystem, name: str, point: str
) -> None:
    victim = armed.wait_ready()[name]["pid"]
    crash_file = armed.data.parent / f"crash-{name}"
    with armed.orders(8, 10, "--style", "both") as orders:
        _arm(crash_file, point)
        eventually(lambda: not crash_file.exists(), 20, f"{point} is reached")
        armed.wait_ready(name, but=victim)
        placed = orders.finish()
        assert placed["completed"] == 8
    armed.audit()
    _expect_mail(armed, {order["order_id"] for order in placed["orders"]})


def _expect_mail(system: LiveSystem, order_ids: set[str]) -> None:
    """Every confirmation is sent at last; should one arrive twice, then under the same Message-ID."""
    with system.client("email") as email, system.client("mailbox") as mailbox:

        def all_sent() -> bool:
            answers = [email.get(f"/emails/{order_id}").json() for order_id in order_ids]
            return all(confirmation["delivery"] == "sent" for confirmation in answers)

        eventually(all_sent, 30, "all mail is sent")
        for order_id in order_ids:
            mails = mailbox.get("/api/messages", params={"order": order_id}).json()["messages"]
            assert len({mail["message_id"] for mail in mails}) == 1, mails


def _arm(crash_file: Path, point: str) -> None:
    draft = crash_file.with_suffix(".tmp")
    draft.write_text(point)
    draft.replace(crash_file)  # whole at once: the services read it all the time
