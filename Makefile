# Every target is one line; logic lives in Python. `make help` lists them.
PYTHON ?= python3
BIN := .venv/bin
TESTS := -n 4 --dist loadfile --no-loadscope-reorder

.PHONY: help setup run test unbatched check chaos bench compare faults changes clean lock

help: ## list the targets
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.run-stamp ## make .venv with what running needs, pinned by hash

run: setup ## start the system, place a checkout in each style, serve until Ctrl-C
	@$(BIN)/duet up --first-order

test: .venv/.test-stamp ## run every test but the longest fault tests (some 8 minutes on two cores)
	@$(BIN)/python -m pytest $(TESTS) -m "not chaos"

unbatched: .venv/.test-stamp ## the tests of orders, faults and changes once more, with CHECKOUT_BATCHING=off
	@CHECKOUT_BATCHING=off $(BIN)/python -m pytest $(TESTS) -m "not chaos" tests/checkout tests/conformance tests/e2e

check: .venv/.test-stamp ## lint, types and import boundaries
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/python -m pytest -q tests/contract/test_boundaries.py

chaos: .venv/.test-stamp ## the longest fault tests: kills, wipes, the broker's full disk (some 10 minutes)
	@$(BIN)/python -m pytest -m chaos -n 4 --dist load tests/api
	@$(BIN)/python -m pytest -m chaos --ignore tests/api

bench: setup ## the conductor, durable, beside one without batching and two that are not durable
	@$(BIN)/duet bench conductor

compare: setup ## both styles compared, everything: capacity, service times, ablations (half an hour)
	@$(BIN)/duet compare --full --decision --out .lab/report

faults: setup ## the fault matrix on four arms (half an hour)
	@$(BIN)/duet faults --out .lab/report

changes: setup ## carry out every change scenario in each style (a quarter of an hour)
	@$(BIN)/duet change all --out .lab/report

clean: ## remove the environment, caches and the default data folder
	@rm -rf .venv .duet .pytest_cache .mypy_cache .ruff_cache .hypothesis .bench .change .lab .venv-locust && find . -name __pycache__ -type d -prune -exec rm -rf {} +

lock: ## pin the dependencies anew (needs uv)
	@uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --group build pyproject.toml -o requirements.lock
	@uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --group build --group test pyproject.toml -c requirements.lock -o requirements-test.lock
	@uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header loadtest/requirements.in -o loadtest/requirements.lock

.venv/.run-stamp: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.x")'
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.venv/.test-stamp: .venv/.run-stamp requirements-test.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-test.lock
	@touch $@
