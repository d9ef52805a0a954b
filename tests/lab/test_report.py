"""The report: what is in the data is on the page and in the Markdown, and what is no data is refused."""

import base64
import gzip
import html
import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lab.cli import app
from lab.compare.verdicts import bound
from lab.errors import LabError
from lab.plotting import as_file
from lab.report import render
from lab.report.bars import arrows
from lab.report.documents import Cell, Figure, Ratio
from lab.report.panels import COLOURS, PARTS
from lab.report.raw import download
from lab.report.troubled import matrix_cell
from lab.report.verdicts import joined, verdict
from tests.lab.report_data import changes, comparison, faults, fill

MOST_BYTES = 3_000_000


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all data, and all that is made of them."""
    folder = fill(tmp_path_factory.mktemp("whole"))
    render(folder, decision=True)
    return folder


def page_text(folder: Path) -> str:
    """The page's text, without tags, spaces evened."""
    text = (folder / "report.html").read_text()
    body = re.sub(r"<(style|svg)\b.*?</\1>", " ", text, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", body)).split())


def changed(folder: Path, name: str, change: Callable[[dict[str, Any]], object]) -> Path:
    """A folder with one document that was changed."""
    file = fill(folder, name) / name
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))
    return folder


def figures(document: Any) -> Iterator[dict[str, Any]]:
    """All figures in a document, wherever they are."""
    if isinstance(document, dict):
        if "verdict" in document:
            yield document
        document = list(document.values())
    if isinstance(document, list):
        for each in document:
            yield from figures(each)


def test_every_verdict_is_on_the_page_and_in_the_markdown(whole: Path) -> None:
    sentences = [each["sentence"] for each in figures(comparison())]
    assert len(sentences) > 30
    text, markdown = page_text(whole), (whole / "report.md").read_text()
    for sentence in sentences:
        assert sentence in text
        assert sentence in markdown


def test_the_page_needs_nothing_else(whole: Path) -> None:
    page = (whole / "report.html").read_text()
    assert len(page) < MOST_BYTES
    assert "<script" not in page
    assert "src=" not in page
    assert "@import" not in page
    assert set(re.findall(r'href="(data:|#)?', page)) == {"data:", "#"}


def test_the_raw_data_are_in_the_page_as_they_are_in_the_files(whole: Path) -> None:
    page = (whole / "report.html").read_text()
    links = dict(re.findall(r'<a download="([^"]+)" href="data:application/json;base64,([^"]+)"', page))
    assert links.keys() == {"compare.json", "faults.json", "changes.json"}
    for name, content in links.items():
        assert base64.b64decode(content) == (whole / name).read_bytes()


def test_long_data_are_packed_and_too_long_ones_only_named() -> None:
    content = json.dumps(list(range(100_000))).encode()
    packed = download("compare.json", content)
    assert packed.name == "compare.json.gz"
    assert gzip.decompress(base64.b64decode(packed.href.partition(",")[2])) == content
    assert download("compare.json", random.Random(1).randbytes(2_000_000)).href == ""


def test_the_same_data_make_the_same_files(whole: Path, tmp_path: Path) -> None:
    again = fill(tmp_path)
    render(again, decision=True)
    names = {str(file.relative_to(whole)) for file in whole.rglob("*") if file.is_file()}
    assert names == {str(file.relative_to(again)) for file in again.rglob("*") if file.is_file()}
    for name in names:
        assert (whole / name).read_bytes() == (again / name).read_bytes(), name


def test_the_markdown_shows_every_picture_of_the_page_and_no_other(whole: Path) -> None:
    shown = set(re.findall(r"\]\(pictures/([^)]+)\)", (whole / "report.md").read_text()))
    assert shown == {file.name for file in (whole / "pictures").iterdir()}
    assert (whole / "report.html").read_text().count("<svg") == len(shown)


def test_a_picture_in_a_file_brings_its_own_ground() -> None:
    svg = as_file('<svg role="img"><text>told</text></svg>')
    assert "background:#fff" in svg
    assert "prefers-color-scheme:dark" in svg
    assert as_file(svg) == svg


def test_no_id_stands_twice_on_the_page(whole: Path) -> None:
    ids = re.findall(r'\bid="([^"]+)"', (whole / "report.html").read_text())
    assert len(ids) == len(set(ids))


def test_text_from_the_data_is_text(whole: Path) -> None:
    page, markdown = (whole / "report.html").read_text(), (whole / "report.md").read_text()
    assert "<b>not bold</b>" not in page + markdown
    assert "<b>not bold</b>, a | b" in page_text(whole)
    assert "&lt;b>not bold&lt;/b>, a \\| b" in markdown


def test_a_failed_run_says_so_before_its_verdicts(whole: Path) -> None:
    for text in (page_text(whole), (whole / "report.md").read_text()):
        failed = text.index("FAILED")
        assert failed < text.index("service-times, choreography, round 2: its ledger does not balance.")
        assert failed < text.index(" is better")
    assert "This comparison has failed" in (whole / "decision.md").read_text()


def test_a_noisy_or_short_run_is_doubted(tmp_path: Path) -> None:
    def change(document: dict[str, Any]) -> None:
        document["scenarios"][0]["pairs"] = 2
        document["scenarios"][0]["windows"][0]["others_cpu_share"] = 0.9

    render(changed(tmp_path, "compare.json", change))
    assert "2 rounds are a look, not a verdict" in page_text(tmp_path)
    assert "other programs took up to 90% of a core" in page_text(tmp_path)


@pytest.mark.parametrize(
    ("name", "commands"),
    [
        ("compare.json", {"duet faults --out DIR", "duet change all --out DIR"}),
        ("faults.json", {"duet compare --out DIR", "duet compare --full --out DIR"}),
        ("changes.json", {"duet compare --out DIR", "duet faults --out DIR"}),
    ],
)
def test_what_was_not_measured_says_which_command_does(tmp_path: Path, name: str, commands: set[str]) -> None:
    render(fill(tmp_path, name))
    for text in (page_text(tmp_path), (tmp_path / "report.md").read_text().replace("`", "")):
        for command in commands:
            assert f"Not measured here: {command} adds it." in text


def test_every_arm_of_a_comparison_of_three_is_told(tmp_path: Path) -> None:
    def change(document: dict[str, Any]) -> None:
        bare = document["scenarios"][0]
        told = dict(bare["figures"][0], a="choreography", b="mine", sentence="mine is told of, too.")
        bare["arms"].append("mine")
        bare["windows"] += [dict(w, arm="mine") for w in bare["windows"] if w["arm"] == "choreography"]
        bare["figures"].append(told)
        mine = {
            "name": "mine",
            "style": "mine",
            "ack_means": "nobody knows",
            "completion_means": "it is told",
        }
        document["arms"].append(mine)

    render(changed(tmp_path, "compare.json", change), decision=True)
    text = page_text(tmp_path)
    assert "choreography over JetStream and mine were compared" in text
    assert "mine is told of, too." in text
    assert "mine, nobody knows" in text
    assert "- [ ] mine" in (tmp_path / "decision.md").read_text()


@pytest.mark.parametrize(
    ("told", "text", "mark"),
    [
        ({}, "ok", "good"),
        ({"refused": 3, "p99_ms": 70.2}, "ok", "good"),
        ({"lost": 2, "duplicated": 1, "sound": False}, "lost 2, dup 1", "bad"),
        ({"stuck": 4, "sound": False}, "stuck 4", "bad"),
        ({"sound": False}, "not sound", "bad"),
        ({"skipped": "no root", "intended": 0}, "skipped", "none"),
        ({"intended": 0, "sound": False, "notes": ["it did not start"]}, "failed to run", "bad"),
    ],
)
def test_a_cell_of_the_matrix_is_told_in_words(told: dict[str, Any], text: str, mark: str) -> None:
    cell = matrix_cell(Cell(arm="a", fault="f", **{"intended": 9, "sound": True, **told}))
    assert (cell.text, cell.mark) == (text, mark)
    small = [str(told.get("skipped") or ""), *told.get("notes", []), "refused 3" if "refused" in told else ""]
    assert all(each in cell.small for each in small)


def test_the_matrix_has_times_in_its_cells(whole: Path) -> None:
    assert "ok p99 6.20 s; back after 1.14 s" in page_text(whole)
    assert "**dup 123**<br>orphan 655; p99" in (whole / "report.md").read_text()
    assert "only root can mount a disk" in page_text(whole)


def test_what_digits_say_nothing_of_is_told_without() -> None:
    assert [bound(each) for each in (1.314, 0.021, 860_500.3, 0.0000021)] == [
        "1.31",
        "0.021",
        "over 100",
        "under 0.01",
    ]
    figure = Figure.model_validate(
        next(figures(comparison())) | {"verdict": "undecided", "smallest": 154_248.4}
    )
    assert verdict(figure).small == "could not even tell 10 times"


def test_titles_are_joined_by_what_they_share() -> None:
    assert joined(["ack latency, p50", "ack latency, p99", "memory"]) == "ack latency (p50, p99), memory"


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("compare.json", b"{", "compare.json is no JSON document"),
        ("compare.json", b"\xff\xfe\x00", "compare.json is no JSON document"),
        ("compare.json", b"[]", "compare.json is not what this report reads: the whole"),
        ("faults.json", b"{}", "faults.json is not what this report reads: kind: field required"),
        ("faults.json", json.dumps(faults() | {"version": 2}).encode(), "version: input should be 1"),
        ("changes.json", json.dumps(changes() | {"experiments": 3}).encode(), "experiments: input should be"),
    ],
)
def test_what_is_no_such_document_is_refused(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(LabError, match=re.escape(told)) as caught:
        render(tmp_path)
    assert "make it anew with duet" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "report.html").exists()


def test_a_histogram_that_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    def change(document: dict[str, Any]) -> None:
        document["scenarios"][1]["windows"][0]["histograms"]["ack"] = "SGlzdG9ncmFt"

    with pytest.raises(LabError, match=r"compare\.json, service-times: 'SGlz.*' is no HdrHistogram"):
        render(changed(tmp_path, "compare.json", change))


def test_what_is_no_number_is_not_known(tmp_path: Path) -> None:
    def change(document: dict[str, Any]) -> None:
        document["scenarios"][0]["figures"][0]["smallest"] = float("inf")

    render(changed(tmp_path, "compare.json", change))
    assert "Infinity" not in page_text(tmp_path)


def test_a_folder_without_data_says_how_to_make_some(tmp_path: Path) -> None:
    asked = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert asked.exit_code == 2
    assert "holds no data to report: make some with duet compare" in asked.output
    assert list(tmp_path.iterdir()) == []


def test_duet_report_names_what_it_writes(tmp_path: Path) -> None:
    fill(tmp_path, "faults.json")
    asked = CliRunner().invoke(app, ["report", str(tmp_path), "--decision"])
    assert asked.exit_code == 0
    assert asked.output.split() == [str(tmp_path / n) for n in ("report.html", "report.md", "decision.md")]


def test_the_record_leaves_the_decision_to_the_team(whole: Path) -> None:
    record = (whole / "decision.md").read_text()
    assert "- Status: proposed" in record
    assert "- Date: 2026-11-26" in record
    assert "- [ ] orchestration\n- [ ] choreography\n" in record
    assert "[x]" not in record
    for each in figures(comparison()["scenarios"]):
        if each["verdict"] in ("orchestration", "choreography"):
            assert re.search(f"Good: better than .* in {re.escape(each['title'])} ", record)
    assert "it ended all 4 faults with nothing lost, doubled or stuck" in record


def test_a_record_in_which_a_team_has_written_is_kept(tmp_path: Path) -> None:
    fill(tmp_path, "compare.json")
    first = render(tmp_path, decision=True)[-1]
    assert render(tmp_path, decision=True)[-1] == first
    first.write_text("We chose.\n")
    second = render(tmp_path, decision=True)[-1]
    assert first.read_text() == "We chose.\n"
    assert second.name == "decision-2.md"


def luminance(colour: str) -> float:
    """WCAG 2's relative luminance."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("page", ["#ffffff", "#14171a"])
def test_what_is_drawn_is_seen_on_a_light_and_a_dark_page(page: str) -> None:
    for colour in {*COLOURS, *PARTS}:
        light, dark = sorted((luminance(colour), luminance(page)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 3, colour


@pytest.mark.parametrize(
    ("low", "high", "drawn"),
    [
        (0.5, 2.0, []),
        (0.01, 2.0, [(0.05, "<")]),
        (0.01, 0.02, [(0.05, "<")]),
        (0.5, 30.0, [(20.0, ">")]),
        (25.0, 30.0, [(20.0, ">")]),
        (0.01, 30.0, [(0.05, "<"), (20.0, ">")]),
    ],
)
def test_an_arrow_shows_which_way_an_interval_goes_on(
    low: float, high: float, drawn: list[tuple[float, str]]
) -> None:
    assert arrows(Ratio(point=(low * high) ** 0.5, low=low, high=high, pairs=6, confidence=0.99)) == drawn


def test_a_matrix_that_was_interrupted_is_not_said_to_have_passed(tmp_path: Path) -> None:
    def interrupt(document: dict[str, Any]) -> None:
        document["cells"] = [cell for cell in document["cells"][:3] if cell["sound"]]
        document["passed"] = False

    folder = changed(tmp_path, "faults.json", interrupt)
    lacking = 4 * 5 - len(json.loads((folder / "faults.json").read_text())["cells"])
    render(folder)
    assert f"Faults: FAILED. It was interrupted: {lacking} cells were not run." in page_text(folder)
