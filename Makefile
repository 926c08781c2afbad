# Everything a developer runs. Each target makes .venv when it has to, from Python and pip alone.

PYTHON ?= python3
ARGS ?=
NAME ?=

BIN := .venv/bin
# Written last, so that an interrupted install leaves none.
STAMP := .venv/.installed
BENCH_STAMP := .venv/.bench-installed

.DEFAULT_GOAL := help
.PHONY: help venv up test check format bench chaos picture constraints clean

ifeq ($(wildcard nxs_tasks/settings.py),)
$(error Run make in the folder of this Makefile)
endif

# A virtual environment does not survive a move or a copy: .folder says where it was made.
ifeq ($(shell test -x $(BIN)/python && test "$$(cat .venv/.folder 2>&1)" = "$$(pwd -P)" && echo ok),)
.PHONY: $(STAMP)
endif

help: ## print this list
	@echo "make TARGET [ARGS='…'] [PYTHON=python3.11]"
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' Makefile

venv: $(STAMP) ## make .venv with everything that development needs
	@echo ".venv is ready"

$(STAMP): pyproject.toml constraints.txt
	@rm -f $@
	@test "$$(cat .venv/.folder 2>&1)" = "$$(pwd -P)" && $(BIN)/python -m pip --version >/dev/null 2>&1 || { \
		$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
			found=$$($(PYTHON) --version 2>/dev/null) || found="not found"; \
			echo "NXS needs Python 3.11 or newer; $(PYTHON) is: $$found." >&2; \
			echo "Say which one to use: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; \
			exit 1; \
		}; \
		rm -rf .venv && $(PYTHON) -m venv .venv && pwd -P >.venv/.folder; \
	}
	@echo "installing into .venv (once, and when pyproject.toml or constraints.txt change)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints.txt
	@touch $@

$(BENCH_STAMP): $(STAMP)
	@echo "installing what the benchmarks measure beside"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,bench]' -c constraints.txt
	@touch $@

up: $(STAMP) ## run the census example on a fleet on this machine, until Ctrl-C
	@$(BIN)/nxs -A examples.census.app up --work examples.census.run:run --out census-report $(ARGS)

test: $(STAMP) ## all tests
	$(BIN)/python -m pytest $(ARGS)

check: $(STAMP) ## formatting, lint, types, import contracts, all tests
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m pytest $(ARGS)

format: $(STAMP) ## format the code, and repair what lint can repair
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

bench: $(if $(NAME),$(BENCH_STAMP)) ## one benchmark: make bench NAME=…
	@test -n "$(NAME)" || { echo "Say which benchmark: make bench NAME=… (bench/ holds them)" >&2; exit 1; }
	$(BIN)/python -m bench $(NAME) $(ARGS)

chaos: $(STAMP) ## kill, freeze and cut real workers, beside plain Celery: make chaos ARGS='--kills 50'
	$(BIN)/python -m chaos $(ARGS)

picture: $(STAMP) ## draw the pictures of the documentation anew
	@$(BIN)/python -m docs.states_page && $(BIN)/python -m docs.settings_page
	@$(BIN)/nxs -A examples.census.app up --work docs.picture:draw --out .state/picture --no-flower --once $(ARGS)

constraints: ## resolve all dependencies anew, into constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { \
		echo "Resolve with the oldest Python that NXS runs on: make constraints PYTHON=python3.11" >&2; \
		exit 1; \
	}
	@set -e; new=$$(mktemp -d); trap 'rm -rf "$$new"' EXIT; trap 'exit 130' INT TERM; \
	$(PYTHON) -m venv "$$new/venv"; \
	"$$new/venv/bin/python" -m pip install --quiet --disable-pip-version-check -e '.[dev,bench]'; \
	"$$new/venv/bin/python" -m pip check; \
	{ \
		echo "# Every dependency of nxs-tasks[dev,bench], direct or not, at the version it is tested with."; \
		echo "# Resolved on Python 3.11. Do not edit: renew it with \`make constraints\`."; \
		"$$new/venv/bin/python" -m pip freeze --exclude nxs-tasks --exclude-editable; \
	} >"$$new/constraints.txt"; \
	cp "$$new/constraints.txt" constraints.txt; \
	git --no-pager diff --stat -- constraints.txt 2>/dev/null || true

clean: ## remove .venv, caches, build outputs and reports
	rm -rf .venv .state census-report build dist *.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -path ./.git -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +
