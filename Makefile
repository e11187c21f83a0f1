# Everything that people and CI do here. It needs make, and Python 3.11 or newer with its venv module.

PYTHON ?= python3
ARGS ?=
ROUNDS ?= 500

bin := .venv/bin
# Workers take whole files, in the order of tests/conftest.py. ARGS="-n0 -x tests/..." runs a few tests in one process.
pytest := $(bin)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
pip_install := -m pip install --quiet --disable-pip-version-check --no-input --require-hashes --requirement

.PHONY: help run test test-production faults check lock bench clean
.DEFAULT_GOAL := help

help: ## Say what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' Makefile

run: .venv/.ready-run ## Start the vault on this machine, with all it needs; PORT and the rest of .env.example apply
	@exec $(bin)/python -m knoxcall.house

test: .venv/.ready-dev .venv-client/.ready ## Run the tests on SQLite and an embedded Valkey; ARGS goes to pytest
	@$(pytest) $(ARGS)

test-production: .venv/.ready-dev .venv-client/.ready ## Run the tests on a PostgreSQL and a Valkey of their own
	@$(bin)/python -m tests.support.services -- $(pytest) --ignore tests/faults $(ARGS)

faults: .venv/.ready-dev ## Kill workers 500 times (ROUNDS=…), and stop PostgreSQL and Valkey under load; prints what became of it
	@KNOXCALL_FAULT_ROUNDS=$(ROUNDS) $(bin)/python -m tests.support.services -- $(bin)/python -m pytest -n0 -s tests/faults $(ARGS)

# The deploy check sees what a production machine would. Nothing answers at these addresses, and nothing is asked.
production_like = DATABASE_URL=postgres://vault:secret@db.example/vault REDIS_URL=rediss://broker.example \
	KNOXCALL_BASE_URL=https://vault.example KNOXCALL_DATA_DIR=/nonexistent \
	KNOXCALL_MASTER_KEYS=k1:$$($(bin)/python -c 'import base64, os; print(base64.b64encode(os.urandom(32)).decode())') \
	SECRET_KEY=$$($(bin)/python -c 'import secrets; print(secrets.token_urlsafe(64))')

# Reading the settings makes keys; those of a check are not those of `make run`.
check: export KNOXCALL_DATA_DIR := $(CURDIR)/.venv/check
check: .venv/.ready-dev ## Lint, types, import contract, migrations, deploy check
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy .
	$(bin)/lint-imports
	$(bin)/python manage.py makemigrations --check --dry-run
	@echo "manage.py check --deploy, in an environment like production"
	@$(production_like) $(bin)/python manage.py check --deploy --fail-level WARNING

lock: .venv/.ready-dev ## Compile requirements*.in into pinned, hashed files; ARGS=--upgrade for the newest versions
	@for name in requirements requirements-dev requirements-client; do \
	    UV_PYTHON=$(bin)/python UV_PYTHON_DOWNLOADS=never $(bin)/uv pip compile --quiet --universal --python-version 3.11 \
	        --generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
	        $(ARGS) --output-file $$name.txt $$name.in || exit 1; \
	done

bench: .venv/.ready-dev ## Measure; ARGS goes to the benchmarks
	@$(bin)/python -m benchmarks $(ARGS)

clean: ## Remove the environments and caches, but never var/, where the vault keeps its data
	rm -rf .venv .venv-client .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is younger than what it was made from, so that the set-up runs when a requirements file changed, and only then.

.venv/.made .venv-client/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "$(PYTHON) is not Python 3.11 or newer. Name one that is: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || { \
	    echo "$(PYTHON) has no venv module. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "Making a virtual environment in $(@D)"
	@$(PYTHON) -m venv $(@D)
	@touch $@

.venv/.ready-run: requirements.txt .venv/.made
	@echo "Installing $<"
	@$(bin)/python $(pip_install) $<
	@touch $@

.venv/.ready-dev: requirements-dev.txt .venv/.made
	@echo "Installing $<"
	@$(bin)/python $(pip_install) $<
	@touch $@

.venv-client/.ready: requirements-client.txt .venv-client/.made
	@echo "Installing $< into an environment of its own"
	@.venv-client/bin/python $(pip_install) $<
	@touch $@
