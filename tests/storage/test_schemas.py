"""The schema that a service's migrations make is the one that its code works with, on both engines."""

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import MetaData, create_engine

from servicekit import outcomes
from servicekit.migrate import migrate

ROOT = Path(__file__).parent.parent.parent
TABLES = {"email_svc": "confirmations", "warehouse_svc": "tables", "rewards_svc": "points"}


@pytest.mark.parametrize("package", TABLES)
def test_the_tables_are_what_the_migrations_make(package: str, database_url: str) -> None:
    migrate(ROOT / package, database_url)
    own: MetaData = importlib.import_module(f"{package}.{TABLES[package]}").metadata
    engine = create_engine(database_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        found: list[Any] = compare_metadata(context, [own, outcomes.metadata])  # type: ignore[arg-type] # a list will do
    engine.dispose()
    # Indexes are the migrations' own affair: no code names one.
    assert [each for each in found if each[0] != "remove_index"] == []


@pytest.mark.parametrize("package", [*TABLES, "checkout"])
def test_a_migration_is_written_out_and_changes_with_no_code(package: str) -> None:
    for migration in (ROOT / package / "migrations").glob("*.py"):
        imported = re.findall(r"^(?:from|import) (\w+)", migration.read_text(encoding="utf-8"), re.MULTILINE)
        assert set(imported) <= {"sqlalchemy", "alembic"}, migration
