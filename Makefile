# One command for each need. `make` alone lists them; ARGS="…" is passed on.
# Every target sets up what it needs; the bootstrap does nothing when the lock files are unchanged.

.DEFAULT_GOAL := help
.PHONY: help run test test-slow check bench peers results growth demo crash simulate mutants soak fmt fmt-check lint types arch lock clean setup setup-dev

# Two workers fill two cores; each starts its own private PostgreSQL, so more cost more than they win.
JOBS ?= 2
PY := .venv/bin/python
SOURCES := storage runtime agents edge bench tests
# Off: ASYNC114 wants a list of names kept; ASYNC124 (async without await): a seam may need it elsewhere.
FLAKE8_ASYNC := $(PY) -m flake8_async --enable=ASYNC1,ASYNC2 --disable=ASYNC114,ASYNC124 \
	--async200-blocking-calls "*.fsync->run_sync, *.fdatasync->run_sync"
LOCK := uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-annotate --custom-compile-command "make lock" --quiet

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: setup  ## start a server on 127.0.0.1:4000 with its data in .ringlog
	@exec .venv/bin/ringlog serve $(ARGS)

test: setup-dev  ## the tests, on a private PostgreSQL and on SQLite
	@$(PY) -m pytest -n $(JOBS) -m "not slow and not soak" $(ARGS)

test-slow: setup-dev  ## the tests that take up to a minute each
	@$(PY) -m pytest -n $(JOBS) -m slow $(ARGS) || [ $$? -eq 5 ]  # 5: there are none

check: fmt-check lint types arch test  ## everything that must pass before a change lands

bench: setup-dev  ## two minutes of measuring; ARGS="--only append-64x1"
	@$(PY) -m bench tour $(ARGS)

peers: setup-dev  ## install what a user would otherwise pick into .peers, and measure beside it
	@bench/peers/install.sh
	@$(PY) -m bench peers $(ARGS)

results: setup-dev  ## measure anew what docs/benchmarks.md shows, but for growth; an hour on a quiet machine
	-@$(PY) -m bench tour --thorough --output docs/benchmarks $(ARGS)
	@$(PY) -m bench results --page docs/benchmarks.md
	@$(PY) -m bench plot $$(ls docs/benchmarks/*.json | grep -vE 'growth|known|hour') --output docs/benchmarks

growth: setup-dev  ## measure what may grow with messages, sessions and time; two hours
	-@$(PY) -m bench tour --long --output docs/benchmarks $(ARGS)
	@$(PY) -m bench results --page docs/benchmarks.md
	@$(PY) -m bench plot docs/benchmarks/growth-*.json --output docs/benchmarks/growth

demo: setup-dev  ## real conversations through a server that is killed twice
	@$(PY) -m bench demo $(ARGS)

simulate: setup-dev  ## a simulated cluster, 20,000 schedules of faults; ARGS="--seed 7 --trace" shows one
	@$(PY) -m tests.simulation $(ARGS)

crash: setup-dev  ## hundreds of kill -9 rounds, every history checked
	@$(PY) -m tests.crash $(ARGS)

soak-ring: setup-dev  ## every fault of docs/faults.md under load, on both archives; hours
	@$(PY) -m tests.crash.soak_ring $(ARGS)

cluster: setup  ## start a cluster on this machine: an edge on 127.0.0.1:4000, two owners, one archive
	@exec .venv/bin/ringlog up $(ARGS)

soak: setup-dev  ## thousands of interleavings, then of kill -9 rounds on both archives; hours
	@$(PY) -m pytest -m soak
	@$(PY) -m tests.crash --rounds 3000 --archive both $(ARGS)

mutants: setup-dev  ## break each guarantee on purpose and show the test that notices
	@$(PY) -m tests.mutants $(ARGS)

fmt: setup-dev  ## format the sources
	@$(PY) -m ruff format $(SOURCES) && $(PY) -m ruff check --fix --quiet $(SOURCES)

fmt-check: setup-dev
	@$(PY) -m ruff format --check $(SOURCES)

lint: setup-dev  ## ruff and flake8-async
	@$(PY) -m ruff check $(SOURCES)
	@$(FLAKE8_ASYNC) $$(git ls-files '*.py' ':!tests')
	@$(FLAKE8_ASYNC) --disable=ASYNC110,ASYNC113,ASYNC114,ASYNC124 $$(git ls-files 'tests/*.py')  # tests poll

types: setup-dev  ## mypy, strict
	@$(PY) -m mypy

arch: setup-dev  ## the import contracts
	@.venv/bin/lint-imports

lock:  ## write the lock files anew from pyproject.toml (needs uv)
	@command -v uv >/dev/null || { echo "make lock needs uv:  pip install uv" >&2; exit 1; }
	@$(LOCK) --output-file requirements.lock
	@$(LOCK) --group dev --constraint requirements.lock --output-file requirements-dev.lock

clean:  ## remove .venv and the tools' caches; the data in .ringlog stays
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

setup:
	@./bootstrap.sh run

setup-dev:
	@./bootstrap.sh dev
