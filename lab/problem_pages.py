"""Writes docs/problems/ from the services' catalogues: `python -m lab.problem_pages`.

A page for each problem type; those that every service knows are written once. A test fails while the pages
differ from the catalogues. It refuses to keep pages of types that are gone.
"""

import importlib
import json
from collections.abc import Mapping

from lab.system import Service, discover_services, project_root
from servicekit.problems import COMMON, Catalogue, ProblemType

FOLDER = "docs/problems"
EXAMPLE_HOST = "https://shop.example"
INDEX = "README.md"
DETAIL = "What happened this time, in a sentence."


def pages() -> dict[str, str]:
    """All pages by their path below docs/problems, generated from the catalogues."""
    services = discover_services()
    made = {
        f"common/{slug}.md": _page(slug, kind, [service.name for service in services])
        for slug, kind in COMMON.items()
    }
    for service in services:
        for slug, kind in _own(service).items():
            made[f"{service.name}/{slug}.md"] = _page(slug, kind, [service.name])
    return {INDEX: _index(services), **made}


def main() -> int:
    """Write what differs, remove what is gone, and say so."""
    write_pages(FOLDER, pages())
    return 0


def write_pages(folder: str, wanted: Mapping[str, str]) -> None:
    """Make a folder of the project hold exactly these files, by their path below it; say what changed."""
    root = project_root() / folder
    for name, text in wanted.items():
        path = root / name
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            print(f"wrote {folder}/{name}")
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        name = path.relative_to(root).as_posix()
        if name not in wanted:
            path.unlink()
            print(f"removed {folder}/{name}")


def _own(service: Service) -> Mapping[str, ProblemType]:
    catalogue: Catalogue = importlib.import_module(f"{service.package}.errors").catalogue(EXAMPLE_HOST)
    return catalogue.own


def _page(slug: str, kind: ProblemType, services: list[str]) -> str:
    document = Catalogue(services[0], EXAMPLE_HOST, {slug: kind}).document(slug, DETAIL)
    where = "every service" if len(services) > 1 else f"the {services[0]} service"
    types = "\n".join(f"- `PUBLIC_URL/problems/{service}/{slug}`" for service in services)
    return (
        f"# {kind.title}\n\n"
        f"`{slug}`, HTTP {kind.status}, from {where}.\n\n"
        f"**What to do.** {kind.advice}\n\n"
        f"The problem's `type` is the service's own public URL, with its name in the path:\n\n{types}\n\n"
        f"```json\n{json.dumps(document, indent=2)}\n```\n"
    )


def _index(services: tuple[Service, ...]) -> str:
    lines = [
        "# Problem types",
        "",
        "Every error is a problem document (RFC 9457), and its `type` resolves: the service serves it.",
        "These are the same pages, made by `python -m lab.problem_pages` from the services' catalogues.",
        "",
        "## Of every service",
        "",
        *_rows("common", COMMON),
    ]
    for service in services:
        own = _own(service)
        lines += ["", f"## Of the {service.name} service alone", ""]
        lines += _rows(service.name, own) if own else ["None."]
    return "\n".join(lines) + "\n"


def _rows(folder: str, types: Mapping[str, ProblemType]) -> list[str]:
    rows = [
        f"| {kind.status} | [`{slug}`]({folder}/{slug}.md) | {kind.title} |"
        for slug, kind in sorted(types.items(), key=lambda item: (item[1].status, item[0]))
    ]
    return ["| status | slug | title |", "| --- | --- | --- |", *rows]


if __name__ == "__main__":
    raise SystemExit(main())
