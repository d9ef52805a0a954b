"""The sections on what was measured beside the verdicts: latencies, capacity, costs, parts, A/A, claims."""

from lab.report.bars import COUNTS, costs, counts, mean, mean_cpu, ratios
from lab.report.curves import capacity_rate, capacity_tail, latency
from lab.report.documents import Ablation, Comparison, Scenario
from lab.report.parts import NONE, Cell, Heading, Part, Says, Section, Table, cells, number, pictures
from lab.report.verdicts import BAND, file_name, ratio, scenario_parts, verdict

FOLDED = "The same in sentences"
CLOCKS = {
    "ack": "until the client has its 2xx",
    "completion": "until the last effect of the order is there",
}


def latency_section(compare: Comparison | None, lacks: str) -> Section:
    """Both clocks of every scenario."""
    title = "Latency, by both clocks"
    if compare is None:
        return Section("latency", title, lacks=lacks)
    told = (
        "For each share of the orders, how long they took at most, from when each was to be sent. The thick "
        "line is all rounds together, each thin line is one of them."
    )
    parts: list[Part] = [Says([told])]
    for each in compare.scenarios:
        drawn = [
            (
                file_name("latency", each.name, clock),
                latency(each, clock),
                f"{each.title}: {clock}, {meaning}.",
            )
            for clock, meaning in CLOCKS.items()
        ]
        parts += [Heading(each.title), *pictures(*drawn), _latencies(each)]
    return Section("latency", title, parts)


def _latencies(scenario: Scenario) -> Table:
    shares = ("p50", "p90", "p95", "p99", "max")
    rows = [
        cells(
            f"{clock}, {arm}",
            *(
                number(mean([getattr(w, f"{clock}_ms").get(share) for w in scenario.of(arm)]))
                for share in shares
            ),
        )
        for clock in CLOCKS
        for arm in scenario.arms
    ]
    return Table(f"{scenario.title}: latency in ms, mean over the rounds", ("clock, arm", *shares), rows)


def capacity_section(compare: Comparison | None, lacks: str) -> Section:
    """What came of every offered rate, and how far each search got."""
    title = "Capacity"
    found = compare.capacity if compare else None
    if found is None:
        return Section("capacity", title, lacks=lacks)
    objective = found.objective.get("completion_p99_ms")
    told = (
        "Capacity is the highest offered rate, found by search, at which p99 of completion stays within "
        f"{NONE if objective is None else f'{objective:g}'} ms and no order is refused or lost. "
        "Short windows do not show an overload of less than about a tenth: it is no rate to plan for."
    )
    rows = []
    for arm in dict.fromkeys(search.arm for search in found.searches):
        of = [search.capacity_per_s for search in found.searches if search.arm == arm]
        known = [each for each in of if each is not None]
        ends = (min(known), max(known)) if known else (None, None)
        rows.append(cells(arm, str(len(of)), number(mean(of)), *(number(end) for end in ends)))
    headings = ("arm", "searches", "mean, orders/s", "least", "most")
    return Section(
        "capacity",
        title,
        [
            Says([told]),
            Says([found.figure.sentence], listed=True),
            *pictures(
                (
                    "capacity-p99.svg",
                    capacity_tail(found),
                    "The tail of completion against what was offered.",
                ),
                ("capacity-rate.svg", capacity_rate(found), "What was completed against what was offered."),
            ),
            Table("Capacity found in each search, orders a second", headings, rows),
        ],
    )


def cost_section(compare: Comparison | None, lacks: str) -> Section:
    """CPU by process, calls and messages, memory."""
    title = "Cost of an order"
    if compare is None:
        return Section("cost", title, lacks=lacks)
    told = (
        "CPU time of each process, divided by the orders completed meanwhile; the load generator is not in "
        "it. HTTP calls are the conductor's, messages are what was published to the broker, deliveries what "
        "the broker sent to its subscribers. Every arm runs the whole system, the broker included, which "
        "orchestration alone would not need: equal memory says nothing of a system built for one style."
    )
    parts: list[Part] = [Says([told])]
    for each in compare.scenarios:
        parts += [
            Heading(each.title),
            *pictures(
                (
                    file_name("cost", each.name),
                    costs(each),
                    f"{each.title}: CPU time of an order by process, ms.",
                ),
                (
                    file_name("counts", each.name),
                    counts(each),
                    f"{each.title}: calls and messages of an order.",
                ),
            ),
            *_costs(each),
        ]
    return Section("cost", title, parts)


def _costs(scenario: Scenario) -> list[Part]:
    spent = {arm: mean_cpu(scenario, arm) for arm in scenario.arms}
    processes = dict.fromkeys(process for each in spent.values() for process in each)
    rows = [
        cells(f"CPU of {process}, ms", *(number(spent[arm].get(process)) for arm in scenario.arms))
        for process in processes
    ]
    whole = [mean([w.system_cpu_ms for w in scenario.of(arm)]) for arm in scenario.arms]
    memory = [
        mean([sum(w.memory_mb.values()) if w.memory_mb else None for w in scenario.of(arm)])
        for arm in scenario.arms
    ]
    rows.append(cells("CPU of the whole system, ms", *(number(value) for value in whole)))
    for kind, title in COUNTS.items():
        found = [mean([getattr(w, kind) for w in scenario.of(arm)]) for arm in scenario.arms]
        rows.append(cells(f"{title} for each order", *(number(value) for value in found)))
    rows.append(cells("memory of the whole system, MB", *(number(value) for value in memory)))
    return [Table(f"{scenario.title}: cost of an order, mean over the rounds", ("", *scenario.arms), rows)]


def ablation_section(compare: Comparison | None, lacks: str) -> Section:
    """What each part costs, by leaving it out."""
    title = "What each part costs"
    if compare is None or not compare.ablations:
        return Section("parts", title, lacks=lacks)
    told = (
        "Each part was left out, for measuring only, and the same style measured with it and without by "
        "turns: a ratio below 1 is what leaving it out saves."
    )
    found = compare.ablations
    titles = {figure.slug: figure.title for each in found for figure in each.figures}
    rows = [
        cells(
            f"without {each.title}",
            each.style,
            number(each.rate),
            *(_ablated(each, slug) for slug in titles),
        )
        for each in found
    ]
    caption = "Ratio of without to as it is [interval]"
    drawn = [
        (file_name("parts", slug), _drawn(found, slug, title), f"{title[:1].upper()}{title[1:]}. {BAND}")
        for slug, title in titles.items()
    ]
    meant = [
        f"Without {each.title} ({', '.join(f'`{key}={value}`' for key, value in each.settings.items())}): "
        f"{each.what.rstrip('.')}."
        for each in {each.name: each for each in found}.values()
    ]
    sentences = [
        f"Without {each.title}, {each.style}: {figure.sentence}" for each in found for figure in each.figures
    ]
    return Section(
        "parts",
        title,
        [
            Says([told]),
            Says(meant, listed=True),
            Table(caption, ("part", "style", "orders/s", *titles.values()), rows, frozenset({0, 1})),
            *pictures(*drawn),
            Says(sentences, listed=True, mark="small", folded=FOLDED),
        ],
    )


def _ablated(ablation: Ablation, slug: str) -> Cell:
    for figure in ablation.figures:
        if figure.slug == slug:
            return Cell(ratio(figure), verdict(figure).mark)
    return Cell(NONE)


def _drawn(found: list[Ablation], slug: str, title: str) -> str | None:
    told = [(each, figure) for each in found for figure in each.figures if figure.slug == slug]
    names = [f"{each.name}\n({each.style})" for each, _ in told]
    return ratios([figure for _, figure in told], names, f"What each part costs: {title}")


def aa_section(compare: Comparison | None, lacks: str) -> Section:
    """The same arm twice."""
    title = "The check on the lab: the same arm twice (A/A)"
    if compare is None or compare.aa is None:
        return Section("aa", title, lacks=lacks)
    arms = {name for figure in compare.aa.figures for name in (figure.a, figure.b)}
    wrong = [figure.title for figure in compare.aa.figures if figure.verdict in arms]
    outcome = (
        f"The lab has called a difference where there is none: in {', '.join(wrong)}."
        if wrong
        else "The lab has called no difference where there is none."
    )
    return Section(
        "aa",
        title,
        [Says([outcome], mark="bad" if wrong else "good"), *scenario_parts(compare.aa, "aa", folded=FOLDED)],
    )


def claim_section(compare: Comparison | None, lacks: str) -> Section:
    """Published claims, each held against what was measured here."""
    title = "Published claims"
    if compare is None or not compare.claims:
        return Section("claims", title, lacks=lacks)
    headings = ("claim", "holds here", "by which clock")
    rows = [cells(each.name, Cell(each.holds, "told"), each.clock) for each in compare.claims]
    parts: list[Part] = [
        Table("Published claims, and whether they hold here", headings, rows, frozenset({0, 1, 2}))
    ]
    for each in compare.claims:
        parts += [
            Heading(f"{each.name}: {each.holds}"),
            Says([f"“{each.claim}” {each.source.rstrip('.')}."]),
            Says([f"Here: {each.found}", f"Clock: {each.clock}.", f"Why: {each.why}"], listed=True),
        ]
    if compare.extra:
        parts.append(Heading("What was measured for the claims"))
    for scenario in compare.extra:
        parts += [
            Says([f"{scenario.title}."], mark="strong"),
            *scenario_parts(scenario, f"claims-{scenario.name}", folded=FOLDED),
        ]
    return Section("claims", title, parts)
