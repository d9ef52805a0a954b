"""Every command of the README and every example of the API page is run, against the system of `make run`."""

import re
import shutil
import subprocess
import sys

import httpx
import pytest

from lab.system import MAILBOX
from tests.docs.conftest import Running
from tests.docs.documents import blocks, quoted, text_of

BASH = ("bash", "-e", "-o", "pipefail", "-s")
NOT_RUN = {
    "make run": "starts the system: the tests use the one that its command has started",
    "make test": "runs the tests",
    ". .venv/bin/activate": "puts duet on the path: the tests have put it there",
}


@pytest.fixture(autouse=True)
def _curl_is_there() -> None:
    assert shutil.which("curl"), "the documents use curl: install it (Debian's package is curl)"


def test_the_readme_s_commands_do_what_it_says(running: Running) -> None:
    script, left_out = [], set()
    for line in "\n".join(blocks("README.md", "sh")).splitlines():
        command = line.partition(" #")[0].strip()
        if command in NOT_RUN:
            left_out.add(command)
        else:
            script.append(line)
    assert left_out == NOT_RUN.keys()
    said = running.run(*BASH, text="\n".join(script))
    assert '"status":"completed"' in said
    assert said.count("The ledger balances.") == 3
    reasons = re.findall(r"waiting for rewards \((\S+) since ", said)
    assert len(reasons) == 2
    assert "no-outcome" in reasons
    assert "sku-refused" in said


def test_the_readme_s_make_targets_exist() -> None:
    makefile = text_of("Makefile")
    named = re.findall(r"\bmake ([a-z]+)", text_of("README.md") + text_of("CONTRIBUTING.md"))
    for target in {name for name in named if name not in ("and", "sure", "it")}:
        assert re.search(rf"^{target}:.*## ", makefile, re.MULTILINE), target
    run = re.search(r"^run:.*\n\t(.*)$", makefile, re.MULTILINE)
    assert run is not None
    assert run[1].endswith("duet up --first-order")


def test_the_readme_s_pages_are_there(running: Running) -> None:
    pages = re.findall(r"<(http://127[^>]+)>", text_of("README.md"))
    assert len(pages) == 2
    for page in pages:
        assert httpx.get(running.on_its_ports(page)).status_code == 200


def test_the_api_s_examples_run(running: Running) -> None:
    shell = running.run(*BASH, text="\n".join(blocks("docs/api.md", "sh")))
    assert "event: final" in shell
    assert shell.rstrip().endswith("ready")
    running.run(sys.executable, "-", text="\n".join(blocks("docs/api.md", "python")))


def test_backup_restore_and_repair_run_as_written(running: Running) -> None:
    said = running.run(*BASH, text="\n".join(blocks("docs/operations.md", "sh")))
    assert "The ledger balances." in said


def test_every_route_is_on_the_api_s_page(running: Running) -> None:
    told = {re.sub(r"\{\w+\}", "{}", path) for path in _paths(text_of("docs/api.md"))}
    for service in running.system.services:
        document = httpx.get(f"{running.system.url(service.name)}/openapi.json").json()
        served = {re.sub(r"\{\w+\}", "{}", path) for path in document["paths"]}
        assert served <= told, service.name


def test_every_metric_is_on_the_operations_page_and_no_other(running: Running) -> None:
    told = set(re.findall(r"^\| (\w+) \| `(\w+)` \|", text_of("docs/operations.md"), re.MULTILINE))
    common = {name for service, name in told if service == "all"}
    for service in running.system.services:
        exposed = httpx.get(f"{running.system.url(service.name)}/metrics").text
        families = re.findall(r"^# TYPE (\w+) ", exposed, re.MULTILINE)
        own = {name for name in families if not name.startswith("process_") and not name.endswith("_created")}
        assert own == common | {name for where, name in told if where == service.name}


def test_make_run_shows_a_completed_checkout_with_its_three_effects(running: Running) -> None:
    for style in ("orchestration", "choreography"):
        assert f", {style}, 43.48 GBP: completed" in running.said
    found = re.search(r"e-mail +“Your order (\S+)” to ada@example\.com: (\S+)\n", running.said)
    assert found is not None, running.said
    assert found[1] in httpx.get(found[2]).text
    assert found[2].startswith(running.system.url(MAILBOX))
    assert re.search(r"shipment +preparing, 3 units to London", running.said)
    assert re.search(r"points +43 for this order, 43 in all", running.said)
    assert found[1] in running.system.accepted_file.read_text()


def test_the_first_order_is_for_people_not_for_programs(running: Running) -> None:
    done = subprocess.run(
        ["duet", "up", "--first-order", "--json"],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=running.folder,
        env=running.environment,
    )
    assert done.returncode == 2
    assert "leave out --json" in done.stderr


def _paths(text: str) -> set[str]:
    named = [word for phrase in quoted(text) for word in phrase.split()]
    return {word.partition("?")[0] for word in named if word.startswith("/")}
