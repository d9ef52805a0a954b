"""The matrix as tables for a terminal: what became of the orders, how long it took, and what is wrong."""

from collections.abc import Callable, Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lab.arms import Arm
from lab.faults.catalogue import Fault
from lab.faults.cell import Cell

NEVER = "never"


def catalogue(faults: Sequence[Fault]) -> Table:
    """All faults by the names that `--only` takes."""
    table = _table("fault", "what it does")
    for fault in faults:
        table.add_row(fault.slug, fault.what)
    return table


def show(cells: Sequence[Cell], arms: Sequence[Arm], faults: Sequence[Fault], console: Console) -> None:
    """Print the matrix, the times, what each naive arm came to, and what is wrong with the durable ones."""
    found = {(cell.fault.slug, cell.arm.name): cell for cell in cells}
    console.print(_matrix(found, arms, faults, verdict))
    console.print("\np99 of completion during the fault / until recovered after it", style="bold")
    console.print(_matrix(found, arms, faults, times))
    console.print()
    for arm in arms:
        if not arm.durable:
            console.print(summary(arm, cells), highlight=False)
    wrong = [cell for cell in cells if cell.arm.durable and not cell.sound]
    for cell in wrong:
        said = f"not sound: {cell.fault.slug}, {cell.arm.name}: {'; '.join(cell.notes)}"
        console.print(Text(said, style="red"))
    skipped = {cell.fault.slug: cell.skipped for cell in cells if cell.skipped}
    for slug, why in skipped.items():
        console.print(Text(f"skipped: {slug}: {why}", style="yellow"))
    ran = {cell.fault.slug for cell in cells if cell.arm.durable and cell.figures is not None}
    if not wrong and ran:
        said = (
            "The durable arms lost nothing, did nothing twice and left nothing stuck, "
            f"in {len(ran)} of {len(faults)} faults."
        )
        console.print(said, style="green")


def verdict(cell: Cell) -> Text:
    """What became of the orders, in a few words."""
    if cell.skipped:
        return Text("skipped", style="yellow")
    if cell.figures is None:
        return Text("did not run", style="red")
    told = cell.figures
    bad = {"lost": told.lost, "dup": told.duplicated, "stuck": told.stuck}
    words = [f"{name} {count}" for name, count in bad.items() if count]
    if not words and not cell.sound and cell.arm.durable:
        words = ["not sound"]
    style = "red" if words else "yellow" if told.orphaned else "green"
    words = words or ["ok"]
    words += [f"orphaned {told.orphaned}"] if told.orphaned else []
    words += [f"refused {told.refused}"] if told.refused else []
    words += [f"attention {told.needs_attention}"] if told.needs_attention else []
    return Text(", ".join(words), style=style)


def times(cell: Cell) -> Text:
    """How long orders took during the fault, and how long it was until all of them were complete."""
    told = cell.figures
    if told is None:
        return Text("-")
    tail = "-" if told.p99_ms is None else f"{told.p99_ms / 1000:.2f} s"
    recovery = NEVER if told.recovery_s is None else f"{told.recovery_s:.1f} s"
    return Text(f"{tail} / {recovery}")


def summary(arm: Arm, cells: Sequence[Cell]) -> str:
    """In how many of the faults a naive arm lost or doubled something."""
    told = [cell.figures for cell in cells if cell.arm == arm and cell.figures is not None]
    harmed = sum(bool(each.lost or each.duplicated) for each in told)
    lost, doubled = sum(each.lost for each in told), sum(each.duplicated for each in told)
    return (
        f"{arm.name} lost or doubled orders in {harmed} of {len(told)} faults: "
        f"{lost} lost and {doubled} doubled of {sum(each.intended for each in told)}"
    )


def _matrix(
    found: Mapping[tuple[str, str], Cell],
    arms: Sequence[Arm],
    faults: Sequence[Fault],
    tell: Callable[[Cell], Text],
) -> Table:
    table = _table("fault", *(arm.name for arm in arms))
    for fault in faults:
        table.add_row(fault.slug, *(tell(found[fault.slug, arm.name]) for arm in arms))
    return table


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading)
    return table
