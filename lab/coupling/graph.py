"""The knowledge graph as plain data, and the counts that are taken from it.

Edges of knowledge say who knows whose name, address, channel or schema; links say who calls whom and which
events pass; `depends` says who could not do its part without whom. AIS and ADS are counted on the
dependencies and, beside them, on the knowledge, each with the names that it counts. AIS is the number of
services that depend on one, ADS the number on which it depends (Rud, Schmietendorf and Dumke, "Product
metrics for service-oriented infrastructures", 2006).

SCF, the service coupling factor, is edges / (n * (n - 1)) (Hofmeister and Wirtz, "Supporting service-oriented
design with metrics", EDOC 2008; in this form, SC / (N^2 - N), in Apolinário and de França, J. Braz. Comput.
Soc. 27, 2021, doi 10.1186/s13173-021-00120-y). It is no headline: add a fourth service to the conductor and
SCF *falls*, from 3/12 to 4/20, though the conductor has one more name, address and schema to know. n grows
faster than edges do, so a bigger system looks looser. It is computed here to show that, and refuses to be
read without n beside it.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

BROKER = "broker"

What = Literal["name", "address", "channel", "schema"]
LinkKind = Literal["call", "event"]


@dataclass(frozen=True, order=True)
class Knows:
    """`knower` knows one thing of `known`, and would have to change with it.

    An `address` is a path, a URL or a login; a `channel` is the address of an event, at the broker. `detail`
    says which one; `fields` are those of a schema, by dotted path. `evidence` is a file and a line.
    """

    knower: str
    known: str
    what: What
    detail: str
    fields: tuple[str, ...] = ()
    evidence: str = ""


@dataclass(frozen=True, order=True)
class Link:
    """A call or an event on its way; an event goes to the broker, and from there to whoever hears it.

    `served` is where the other side answers to a call; empty: nobody there does, as far as the code tells.
    `fields` are those of an event as it is told, and `reads` those that its target's own code reads of it.
    """

    kind: LinkKind
    source: str
    target: str
    what: str
    evidence: str = ""
    served: str = ""
    fields: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()


@dataclass(frozen=True)
class Degree:
    """Fan-in and fan-out of one node: by name, who depends on it and on whom; who knows it and whom."""

    service: str
    depended_on_by: tuple[str, ...]
    depends_on: tuple[str, ...]
    known_by: tuple[str, ...]
    knows: tuple[str, ...]

    def as_document(self) -> dict[str, Any]:
        """The names, and their numbers: `ais` and `ads` on dependencies, `*_knowledge` on knowledge."""
        return {
            **asdict(self),
            "ais": len(self.depended_on_by),
            "ads": len(self.depends_on),
            "ais_knowledge": len(self.known_by),
            "ads_knowledge": len(self.knows),
        }


@dataclass(frozen=True)
class Factor:
    """SCF with what it is made of: `edges` pairs of `nodes` services, one depending on the other."""

    edges: int
    nodes: int

    @property
    def value(self) -> float:
        """edges / (n * (n - 1)); 0 where there is nobody to be coupled to."""
        return self.edges / (self.nodes * (self.nodes - 1)) if self.nodes > 1 else 0.0

    def as_document(self) -> dict[str, Any]:
        """The value, to be shown with its parts only."""
        return {"edges": self.edges, "nodes": self.nodes, "scf": round(self.value, 4)}


@dataclass(frozen=True)
class Knowledge:
    """What the code of one tree knows in one style. `nodes` are its services and, if used, the broker."""

    style: str
    nodes: tuple[str, ...]
    knows: tuple[Knows, ...]
    links: tuple[Link, ...]
    depends: tuple[tuple[str, str], ...]

    def known_by(self, knower: str) -> tuple[Knows, ...]:
        """Everything that one service knows of the others."""
        return tuple(each for each in self.knows if each.knower == knower)

    def whom(self, knower: str, what: What) -> frozenset[str]:
        """Whose name, address, channel or schema one service knows."""
        return frozenset(each.known for each in self.known_by(knower) if each.what == what)

    def degrees(self) -> tuple[Degree, ...]:
        """AIS and ADS of each node, in the order of the nodes."""
        pairs = {(each.knower, each.known) for each in self.knows}
        return tuple(
            Degree(
                node,
                depended_on_by=_sorted(source for source, target in self.depends if target == node),
                depends_on=_sorted(target for source, target in self.depends if source == node),
                known_by=_sorted(knower for knower, known in pairs if known == node),
                knows=_sorted(known for knower, known in pairs if knower == node),
            )
            for node in self.nodes
        )

    def factor(self) -> Factor:
        """SCF of the dependencies, the broker being one of the nodes where there is one."""
        return Factor(len(set(self.depends)), len(self.nodes))

    def digest(self) -> str:
        """The SHA-256 of all that is known: it differs if and only if something known has changed.

        Evidence is left out, so that a line that moved is no change.
        """
        facts = {
            "style": self.style,
            "nodes": self.nodes,
            "knows": sorted({(*_facts(each), each.fields) for each in self.knows}),
            "links": sorted({(*_way(each), each.fields, each.reads) for each in self.links}),
            "depends": sorted(set(self.depends)),
        }
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def as_document(self) -> dict[str, Any]:
        """The graph and its counts as plain JSON values."""
        return {
            "style": self.style,
            "nodes": list(self.nodes),
            "knows": [asdict(each) for each in self.knows],
            "links": [asdict(each) for each in self.links],
            "depends": [list(pair) for pair in self.depends],
            "degrees": [degree.as_document() for degree in self.degrees()],
            "scf": self.factor().as_document(),
            "digest": self.digest(),
        }


def make_knowledge(
    style: str,
    nodes: Sequence[str],
    knows: Iterable[Knows],
    links: Iterable[Link],
    depends: Iterable[tuple[str, str]],
) -> Knowledge:
    """The graph of what was found: each fact once, by its first evidence, and nobody about itself.

    Fields are sorted: another order of them is no change.
    """
    facts: dict[tuple[Any, ...], Knows] = {}
    for one in sorted(replace(each, fields=_sorted(each.fields)) for each in knows):
        if one.knower != one.known:
            facts.setdefault((*_facts(one), one.fields), one)
    ways: dict[tuple[Any, ...], Link] = {}
    for link in sorted(replace(e, fields=_sorted(e.fields), reads=_sorted(e.reads)) for e in links):
        if link.source != link.target:
            ways.setdefault(_way(link), link)
    pairs = sorted({(source, target) for source, target in depends if source != target})
    return Knowledge(style, tuple(nodes), tuple(facts.values()), tuple(ways.values()), tuple(pairs))


def _facts(one: Knows) -> tuple[str, str, str, str]:
    return one.knower, one.known, one.what, one.detail


def _way(link: Link) -> tuple[str, str, str, str]:
    return link.kind, link.source, link.target, link.what


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(names)))
