# Every target does its own set-up, from nothing but Python 3.11 or newer.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
PIP = -m pip install --quiet --disable-pip-version-check
WORKERS ?= 2

.PHONY: quickstart test lint format parity aot bench goldens clean

quickstart: .venv/installed
	.venv/bin/modernbert-jax quickstart

test: .venv/test lint
	.venv/bin/python -m pytest -n $(WORKERS) --dist loadfile

lint: .venv/test
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

format: .venv/test
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

# Live comparison with PyTorch: transformers 5 in the environment, 4 in a folder beside it.
parity: .venv-parity/installed
	MODERNBERT_JAX_PARITY=1 TRANSFORMERS4=.venv-parity/transformers4 \
	.venv-parity/bin/python -m pytest tests/parity --durations=5

# Compiles for TPU and GPU with neither attached.
aot: .venv-aot/installed
	MODERNBERT_JAX_AOT=1 .venv-aot/bin/python -m pytest tests/aot -n $(WORKERS) --dist load

# Speed beside the usual way, in one run; wants a machine that does nothing else.
bench: .venv-parity/installed
	.venv-parity/bin/modernbert-jax bench encode $(ARGS)

# Makes the golden files of the tests again, from the real library.
goldens: .venv-parity/installed
	.venv-parity/bin/python tests/goldens/make.py

clean:
	rm -rf .venv .venv-* build *.egg-info .pytest_cache .ruff_cache

.venv/installed: pyproject.toml
	$(if $(PYTHON),,$(error no Python 3.11 or newer found; pass PYTHON=/path/to/python))
	$(PYTHON) -m venv .venv
	.venv/bin/python $(PIP) -e .
	touch $@

.venv/test: .venv/installed
	.venv/bin/python $(PIP) -e '.[test]'
	touch $@

.venv-parity/installed: pyproject.toml
	$(if $(PYTHON),,$(error no Python 3.11 or newer found; pass PYTHON=/path/to/python))
	$(PYTHON) -m venv .venv-parity
	.venv-parity/bin/python $(PIP) torch==2.13.0
	.venv-parity/bin/python $(PIP) -e '.[test]' transformers==5.23.0
	.venv-parity/bin/python $(PIP) --target .venv-parity/transformers4 --upgrade transformers==4.56.2
	touch $@

.venv-aot/installed: pyproject.toml
	$(if $(PYTHON),,$(error no Python 3.11 or newer found; pass PYTHON=/path/to/python))
	$(PYTHON) -m venv .venv-aot
	.venv-aot/bin/python $(PIP) -e '.[test,tpu]' \
		jax-cuda12-plugin jax-cuda12-pjrt nvidia-cuda-nvcc-cu12
	touch $@
