"""What the OpenAPI documents say is what the services do: tried with data made from the documents."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from servicekit.paging import encode_cursor
from tests.api.apps import CALLER, CONDUCTOR, OPERATOR, ROOT
from tests.api.conftest import NAMES, Served

EXAMPLES = 20
RUN_S = 280
# Whose token opens what; everything else is the operator's.
TOKENS = {
    "checkout": ("/checkouts", CALLER),
    "email": ("/emails", CONDUCTOR),
    "warehouse": ("/shipments", CONDUCTOR),
    "rewards": ("/balances", CONDUCTOR),
}
CONFIG = """
hooks = "tests.api.hooks"
headers = {{ Authorization = "Bearer {operator}" }}
continue-on-failure = true

# A cursor is opaque: only the services make them.
[parameters]
"query.cursor" = "{cursor}"

[cache]
enabled = false

[[operations]]
include-name = "POST {path}"
headers = {{ Authorization = "Bearer {token}" }}
"""


# The second walks every boundary of every schema, which takes a minute and more.
@pytest.mark.timeout(300)
@pytest.mark.parametrize("phases", ["examples,fuzzing", pytest.param("coverage", marks=pytest.mark.chaos)])
@pytest.mark.parametrize("name", NAMES)
def test_a_service_does_what_its_document_says(
    name: str, phases: str, served: Served, tmp_path: Path
) -> None:
    path, token = TOKENS[name]
    config = tmp_path / "schemathesis.toml"
    cursor = encode_cursor("" if name == "checkout" else 0)
    config.write_text(CONFIG.format(operator=OPERATOR, path=path, token=token, cursor=cursor))
    tried = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run"),
            *(f"{served.urls[name]}/openapi.json", "--checks", "all", "--seed", "1", "--no-color"),
            *("--max-examples", str(EXAMPLES), "--suppress-health-check", "all"),
            *("--generation-database", "none", "--phases", phases),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    assert tried.returncode == 0, tried.stdout + tried.stderr
