# Needs python3 (3.11 or newer) and make. Everything is installed into .venv, once, and again when pyproject.toml changes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := -m pip install --quiet --disable-pip-version-check
# What a run of pytest is given on top of pyproject.toml: make test PYTEST='-k tanh -x'
PYTEST ?=
STUDY ?=
# Where the Fashion-MNIST example finds its data.
FASHION_MNIST ?= /usr/share/datasets/fashion-mnist
# What a sweep is given: make bench BENCH='--minutes 40 --cores 1'
BENCH ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test examples bench bench-quick bench-prepare bench-report gradcheck-study lint types docs wheel-test clean

help: ## Show this list
	@awk -F ': .*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.demo ## Train on real data and print what comes of it
	@$(BIN)/python -m matbackprop demo

test: $(VENV)/.test ## Run every test and every example in a docstring; against torch and scikit-learn too
	MATBACKPROP_REQUIRE=torch,sklearn $(BIN)/python -m pytest $(PYTEST)

examples: $(VENV)/.examples ## Run every script in docs/examples; Fashion-MNIST only where its data are
	@set -e; for script in $(filter-out %/fashion_mnist.py,$(wildcard docs/examples/*.py)); do \
	  echo "-- $$script"; $(BIN)/python $$script; done
	@echo "-- docs/examples/fashion_mnist.py"; if [ -d "$(FASHION_MNIST)" ]; then \
	  $(BIN)/python docs/examples/fashion_mnist.py "$(FASHION_MNIST)"; else \
	  echo "left out: there is no folder $(FASHION_MNIST); FASHION_MNIST=FOLDER names another one"; fi

bench: $(VENV)/.bench ## Time every cell against every peer (25 minutes; the machine should be quiet)
	$(BIN)/python -m benchmarks.sweep $(BENCH)

bench-quick: $(VENV)/.bench ## Time a few cells (2 minutes)
	$(BIN)/python -m benchmarks.sweep --quick $(BENCH)

bench-prepare: $(VENV)/.bench ## Compile once what torch.compile will find in its cache (as long as it takes)
	$(BIN)/python -m benchmarks.sweep --prepare-only --peers torch.compile $(BENCH)

bench-report: $(VENV)/.bench ## Draw the last full run and write docs/benchmark.md
	$(BIN)/python -m benchmarks.plot
	$(BIN)/python -m benchmarks.report

gradcheck-study: $(VENV)/.bench ## Measure what the gradient checker sees, and its false alarms (hours; STUDY=--quick: minutes)
	$(BIN)/python benchmarks/gradcheck_study.py $(STUDY)

lint: $(VENV)/.dev ## Check style, format and the repository itself
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/repo-review .

types: $(VENV)/.dev ## Check the types of the package
	$(BIN)/mypy

docs: $(VENV)/.docs ## Build the site into docs/_build/html: every cell run, every warning an error, no network
	rm -rf docs/_build docs/reference/generated
	$(BIN)/python -m sphinx -q -n -W --keep-going -j 2 -d docs/_build/doctrees docs docs/_build/html
	@echo "Built $$(find docs/_build/html -name '*.html' | wc -l) pages: docs/_build/html/index.html"

# The sdist, the wheel out of it, and the tests against that wheel: in a venv of its own, without torch, and from a
# directory that does not see the checkout.
wheel-test: $(VENV)/.dev ## Build the wheel and run the tests against it
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	@if $(BIN)/python -m zipfile --list dist/*.whl | grep -E '(^| |/)(tests?|conftest)[/_.]'; then \
	  echo 'the wheel holds tests' >&2; exit 1; fi
	set -eu; away=$$(mktemp -d); trap 'rm -rf "$$away"' EXIT; \
	$(PYTHON) -m venv "$$away/venv"; \
	"$$away/venv/bin/python" $(INSTALL) "$$(echo "$$PWD"/dist/*.whl)[test]"; \
	mkdir "$$away/run"; cp -R benchmarks conftest.py pyproject.toml tests "$$away/run"; cd "$$away/run"; \
	"$$away/venv/bin/python" -c 'import matbackprop as m; print(m.__file__); assert "site-packages" in m.__file__'; \
	"$$away/venv/bin/python" -m pytest $(PYTEST) --pyargs tests matbackprop

clean: ## Remove .venv and whatever was built or cached
	rm -rf $(VENV) build dist docs/_build docs/reference/api.rst docs/reference/generated .mypy_cache .nox .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.made:
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.demo: $(VENV)/.made pyproject.toml
	$(BIN)/python $(INSTALL) --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.made pyproject.toml
	$(BIN)/python $(INSTALL) --editable '.[test,torch,sklearn]'
	@touch $@

$(VENV)/.examples: $(VENV)/.made pyproject.toml
	$(BIN)/python $(INSTALL) --editable '.[io,progress,sklearn]'
	@touch $@

$(VENV)/.bench: $(VENV)/.made pyproject.toml
	$(BIN)/python $(INSTALL) --editable '.[bench]'
	@touch $@

$(VENV)/.docs: $(VENV)/.made pyproject.toml
	$(BIN)/python $(INSTALL) --editable '.[docs]'
	@touch $@

# --group came with pip 25.1.
$(VENV)/.dev: $(VENV)/.made pyproject.toml
	$(BIN)/python $(INSTALL) --upgrade 'pip>=25.1'
	$(BIN)/python $(INSTALL) --editable . --group dev
	@touch $@
