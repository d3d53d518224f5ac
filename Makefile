# Two commands do everything on a fresh machine with Python >= 3.11, make and a package registry:
#   make demo    set up, then search, train and compare on the handwritten digits; writes runs/demo/report.html
#   make test    set up, then run the tests
#   make docs    build the documentation site into site/, in an environment of its own
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DOCS := .venv-docs

.PHONY: demo test test-kernels test-oldest lint docs setup dist clean help

help:
	@sed -n '1,4p' Makefile

setup: $(READY)

$(READY): setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "image2video needs Python 3.11 or newer, but '$(PYTHON)' is $$($(PYTHON) --version 2>&1); try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[all]'
	@touch $(READY)

demo: $(READY)
	$(BIN)/image2video demo --tune-epochs 0 --finetune-epochs 1 --fixed-candidates 32 --out runs/demo --overwrite

# One thread for each of two worker processes: torch's own threads would compete for the same cores.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

# The numeric part on the plainest kernels: a last bit that differs between processors must decide nothing. Compilers and
# exporters take minutes and compute nothing of their own; texts, records, files and what is refused have no kernels.
NO_NUMBERS := test_genotype* test_hub* test_presets* test_options* test_fusion_config* test_rf_errors* test_rf_figures* \
	test_clip_state* test_pretrained* test_saved_earlier* test_words_at_the_door* test_timm_like* test_methods* \
	test_wrap_options* test_paths* test_keywords*
test-kernels: $(READY)
	ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -q \
		-k "not compile and not export and not onnx" $(patsubst %,--ignore-glob='*/%',$(NO_NUMBERS)) \
		tests/clip tests/fusion tests/receptive_field tests/wrap

# The least versions that setup.cfg allows, in an environment of their own: the core, and what exports. Minutes to install.
# Old libraries beside new ones of others warn of each other, which is no fault of ours.
OLDEST := build/oldest
test-oldest:
	test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --constraint constraints/oldest.txt --editable '.[export,dev]'
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest -n 2 --dist worksteal -q -W ignore::DeprecationWarning \
		tests/clip tests/fusion tests/inject tests/wrap tests/trace tests/export tests/cli/test_cli_export.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site is made from the sources: it needs neither torch nor the package. Broken links are errors (strict in mkdocs.yml).
docs: $(DOCS)/.ready
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --quiet
	@echo "the site is in site/index.html"

$(DOCS)/.ready: docs/requirements.txt
	test -x $(DOCS)/bin/python || $(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet -r docs/requirements.txt
	@touch $@

# What a release uploads, built in an environment of its own from the sources alone, and looked at.
dist: $(READY)
	rm -rf dist
	$(BIN)/python -m build
	$(PYTHON) -m venv build/twine && build/twine/bin/python -m pip install --quiet twine
	build/twine/bin/twine check --strict dist/*

clean:
	rm -rf site build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
