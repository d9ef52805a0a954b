"""A knowledge graph as one picture: SVG text on its own, in the colours of a light or a dark page.

The conductor and the broker are as tall as all the other services together, so that every edge to one of
those is a level line in its own row; what passes the broker by goes round below. Calls are solid, events
dashed, knowledge dotted; what differs from the other graph is in colour and has a sign: `+` new, `-` gone,
`~` changed. It refuses anything clever: some ten nodes, placed by their order, the same picture every time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from lab.coupling.graph import BROKER, Knowledge

LEFT, BOX, GAP, LINE, MARGIN = 20, 130, 330, 34, 16
SIGNS = {"same": "", "added": "+ ", "removed": "- ", "changed": "~ "}
ORDER = ("name", "address", "channel", "schema")
STYLE = """
svg.coupling{--ink:#1f2328;--dim:#57606a;--page:#fff;--box:#eef1f4;--added:#116329;--removed:#b3151f;
--changed:#8a5300;color:var(--ink);background:var(--page);font:12px system-ui,sans-serif}
@media(prefers-color-scheme:dark){svg.coupling{--ink:#e6edf3;--dim:#9aa4af;--page:#0d1117;--box:#22272e;
--added:#56d364;--removed:#ff7b72;--changed:#e3b341}}
svg.coupling text{fill:currentColor}svg.coupling .name{text-anchor:middle}
svg.coupling .label{paint-order:stroke;stroke:var(--page);stroke-width:5px;stroke-linejoin:round}
svg.coupling rect{fill:var(--box);stroke:currentColor;stroke-width:1.5}
svg.coupling .name{font-weight:600;font-size:14px}
svg.coupling path{fill:none;stroke:currentColor;stroke-width:1.5}
svg.coupling polygon{fill:currentColor}
svg.coupling .event path{stroke-dasharray:8 5}
svg.coupling .knows{color:var(--dim)}
svg.coupling .knows path{stroke-dasharray:1.5 4;stroke-linecap:round;stroke-width:2}
svg.coupling .added{color:var(--added)}svg.coupling .removed{color:var(--removed)}
svg.coupling .changed{color:var(--changed)}
svg.coupling .added path,svg.coupling .removed path,svg.coupling .changed path{stroke-width:2.8}
svg.coupling .added rect,svg.coupling .removed rect{stroke-width:3}
"""


@dataclass(frozen=True)
class Edge:
    """All of one kind that leads from one node to another, as one line with one label."""

    source: str
    target: str
    kind: str
    label: str
    facts: frozenset[object]


@dataclass(frozen=True)
class Box:
    """A node's place."""

    x: int
    y: int
    height: int


def draw(before: Knowledge, after: Knowledge) -> tuple[str, str]:
    """Both graphs as SVG, in the same places; each shows in colour what the other has not, or otherwise."""
    nodes = tuple(dict.fromkeys([*(n for n in before.nodes if n != BROKER), *after.nodes, *before.nodes]))
    edges = [*_edges(before), *_edges(after)]
    places, height, lanes = _layout(nodes, edges)
    return (
        _picture(before, after, "removed", places, height, lanes),
        _picture(after, before, "added", places, height, lanes),
    )


def _edges(graph: Knowledge) -> list[Edge]:
    labels: dict[tuple[str, str, str], list[str]] = {}
    facts: dict[tuple[str, str, str], set[object]] = {}
    for link in graph.links:
        key: tuple[str, str, str] = (link.source, link.target, link.kind)
        labels.setdefault(key, []).append(link.what)
        facts.setdefault(key, set()).add((link.what, link.fields, link.reads))
    for one in sorted(graph.knows, key=lambda each: ORDER.index(each.what)):
        key = (one.knower, one.known, "knows")
        labels.setdefault(key, []).append(one.what)
        facts.setdefault(key, set()).add((one.what, one.detail, one.fields))
    return [Edge(*key, ", ".join(dict.fromkeys(told)), frozenset(facts[key])) for key, told in labels.items()]


def _ways(edges: Sequence[Edge]) -> list[tuple[str, str, str]]:
    return sorted({(edge.source, edge.target, edge.kind) for edge in edges})


def _layout(
    nodes: Sequence[str], edges: Sequence[Edge]
) -> tuple[dict[str, Box], int, dict[tuple[str, str, str], int]]:
    """Where the nodes are, how tall the picture is, and at which height, or in which lane, each edge runs."""
    first, *others = [node for node in nodes if node != BROKER]
    tall = [first, *([BROKER] if BROKER in nodes else [])]
    right = LEFT + len(tall) * (BOX + GAP)
    places: dict[str, Box] = {}
    runs: dict[tuple[str, str, str], int] = {}
    top = MARGIN
    for node in others:
        direct = [way for way in _ways(edges) if node in way[:2] and set(way[:2]) - {node} <= {tall[-1]}]
        runs |= {way: top + LINE * (number + 1) for number, way in enumerate(direct)}
        height = LINE * max(1, len(direct)) + 14
        places[node] = Box(right, top, height + 6)
        top += height + MARGIN + 6
    between = [way for way in _ways(edges) if set(way[:2]) == set(tall)]
    runs |= {way: MARGIN + LINE * (number + 1) for number, way in enumerate(between)}
    bottom = max(top - MARGIN, MARGIN + LINE * (len(between) + 1))
    places |= {node: Box(LEFT + n * (BOX + GAP), MARGIN, bottom - MARGIN) for n, node in enumerate(tall)}
    # The lowest leaves by the innermost lane, so that these cross as little as may be.
    around = sorted((way for way in _ways(edges) if way not in runs), key=lambda way: -places[way[0]].y)
    runs |= {way: bottom + LINE * (number + 1) for number, way in enumerate(around)}
    return places, bottom + LINE * (len(around) + 1), runs


def _picture(
    graph: Knowledge,
    other: Knowledge,
    missing: str,
    places: dict[str, Box],
    height: int,
    runs: dict[tuple[str, str, str], int],
) -> str:
    known = {(edge.source, edge.target, edge.kind): edge.facts for edge in _edges(other)}
    floor = max(box.y + box.height for box in places.values())
    right = max(box.x for box in places.values()) + BOX
    width = right + MARGIN + 14 * sum(y > floor for y in runs.values()) + MARGIN
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="coupling" role="img" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}">'
        f"<title>{escape(graph.style)}: who calls, tells and knows whom</title>"
        f"<style>{STYLE}</style>"
    ]
    for edge in _edges(graph):
        way = (edge.source, edge.target, edge.kind)
        state = missing if way not in known else "same" if known[way] == edge.facts else "changed"
        out.append("".join(_line(edge, state, places, runs[way], floor, right)))
    for node in graph.nodes:
        box, state = places[node], "same" if node in other.nodes else missing
        x, y = box.x + BOX // 2, box.y + box.height // 2 + 5
        out.append(
            f'<g class="{state}"><rect x="{box.x}" y="{box.y}" width="{BOX}" height="{box.height}" rx="8"/>'
            f'<text class="name" x="{x}" y="{y}">{SIGNS[state]}{escape(node)}</text></g>'
        )
    return "\n".join([*out, "</svg>\n"])


def _line(edge: Edge, state: str, places: dict[str, Box], y: int, floor: int, right: int) -> Iterator[str]:
    source, target, anchor = places[edge.source], places[edge.target], "middle"
    if y <= floor:
        forth = source.x < target.x
        start, end = (source.x + BOX, target.x) if forth else (source.x, target.x + BOX)
        path, tip = f"M{start} {y}H{end}", (end, y, -8 if forth else 8, 0)
        label, middle = edge.label, (start + end) // 2
    else:  # round: out at the side of the one, below everything, in at the other's foot or side
        lane = right + MARGIN + 14 * ((y - floor) // LINE - 1)
        verb = "knows of" if edge.kind == "knows" else "to"
        label, middle = f"{edge.source} {verb} {edge.target}: {edge.label}", (LEFT + BOX + right) // 2
        begin, finish = source.y + source.height // 2, target.y + target.height // 4
        leaves = f"M{source.x + BOX} {begin}H{lane}V{y}"
        foot = target.x + 24 + 14 * ((y - floor) // LINE - 1)
        if target.x + BOX < right:
            path, tip = f"{leaves}H{foot}V{floor}", (foot, floor, 0, 8)
        else:
            path, tip = f"{leaves}H{lane + 7}V{finish}H{right}", (right, finish, 8, 0)
            middle, anchor = lane - 8, "end"
    x, at, dx, dy = tip
    corners = f"{x},{at} {x + dx - dy / 2:g},{at + dy - dx / 2:g} {x + dx + dy / 2:g},{at + dy + dx / 2:g}"
    yield f'<g class="{edge.kind} {state}"><path d="{path}"/><polygon points="{corners}"/>'
    text = f"{SIGNS[state]}{escape(label)}"
    yield f'<text class="label" text-anchor="{anchor}" x="{middle}" y="{y - 6}">{text}</text></g>'
