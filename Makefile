# Every target does its own set-up, from nothing but Python 3.11 or newer.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
PIP = -m pip install --quiet --disable-pip-version-check
WORKERS ?= 2

# Compiling is most of the tests' time, and theirs are programs of a second, so machine code is not
# optimised. XLA's own passes are as usual; `make test-slow` optimises.
QUICK_COMPILES = XLA_FLAGS="--xla_backend_optimization_level=0 $$XLA_FLAGS"

.PHONY: quickstart test test-slow test-docs docs test-kernels lint types format parity parity5 parity4 \
	aot plans bench bench-kernels bench-retrieval bench-serve \
	device wheels goldens record clean

quickstart: .venv/installed
	.venv/bin/modernbert-jax quickstart

test: .venv/test lint
	$(QUICK_COMPILES) .venv/bin/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

# What takes minutes; some of it only where MODERNBERT_JAX_CORPUS names a folder with text.
test-slow: .venv/test
	.venv/bin/python -m pytest -m slow --ignore tests/docs

lint: .venv/test
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	$(MAKE) types

# Every example of README and docs, from its text, where the package is installed and not checked out.
test-docs: .venv/docs
	$(QUICK_COMPILES) .venv/bin/python -m pytest -m slow tests/docs --durations=10

# The site in build/site, strict about broken links, and the spelling. Only the installation needs a
# network.
docs: .venv/docs
	.venv/bin/python -m codespell_lib *.md *.cff docs modernbert_jax convert train configs tests/docs
	JAX_PLATFORMS=cpu .venv/bin/python docs/generator/make_site.py

# The folders are checked where they are installed: below modernbert_jax/.
types: .venv/test
	rm -rf build/types && mkdir -p build/types/modernbert_jax
	ln -s $(addprefix $(CURDIR)/,$(wildcard modernbert_jax/*) convert train configs) build/types/modernbert_jax
	cd build/types && ../../.venv/bin/python -m mypy --config-file ../../pyproject.toml \
		--cache-dir ../types-cache -p modernbert_jax

format: .venv/test
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

# Live comparison with PyTorch in two environments: transformers 5 (with 4 in a folder beside it)
# and sentence-transformers 6; transformers 4, sentence-transformers 5 and PyLate.
parity: parity5 parity4

parity5: .venv-parity/installed
	MODERNBERT_JAX_PARITY=1 TRANSFORMERS4=.venv-parity/transformers4 \
	.venv-parity/bin/python -m pytest tests/parity --durations=5

parity4: .venv-parity4/installed
	MODERNBERT_JAX_PARITY=1 .venv-parity4/bin/python -m pytest tests/parity --durations=5

# The TPU kernels in an interpreter that looks for races and for reads of unwritten memory.
test-kernels: .venv/test
	MODERNBERT_JAX_KERNELS=1 JAX_PLATFORMS=cpu .venv/bin/python -m pytest tests/kernels --durations=5

# Compiles for TPU and GPU with neither attached.
aot: .venv-aot/installed
	MODERNBERT_JAX_AOT=1 TOKAMAX=$(CURDIR)/.venv-aot/tokamax \
	.venv-aot/bin/python -m pytest tests/aot -n $(WORKERS) --dist load

# Plans of the presets on usual machines, for docs/results/plans.md: an hour or two. Plans that are stored in
# tests/fixtures/plans.json are not compiled again.
plans: .venv-aot/installed
	.venv-aot/bin/python -m modernbert_jax.train.plan.tables

# Speed beside the usual way, in one run: make bench ARGS="--input 'text/*.jsonl'", or some suites of
# it: make bench SUITES=embed. It wants a machine that does nothing else.
SUITES ?= data encode embed train
bench: .venv-parity/bench
	.venv-parity/bin/modernbert-jax bench $(SUITES) $(ARGS)

# Training for retrieval beside sentence-transformers, on data sets made of text; it resumes:
# make bench-retrieval TEXT=FOLDER MODEL=run/export, where FOLDER has corpus/science.jsonl.zst,
# corpus/code.jsonl.zst and retrieval/boolq. ARGS adds options of `bench retrieval`.
BENCH ?= retrieval-bench
bench-retrieval: .venv-parity/bench $(BENCH)-data/science $(BENCH)-data/code $(BENCH)-data/boolq
	.venv-parity/bin/modernbert-jax bench retrieval --data $(wordlist 2,4,$^) --model $(MODEL) \
		--output $(BENCH) --json $(BENCH).json $(ARGS)

MAKE_DATA = .venv-parity/bin/modernbert-jax bench retrieval-data
$(BENCH)-data/science: | .venv-parity/bench
	$(MAKE_DATA) titles --input $(TEXT)/corpus/science.jsonl.zst --output $@
$(BENCH)-data/code: | .venv-parity/bench
	$(MAKE_DATA) functions --input $(TEXT)/corpus/code.jsonl.zst --output $@
$(BENCH)-data/boolq: | .venv-parity/bench
	$(MAKE_DATA) questions --input $(TEXT)/retrieval/boolq --output $@

# The server under load beside other servers, one after another: make bench-serve MODEL=DIR.
# INFINITY names a folder with the program infinity_emb, if it is installed in another environment.
bench-serve: .venv-parity/bench
	PATH="$$PATH$(addprefix :,$(INFINITY))" .venv-parity/bin/modernbert-jax bench serve \
		--model $(MODEL) $(ARGS)

# Times attention on the device at hand: make bench-kernels ARGS="--output tuning.json"
bench-kernels: .venv/installed
	.venv/bin/modernbert-jax bench kernels $(ARGS)

# Everything that the device at hand can tell: make device ARGS="--minutes 5". Where Python has jax,
# nothing is installed and no network is needed.
device:
	$(PYTHON) -c 'import jax, flax, optax' 2>/dev/null || $(MAKE) .venv/installed
	PYTHONPATH=$(CURDIR) $$($(PYTHON) -c 'import jax, flax, optax' 2>/dev/null && \
		echo $(PYTHON) || echo .venv/bin/python) -m modernbert_jax.train.bench.device $(ARGS)

# What a machine without network lacks for it: make wheels ARGS="--python 3.12 --output wheels"
wheels: .venv/installed
	.venv/bin/python -m modernbert_jax.train.bench.device.wheels $(ARGS)

# Makes the golden files of the tests again, from the real library.
goldens: .venv-parity/installed
	.venv-parity/bin/python tests/goldens/make.py
	.venv-parity/bin/python tests/goldens/make_models.py
	.venv-parity/bin/python tests/goldens/make_torch.py
	.venv-parity/bin/python tests/goldens/make_retrieval.py

# Records what the program computes on this machine, bit for bit: make record OUTPUT=before, and with
# another tree's PROGRAM=../other/.venv/bin/modernbert-jax OUTPUT=after. Then compare the two:
# .venv/bin/python tests/recordings/record.py compare before after
PROGRAM ?= .venv/bin/modernbert-jax
OUTPUT ?= recording
record: .venv/test
	.venv/bin/python tests/recordings/record.py --program $(PROGRAM) --output $(OUTPUT)

clean:
	rm -rf .venv .venv-* build *.egg-info .hypothesis .pytest_cache .ruff_cache

.venv/installed: pyproject.toml
	$(if $(PYTHON),,$(error no Python 3.11 or newer found; pass PYTHON=/path/to/python))
	$(PYTHON) -m venv .venv
	.venv/bin/python $(PIP) -e .
	touch $@

.venv/test: .venv/installed
	.venv/bin/python $(PIP) -e '.[test]'
	touch $@

.venv/docs: .venv/test
	.venv/bin/python $(PIP) -e '.[docs]'
	touch $@

.venv-parity/installed: pyproject.toml
	$(if $(PYTHON),,$(error no Python 3.11 or newer found; pass PYTHON=/path/to/python))
	$(PYTHON) -m venv .venv-parity
	.venv-parity/bin/python $(PIP) torch==2.13.0
	.venv-parity/bin/python $(PIP) -e '.[test]' transformers==5.23.0 sentence-transformers==6.2.0 \
		peft==0.21.2 mteb==2.26.24 openai
	.venv-parity/bin/python $(PIP) --target .venv-parity/transformers4 --upgrade transformers==4.56.2
	touch $@

.venv-parity/bench: .venv-parity/installed
	.venv-parity/bin/python $(PIP) datasets==5.2.0 numba accelerate bm25s
	touch $@

# PyLate without its dependencies: its index, which is not used, wants another torch.
.venv-parity4/installed: pyproject.toml
	$(if $(PYTHON),,$(error no Python 3.11 or newer found; pass PYTHON=/path/to/python))
	$(PYTHON) -m venv .venv-parity4
	.venv-parity4/bin/python $(PIP) torch==2.13.0
	.venv-parity4/bin/python $(PIP) -e '.[test]' transformers==4.56.2 \
		sentence-transformers==5.1.1 accelerate datasets pandas
	.venv-parity4/bin/python $(PIP) --no-deps pylate==1.4.0
	touch $@

# tokamax, whose splash is counted beside ours, wants a typeguard that tyro does not.
.venv-aot/installed: pyproject.toml
	$(if $(PYTHON),,$(error no Python 3.11 or newer found; pass PYTHON=/path/to/python))
	$(PYTHON) -m venv .venv-aot
	.venv-aot/bin/python $(PIP) -e '.[test,tpu]' \
		jax-cuda12-plugin jax-cuda12-pjrt nvidia-cuda-nvcc-cu12 \
		einshape immutabledict jaxtyping pydantic
	.venv-aot/bin/python $(PIP) --target .venv-aot/tokamax --no-deps \
		tokamax==0.0.12 qwix==0.1.8 typeguard==2.13.3
	touch $@
