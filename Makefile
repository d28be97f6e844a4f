# Both `make demo` and `make test` work in a fresh clone and need nothing but python3 >= 3.10: they make a virtual
# environment of their own, and fill it again only when pyproject.toml has changed.

PYTHON ?= python3
VENV := .venv
VENV310 := .venv310
SAMPLE := examples/dual_encoder.sqlite.xz

BIN := $(VENV)/bin
PIP := -m pip --quiet --disable-pip-version-check install
# A checkout without the links of src/nitro (a zip, or Git with core.symlinks=false) cannot be installed editable.
PROJECT := $(if $(wildcard src/nitro/analyzer/__init__.py),--editable) '.[pdf]'

# What PDF output needs of the system, and what the tests of the reports look at them with.
PAPER := libpango-1.0-0 libpangoft2-1.0-0 fonts-noto-cjk
EYES := chromium poppler-utils

.DEFAULT_GOAL := help
.PHONY: help demo test test310 lint clean

help: ## Show what there is to make
	@sed -n 's/^\([a-z0-9]*\):.*## /\1\t/p' Makefile | expand -t 10

demo: $(VENV)/.installed paper ## Analyse the sample trace; write report.html and report.pdf
	@echo "$$ nitro-analyze $(SAMPLE) -o report.html -o report.pdf"
	@if $(HAS_PANGO); then $(BIN)/nitro-analyze $(SAMPLE) -o report.html -o report.pdf; \
	else $(BIN)/nitro-analyze $(SAMPLE) -o report.html; fi
	@echo
	@ls -l report.html report.pdf 2>/dev/null | sed 's/.* /written: /'

# Every step runs, so that one call shows all that is wrong; pytest comes last, and its closing line ends the output.
# System libraries come through apt where that is allowed; elsewhere one line says what is missing.
.PHONY: paper eyes
HAS_PANGO = PATH="$$PATH:/usr/sbin:/sbin" ldconfig -p 2>/dev/null | grep -q libpangoft2-1.0
HAS_KOREAN = fc-list :lang=ko 2>/dev/null | grep -q .
HAS_EYES = command -v pdftoppm >/dev/null && { command -v chromium || command -v chromium-browser; } >/dev/null
APT = if [ "$$(id -u)" = 0 ]; then root=; else root="sudo -n"; fi; export DEBIAN_FRONTEND=noninteractive; \
    command -v apt-get >/dev/null && $$root apt-get update -qq && $$root apt-get install -y -qq --no-install-recommends

paper:
	@{ $(HAS_PANGO) && $(HAS_KOREAN); } || { echo "Installing $(PAPER)"; ( $(APT) $(PAPER) ) >/dev/null 2>&1; } || \
	    echo "make: PDF output needs $(PAPER); run 'sudo apt-get install $(PAPER)'." >&2

eyes: paper
	@{ $(HAS_EYES); } || { echo "Installing $(EYES)"; ( $(APT) $(EYES) ) >/dev/null 2>&1; } || \
	    echo "make: without $(EYES) the tests that look at pages are skipped; run 'sudo apt-get install $(EYES)'." >&2

# A process a core, each taking tests from the others when it has none left.
PARALLEL := -n auto --dist worksteal

test: $(VENV)/.dev eyes ## Run everything that CI runs
	@failed=; \
	for step in "ruff check" mypy "lint-imports --no-logo"; do \
	    echo "== $$step"; $(BIN)/$$step || failed="$$failed [$$step]"; \
	done; \
	$(MAKE) --no-print-directory test310 || failed="$$failed [python3.10]"; \
	[ -z "$$failed" ] || echo "== FAILED so far:$$failed" >&2; \
	echo "== pytest"; $(BIN)/pytest $(PARALLEL) && [ -z "$$failed" ]

test310: ## Run the tests under Python 3.10 too, where there is one
	@if ! python3.10 -c 'import sys' >/dev/null 2>&1; then \
	    echo "== no working python3.10 here; the tests run under $$($(PYTHON) --version) only"; \
	elif $(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 10))'; then \
	    echo "== $(PYTHON) is Python 3.10 already"; \
	else \
	    $(MAKE) --no-print-directory $(VENV310)/.test && \
	    echo "== pytest under Python 3.10, without real traces" && \
	    env -u NITRO_TRACES $(VENV310)/bin/pytest $(PARALLEL) -p no:cacheprovider \
	        --ignore tests/test_packaging.py --ignore tests/test_docs.py --ignore tests/reports/test_html.py \
	        --ignore tests/reports/test_pdf.py --ignore tests/reports/test_timeline_browser.py; \
	fi

lint: $(VENV)/.dev ## Check style, types and the direction of imports
	@$(BIN)/ruff check
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

clean: ## Remove the virtual environments, caches and builds
	rm -rf $(VENV) $(VENV310) build dist
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/.installed: pyproject.toml | $(BIN)/pip
	@echo "Installing Nitro into $(VENV)"
	@$(BIN)/python $(PIP) $(PROJECT)
	@touch $@

# Dependency groups need pip 25.1.
$(VENV)/.dev: pyproject.toml | $(BIN)/pip
	@echo "Installing Nitro and what its tests need into $(VENV)"
	@$(BIN)/python $(PIP) --upgrade "pip>=25.1"
	@$(BIN)/python $(PIP) --group dev $(PROJECT)
	@touch $@ $(VENV)/.installed

$(VENV310)/.test: pyproject.toml
	@echo "Installing Nitro and what its tests need into $(VENV310)"
	@python3.10 -m venv $(VENV310)
	@$(VENV310)/bin/python $(PIP) --upgrade "pip>=25.1"
	@$(VENV310)/bin/python $(PIP) --group test $(PROJECT)
	@touch $@

# On Debian and Ubuntu the venv module has a package of its own.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo "make: Python 3.10 or newer is needed; install it, or name it with 'make PYTHON=python3.12 ...'." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    if [ "$$(id -u)" = 0 ]; then root=; else root="sudo -n"; fi; \
	    $$root apt-get update -qq && $$root apt-get install -y -qq python3-venv; \
	} >/dev/null 2>&1 || \
	    { echo "make: the venv module is missing; run 'sudo apt-get install python3-venv' and try again." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
