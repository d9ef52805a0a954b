"""What frames the figures: what was compared, whether the runs passed, the setting, limits, words."""

from lab.bench.comparison import QUIET_CPU_SHARE
from lab.compare.view import LEAST_PAIRS
from lab.report.data import Data
from lab.report.documents import Comparison, Setting
from lab.report.parts import NONE, Part, Says, Section, Table, cells

FEW_CORES = 4
WORDS = (
    ("2xx, 202, 503", "HTTP answers: accepted (202: handed in, not done yet), and turned away for now (503)"),
    ("A/A", "a comparison of an arm with itself, to see whether the lab invents differences"),
    ("ack", "acknowledgement: the 2xx that the client gets for its order"),
    ("arm", "one side of a comparison: a style under its settings, or a variant"),
    ("completion", "the last effect that an order is owed (confirmation, shipment, points) is there"),
    ("CPU", "processor; CPU time is the time that a process has kept one core busy"),
    ("equivalent", "the whole interval lies within 5% of no difference"),
    ("fsync", "the call that returns once data are on the disk"),
    ("histogram", "HdrHistogram: a count of all latencies to three digits, kept raw in compare.json"),
    (
        "interval",
        "where the true ratio lies: by Student's t over the rounds' log-ratios, at 95% for all figures of a "
        "scenario together",
    ),
    ("ledger", "the check that every accepted order has each of its effects exactly once"),
    ("MB, ms, s", "megabytes (a million bytes), milliseconds, seconds"),
    ("open loop", "orders leave when they are due, whether earlier ones are answered or not"),
    ("p50, p90, p95, p99", "percentiles: 99% of the orders took at most p99; p50 is the median"),
    ("undecided", "this run cannot tell; more or longer rounds might"),
)


def what_was_compared(data: Data) -> list[str]:
    """Two sentences."""
    if data.compare is not None:
        return _compared(data.compare)
    told = []
    if data.faults is not None:
        arms = ", ".join(each.name for each in data.faults.arms)
        told.append(
            f"{len(data.faults.faults)} faults were inflicted on {len(data.faults.arms)} arms: {arms}."
        )
    if data.changes is not None:
        changes = len({each.scenario for each in data.changes.experiments})
        told.append(f"{changes} changes were made on a running system, under load, in each style.")
    return told


def _compared(compare: Comparison) -> list[str]:
    ways = {"orchestration": "orchestration over HTTP", "choreography": "choreography over JetStream"}
    names = [each.name for each in compare.arms]
    arms = [ways.get(name, name) for name in names]
    arms[0] = arms[0][:1].upper() + arms[0][1:]
    pairs = sorted({each.pairs for each in compare.scenarios})
    rounds = f"{pairs[0]}" if len(pairs) == 1 else f"{pairs[0]} to {pairs[-1]}"
    acks = dict.fromkeys(each.ack_means for each in compare.arms)
    if len(acks) == 1:
        meant = f"a client has its 2xx once {next(iter(acks))}"
    else:
        meant = "a client's 2xx means: " + "; ".join(
            f"{each.name}, {each.ack_means}" for each in compare.arms
        )
    done = "; ".join(dict.fromkeys(each.completion_means for each in compare.arms))
    return [
        f"{', '.join(arms[:-1])} and {arms[-1]} were compared on one machine, by turns in {rounds} rounds, "
        "with orders that leave when they are due.",
        f"{meant[0].upper()}{meant[1:]}; an order is complete once {done}.",
    ]


def outcomes(data: Data) -> list[Says]:
    """Whether each run passed, in a sentence each, with its mark."""
    told = []
    if data.compare is not None:
        told += _compare_outcome(data.compare)
        if found := doubts(data.compare):
            told.append(Says(found, mark="open"))
    if data.faults is not None:
        bad = {each.name for each in data.faults.arms if each.durable}
        durable = [each for each in data.faults.cells if each.arm in bad]
        wrong = [f"{each.fault} ({each.arm})" for each in durable if not each.skipped and not each.sound]
        skipped = len({each.fault for each in durable if each.skipped})
        left_out = f" ({skipped} skipped)" if skipped else ""
        lacking = len(data.faults.arms) * len(data.faults.faults) - len(data.faults.cells)
        failed = f"Not sound are {', '.join(wrong) or 'cells of durable arms'}."
        if lacking and not wrong:
            failed = f"It was interrupted: {lacking} cells were not run."
        told.append(
            Says(
                [f"Faults: the durable arms ended each{left_out} with nothing lost, doubled or stuck."],
                mark="good",
            )
            if data.faults.passed
            else Says([f"Faults: FAILED. {failed}"], mark="bad")
        )
    if data.changes is not None:
        unsound = sorted(
            {each.scenario for each in data.changes.experiments if not each.sound and not each.careless}
        )
        told.append(
            Says([f"Changes: not sound are {', '.join(unsound)}."], mark="bad")
            if unsound
            else Says(["Changes: those made with care lost and doubled no order."], mark="good")
        )
    return told


def doubts(compare: Comparison) -> list[str]:
    """What a reader has to know before these figures are passed on."""
    shares = [window.others_cpu_share or 0.0 for each in compare.scenarios for window in each.windows]
    pairs = min(each.pairs for each in compare.scenarios)
    told = []
    if max(shares, default=0.0) > QUIET_CPU_SHARE:
        told.append(
            f"The machine was not quiet: other programs took up to {max(shares):.0%} of a core in a window."
        )
    if compare.aa and any(each.verdict in (each.a, each.b) for each in compare.aa.figures):
        told.append("The lab called a difference between an arm and itself: see the A/A run.")
    if pairs < LEAST_PAIRS:
        told.append(f"{pairs} rounds are a look, not a verdict: it takes {LEAST_PAIRS} at least.")
    return told


def _compare_outcome(compare: Comparison) -> list[Says]:
    if compare.passed:
        passed = "Comparison: every ledger balances, and the load generator was never the bottleneck."
        return [Says([passed], mark="good")]
    failed = "Comparison: FAILED. Its figures are not to be used before this is understood:"
    return [
        Says([failed], mark="bad"),
        Says([f"{each.rstrip('.')}." for each in compare.troubles], listed=True),
    ]


def setting_section(data: Data) -> Section:
    """The machine, the versions, and the commands that make the figures again."""
    told = [
        (name, each)
        for name, each in (("compare", data.compare), ("faults", data.faults))
        if each is not None
    ]
    parts: list[Part] = []
    if told:
        rows = [
            cells("made with", *(f"{each.command}" for _, each in told)),
            cells("made at", *(each.made_at for _, each in told)),
            cells("seed", *(str(each.seed) for _, each in told)),
            *(
                cells(title, *(text for text in texts))
                for title, texts in _machine([each.setting for _, each in told]).items()
            ),
        ]
        headings = ("", *(f"duet {name}" for name, _ in told))
        parts.append(Table("The setting of each run", headings, rows, frozenset(range(len(headings)))))
    if data.compare is not None:
        parts.append(Says(_generator(data.compare)))
    if data.changes is not None:
        parts.append(Says([f"duet change: {data.changes.setting.sentence}"]))
    return Section("setting", "The setting", parts)


def _machine(settings: list[Setting]) -> dict[str, list[str]]:
    return {
        "cores": [str(each.cores) for each in settings],
        "processor": [each.processor for each in settings],
        "platform": [each.platform for each in settings],
        "load before (1 min)": [f"{each.load_1m:.2f}" for each in settings],
        "file system": [each.filesystem for each in settings],
        "fsync of 4 KiB": [
            ", ".join(f"{share} {ms:.2f} ms" for share, ms in each.fsync_ms.items()) or NONE
            for each in settings
        ],
        "Python, SQLite": [f"{each.python}, {each.sqlite}" for each in settings],
        "commit": [_commit(each) for each in settings],
        "versions": [
            ", ".join(f"{name} {version}" for name, version in each.versions.items()) for each in settings
        ],
    }


def _commit(setting: Setting) -> str:
    if setting.commit is None:
        return "unknown"
    return setting.commit[:12] + (" with uncommitted changes" if setting.uncommitted_changes else "")


def _generator(compare: Comparison) -> list[str]:
    windows = [window for each in compare.scenarios for window in each.windows]
    lags = [window.generator_lag_ms["p99"] for window in windows if "p99" in window.generator_lag_ms]
    others = [window.others_cpu_share for window in windows if window.others_cpu_share is not None]
    told = [f"The load generator's priority: {compare.generator_priority}."]
    if lags:
        told.append(
            f"In the scenarios the load generator was at most {max(lags):.1f} ms late at p99 of a window."
        )
    if others:
        told.append(
            f"In the scenarios other programs took at most {max(others):.0%} of one core in a window."
        )
    return told


def not_said_section(data: Data) -> Section:
    """The limits of what was measured."""
    return Section("not-said", "What this does not say", [Says(not_said(data), listed=True)])


def not_said(data: Data) -> list[str]:
    """In sentences, those first that every reader should know."""
    told = [
        "It compares two implementations of one checkout, orchestration over HTTP and choreography over "
        "JetStream; it does not compare synchronous with asynchronous systems in general.",
        "Everything ran on one machine over its loopback: there is no network between the services here, and "
        "yours costs both styles something, not the same.",
        "Absolute times are this machine's; ratios travel better, and only to systems of the same promises.",
    ]
    compare = data.compare
    if compare is not None:
        if compare.setting.cores <= FEW_CORES:
            told.append(
                f"On {compare.setting.cores} cores, which services, broker and load share, speed is mostly "
                "CPU time: where services wait for something outside, the picture is another."
            )
        undecided = sum(
            figure.verdict == "undecided" for each in compare.scenarios for figure in each.figures
        )
        if undecided:
            told.append(
                f"{undecided} figures are undecided: no sign that the arms are alike, this run cannot tell."
            )
        if compare.capacity is None:
            told.append("Capacity was not searched: nothing here says how much load either style can bear.")
        if compare.setting.uncommitted_changes:
            told.append("The code that ran had changes that are in no commit: nobody else can run just that.")
        told.append("The broker was one node, and each service one process: nothing is said of clusters.")
    if data.faults is not None:
        told.append(
            "Each fault was inflicted once an arm: one that was survived may not be next time, and a p99 or "
            "a recovery time of one run has no interval."
        )
        if skipped := sorted({each.fault for each in data.faults.cells if each.skipped}):
            told.append(f"Skipped, so not shown to be survived: {', '.join(skipped)}.")
    if data.changes is not None:
        told.append("Lines and files count this code's changes, not the time that people need for them.")
    told.append(
        "Nothing here decides for a team: how well it knows either style weighs more than most figures."
    )
    return told


def words_section() -> Section:
    """Abbreviations and terms."""
    rows = [cells(word, meaning) for word, meaning in WORDS]
    return Section(
        "words",
        "Words used here",
        [Table("Abbreviations and terms", ("word", "meaning"), rows, frozenset({0, 1}))],
    )
