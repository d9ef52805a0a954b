"""The report in a real browser: on a desk, a tablet, a phone and paper, in light and dark."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.report import render
from tests.lab.browser import Browser, browser, find
from tests.lab.report_data import fill

PROGRAM = find()
PAPER_PX = 718  # A4 less Chromium's usual margins, at 96 pixels an inch

pytestmark = [
    pytest.mark.skipif(PROGRAM is None, reason="no Chromium here: apt-get install chromium"),
    pytest.mark.timeout(180),
]

# Everything that is wrong with the page as it is shown now, by kind, as texts.
FINDINGS = """(() => {
  const seen = node => { const box = node.getBoundingClientRect();
    return box.width > 0 && box.height > 0 && node.checkVisibility(); };
  const name = node => `${node.tagName} ${node.id || ""} ${node.textContent.trim().slice(0, 40)}`;
  const all = selector => [...document.querySelectorAll(selector)];
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = colour => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map(part => part / 255)
    .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
  const ground = node => {
    for (let at = node; at; at = at.parentElement) {
      const found = rgba(getComputedStyle(at).backgroundColor);
      if (found[3] === 255) return found;
    }
    return [255, 255, 255, 255];
  };
  const contrast = node => {
    const style = getComputedStyle(node);
    const ink = light(rgba(node instanceof SVGElement ? style.fill : style.color));
    const under = light(ground(node));
    return (Math.max(ink, under) + 0.05) / (Math.min(ink, under) + 0.05);
  };
  const written = node => [...node.childNodes].some(each => each.nodeType === 3 && each.data.trim());
  const boxed = node => node.closest(".wide") && node !== node.closest(".wide");
  const page = document.scrollingElement;
  const found = {
    sideways: page.scrollWidth > innerWidth ? [`${page.scrollWidth} of ${innerWidth}`] : [],
    outside: all("body *:not(svg *)").filter(node => seen(node) && !boxed(node))
      .filter(node => { const box = node.getBoundingClientRect();
        return box.left < -1 || box.right > page.clientWidth + 1; }).map(name),
    cut: all("svg").flatMap(svg => { const whole = svg.getBoundingClientRect();
      return [...svg.querySelectorAll("text")].filter(text => { const box = text.getBoundingClientRect();
        return box.left < whole.left - 1 || box.right > whole.right + 1 ||
          box.top < whole.top - 1 || box.bottom > whole.bottom + 1; }).map(name); }),
    overlapping: all("svg").flatMap(svg => { const texts = [...svg.querySelectorAll("text")];
      return texts.flatMap((one, at) => texts.slice(at + 1).filter(other => {
        const a = one.getBoundingClientRect(), b = other.getBoundingClientRect();
        return Math.min(a.right, b.right) - Math.max(a.left, b.left) > 2 &&
          Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > a.height / 3; })
        .map(other => `${name(one)} and ${name(other)}`)); }),
    empty: all("section, figure, svg, table, details, ul, p, h2, h3")
      .filter(node => getComputedStyle(node).display !== "none" && !node.closest("details:not([open]), nav"))
      .filter(node => !(seen(node) && node.textContent.trim())).map(name),
    bare: all("section").filter(node => !node.querySelector("p, ul, table, figure")).map(name),
    faint: all("body *").filter(node => written(node) && seen(node) && contrast(node) < 4.5)
      .map(node => `${name(node)}: ${contrast(node).toFixed(2)}`),
    scrolling: matchMedia("print").matches
      ? all(".wide").filter(node => node.scrollWidth > node.clientWidth + 1).map(name) : [],
    hidden: matchMedia("print").matches
      ? all("details > :not(summary)").filter(node => !seen(node)).map(name) : [],
  };
  return Object.fromEntries(Object.entries(found).filter(([, nodes]) => nodes.length)
    .map(([kind, nodes]) => [kind, nodes.slice(0, 5)]));
})()"""
UNFOLD = "document.querySelectorAll('details').forEach(node => { node.open = true; })"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page made of everything."""
    return render(fill(tmp_path_factory.mktemp("whole")))[0]


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert PROGRAM is not None
    with browser(PROGRAM, tmp_path_factory.mktemp("browser")) as running:
        yield running


def findings(chromium: Browser, page: Path, width: int, **how: Any) -> dict[str, list[str]]:
    chromium.complaints.clear()
    chromium.show(width, **how)
    chromium.open(page)
    if how.get("media") != "print":
        chromium.evaluate(UNFOLD)
    found: dict[str, list[str]] = chromium.evaluate(FINDINGS)
    return found | ({"console": chromium.complaints} if chromium.complaints else {})


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 768, 360])
def test_nothing_overflows_is_empty_or_faint(chromium: Browser, page: Path, width: int, dark: bool) -> None:
    assert findings(chromium, page, width, dark=dark) == {}


def test_on_paper_nothing_is_cut_or_folded_away(chromium: Browser, page: Path) -> None:
    assert findings(chromium, page, PAPER_PX, media="print") == {}
    printed = chromium.print()
    assert printed.startswith(b"%PDF-")
    assert len(printed) > 50_000


@pytest.mark.parametrize("name", ["compare.json", "faults.json", "changes.json"])
def test_a_page_of_one_document_alone_is_sound_on_a_phone(
    chromium: Browser, tmp_path: Path, name: str
) -> None:
    assert findings(chromium, render(fill(tmp_path, name))[0], 360) == {}


def test_the_checks_find_what_they_look_for(chromium: Browser, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<body style='background:#fff'><section></section><p style='color:#999'>faint</p>"
        "<div style='width:2000px'>wide</div><figure></figure><svg width='50' height='20'>"
        "<text x='0' y='15'>much too long for it</text><text x='2' y='15'>over</text></svg>"
        "<script>console.error('no')</script>"
    )
    kinds = {"sideways", "outside", "cut", "overlapping", "empty", "bare", "faint", "console"}
    assert findings(chromium, bad, 360).keys() == kinds
    bad.write_text("<div class='wide' style='overflow:auto'><div style='width:2000px'>wide</div></div>"
                   "<details><summary>more</summary><p>folded</p></details>")  # fmt: skip
    assert findings(chromium, bad, PAPER_PX, media="print").keys() == {"scrolling", "hidden"}
