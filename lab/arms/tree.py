"""Makes the tree of an arm: the project's own packages by symbolic links, and what the arm replaces.

It refuses a folder that holds anything: another tree's packages would be started with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from lab.errors import LabError
from lab.system import CONDUCTOR

BOOK = "CHECKOUT_BOOK"  # names the file of the lab's book (lab/baselines/book.py) to a naive arm's checkout
SHARED = ("servicekit", "email_svc", "warehouse_svc", "rewards_svc")
ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True)
class Arm:
    """One way to check out. `style` is what a client sends as `?style=`; None: there is no choice.

    `replaced`: by the name of a package in the arm's tree, the folder of this package that it is.
    """

    name: str
    title: str
    what: str
    durable: bool
    style: str | None = None
    replaced: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


ARMS = (
    Arm(
        "orchestration",
        "Orchestration",
        "A conductor with a journal calls the services, and again until it knows that all is done.",
        durable=True,
        style="orchestration",
    ),
    Arm(
        "choreography",
        "Choreography",
        "The event is due from the order's commit on, and acknowledged after each service's own commit.",
        durable=True,
        style="choreography",
    ),
    Arm(
        "naive-conductor",
        "Naive conductor",
        "The services are called once, without a journal or retries: a call that fails makes a 502.",
        durable=False,
        replaced=MappingProxyType({CONDUCTOR: "naive_conductor"}),
    ),
    Arm(
        "naive-publisher",
        "Naive publisher",
        "The event is published after the order's commit, and its delivery counts as its acknowledgement.",
        durable=False,
        replaced=MappingProxyType({CONDUCTOR: "naive_publisher", "subscribers": "naive_subscribers"}),
    ),
)


def make_tree(arm: str, folder: Path) -> Path:
    """The root to give to `duet up` as `DUET_ROOT`, so that it runs the arm called `arm`.

    For a durable arm that is the project itself, for a naive one `folder`, which is made. Keep it out of the
    system's data folder, which `--fresh` empties. Raises `LabError` where there is no such arm, or the folder
    holds something or cannot be written.
    """
    chosen = _find(arm)
    if not chosen.replaced:
        return ROOT
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise LabError(f"{folder} holds something: give an empty folder for the tree of {arm}")
        for package in SHARED:
            (folder / package).symlink_to(ROOT / package)
        for package, source in chosen.replaced.items():
            (folder / package).symlink_to(Path(__file__).resolve().parent / source)
    except OSError as error:
        raise LabError(f"cannot make the tree of {arm} in {folder}: {error.strerror}") from error
    return folder.resolve()


def _find(name: str) -> Arm:
    for arm in ARMS:
        if arm.name == name:
            return arm
    raise LabError(f"there is no arm {name}: it is one of {', '.join(arm.name for arm in ARMS)}")
