# Each target installs what it needs into .venv, once: a stamp stands for a finished installation, and only a later
# pyproject.toml makes it stale. `make clean` first to change the interpreter.

PYTHON ?= python3
VENV = .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --quiet --disable-pip-version-check

# So many processes run the tests: `make test WORKERS=0` is one that can be debugged. The tests of a file stay together
# until one process has nothing left to do.
WORKERS ?= 2
PROCESSES = --numprocesses $(WORKERS) --dist worksteal

# The requirement of PyTorch, which chooses a release or a build: `make test-torch TORCH=torch==2.13.0`.
TORCH ?= torch

figure1: $(VENV)/installed
	$(BIN)/python -m analysis.figure1 $(ARGS)

figure2: $(VENV)/installed
	$(BIN)/python -m analysis.figure2 $(ARGS)

transitions: $(VENV)/installed
	$(BIN)/python -m analysis.transitions $(ARGS)

spectral: $(VENV)/installed
	$(BIN)/python -m analysis.spectral $(ARGS)

constraints: $(VENV)/installed
	$(BIN)/python -m analysis.constraints $(ARGS)

frontier: $(VENV)/installed
	$(BIN)/python -m analysis.frontier $(ARGS)

# With image models they need PyTorch, and MNIST.
figure3 figure4 figure5: $(VENV)/installed$(if $(findstring --model,$(ARGS)),-images)
	$(BIN)/python -m analysis.$@ $(ARGS)

geco-theory: $(VENV)/installed
	$(BIN)/python -m analysis.geco_theory $(ARGS)

notebooks: $(VENV)/installed-notebooks
	$(BIN)/python -m analysis.notebooks $(ARGS)

test: $(VENV)/installed-test
	$(BIN)/python -m pytest $(PROCESSES) $(ARGS)

test-slow: $(VENV)/installed-test
	$(BIN)/python -m pytest $(PROCESSES) -m slow $(ARGS)

# What starts clusters of Dask, whose workers are killed.
test-cluster: $(VENV)/installed-test
	$(BIN)/python -m pytest -m "cluster and not slow" tests/data/test_cluster.py $(ARGS)

# What needs PyTorch; `make test` skips it where there is none.
test-torch: $(VENV)/installed-torch
	$(BIN)/python -m pytest -q -m docstrings tests/test_docstrings.py -k image_models
	$(BIN)/python -m analysis.notebooks 06_image_models
	$(BIN)/python -m pytest $(PROCESSES) $(ARGS) constrained_vae/image_models tests/image_models \
		$(wildcard tests/analysis/test_image*.py tests/cli/test_image*.py) tests/docs/test_examples.py \
		tests/_utils/test_tensors.py

# Pages in Chromium, and the explorer in JupyterLab and Notebook.
test-browser: $(VENV)/installed-browser
	$(BIN)/python -m pytest -m browser $(ARGS) tests/exploring

# Small changes of the code, each of which some test should notice; what was run before is not run again.
mutants: $(VENV)/installed-test
	$(PIP) install --quiet pytest-cov
	$(BIN)/python -m tests.mutants $(ARGS)

bench: $(VENV)/installed-bench
	$(BIN)/python -m analysis.benchmarks.map $(ARGS)

cluster: $(VENV)/installed-test
	$(BIN)/python -m analysis.benchmarks.cluster $(ARGS)

# Needs Chromium.
screenshots: $(VENV)/installed
	$(BIN)/python -m docs.screenshots

docs: $(VENV)/installed-docs
	$(BIN)/python -m docs.site build/site

check: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q -m docstrings tests/test_docstrings.py

clean:
	rm -rf $(VENV) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

PYTHON_IS_NEW_ENOUGH = $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	echo "Python 3.11 or newer is needed and '$(PYTHON)' is not one: name it with make PYTHON=..." >&2; exit 1; }

$(VENV)/installed: pyproject.toml
	@$(PYTHON_IS_NEW_ENOUGH)
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --editable .
	@touch $@

# An extra brings the runtime dependencies too, and that of the tests the notebooks', hence several stamps.
$(VENV)/installed-test: pyproject.toml
	@$(PYTHON_IS_NEW_ENOUGH)
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --editable '.[test]'
	@touch $(VENV)/installed $(VENV)/installed-notebooks $@

$(VENV)/installed-torch: pyproject.toml
	@$(PYTHON_IS_NEW_ENOUGH)
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --editable '.[test-torch]' '$(TORCH)'
	@touch $(VENV)/installed $(VENV)/installed-notebooks $(VENV)/installed-test $@

$(VENV)/installed-browser: pyproject.toml
	@$(PYTHON_IS_NEW_ENOUGH)
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --editable '.[test-browser]'
	@touch $(VENV)/installed $(VENV)/installed-notebooks $(VENV)/installed-test $@

$(VENV)/installed-notebooks: pyproject.toml
	@$(PYTHON_IS_NEW_ENOUGH)
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --editable '.[notebooks]'
	@touch $(VENV)/installed $@

$(VENV)/installed-images: pyproject.toml
	@$(PYTHON_IS_NEW_ENOUGH)
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --editable '.[data,torch]' '$(TORCH)'
	@touch $(VENV)/installed $@

$(VENV)/installed-bench: pyproject.toml
	@$(PYTHON_IS_NEW_ENOUGH)
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --editable '.[bench]'
	@touch $(VENV)/installed $@

$(VENV)/installed-docs: pyproject.toml
	@$(PYTHON_IS_NEW_ENOUGH)
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --editable '.[docs]'
	@touch $(VENV)/installed $@

# Two installations into one environment must not run side by side.
.NOTPARALLEL:
.PHONY: figure1 figure2 figure3 figure4 figure5 transitions spectral constraints frontier geco-theory test test-slow
.PHONY: test-browser test-cluster test-torch mutants notebooks bench cluster docs screenshots check clean
