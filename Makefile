# make demo runs the main job, make test every test, make check the checks before a commit.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip --disable-pip-version-check -q

.PHONY: demo test check reference lock

demo: .venv/precept
	$(BIN)/precept run harbour

test: .venv/precept
	$(BIN)/python -m pytest -m "not slow" -n auto --cov --cov-report=
	$(BIN)/python -m pytest -m slow -n 2 --dist loadfile --cov --cov-append --cov-report=term-missing:skip-covered

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
LOCK := uv pip compile pyproject.toml infra/lock/build.in --extra dev --python-version 3.11 \
	--python-platform x86_64-unknown-linux-gnu --generate-hashes --no-header --no-annotate \
	--no-emit-index-url -q

lock:
	$(LOCK) --extra cpu --override infra/lock/cpu-override.txt --no-emit-package torch \
		-o infra/lock/cpu.txt
	$(LOCK) --extra gpu -o infra/lock/gpu.txt
