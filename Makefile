# Each target sets up what it needs in .venv; run again, it starts at once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(shell command -v uv 2>/dev/null || echo $(BIN)/uv)
EXTENSION_SOURCES := pyproject.toml Cargo.toml Cargo.lock $(shell find rust -name '*.rs' -o -name 'Cargo.toml')
INSTALL = VIRTUAL_ENV=$(abspath $(VENV)) $(UV) pip install --quiet

.PHONY: demo test slow check lint format typecheck bench clean toolchain

demo: $(VENV)/.installed ## race the schedules of the suite `quick` and print the table
	$(BIN)/batchramp run

test: $(VENV)/.developing ## the tests, Rust and Python, but for the slow ones
	cargo test --quiet --workspace --locked
	$(BIN)/python -m pytest -m "not slow"

slow: $(VENV)/.developing ## the slow tests, as of real trainings that are killed and go on
	$(BIN)/python -m pytest -m slow

check: lint typecheck ## what a contributor runs before a commit, beside the tests

lint: $(VENV)/.developing
	cargo fmt --all --check
	cargo clippy --quiet --workspace --all-targets --locked -- -D warnings
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: $(VENV)/.developing
	cargo fmt --all
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

typecheck: $(VENV)/.developing
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest batchramp._rust

bench: $(VENV)/.developing ## ours beside the peers', in one process
	$(BIN)/python -m pytest benches --benchmark-enable --benchmark-only

clean:
	rm -rf $(VENV) target python/batchramp/*.so

toolchain:
	@command -v cargo >/dev/null || { echo "batchramp builds a Rust extension: install Rust from https://rustup.rs, then run make again." >&2; exit 1; }
	@command -v cc >/dev/null || { echo "Rust needs a C linker: install a C compiler (Debian: apt install build-essential; macOS: xcode-select --install), then run make again." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "batchramp needs Python 3.11 or later: install it, or name it with make PYTHON=python3.12." >&2; exit 1; }

$(BIN)/python: | toolchain
	@$(PYTHON) -m venv $(VENV) || { echo "Python cannot create a virtual environment: install its venv module (Debian: apt install python3-venv)." >&2; rm -rf $(VENV); exit 1; }
	@command -v uv >/dev/null || $(BIN)/python -m pip install --quiet uv

$(VENV)/.installed: $(EXTENSION_SOURCES) | $(BIN)/python
	@echo "Building the extension and installing torch (some minutes the first time) ..."
	@$(INSTALL) --editable '.[torch,pytest]'
	@touch $@

$(VENV)/.developing: $(VENV)/.installed
	@echo "Installing the development tools, and the trainers that the sampler is tested in ..."
	@$(INSTALL) --group dev --group trainers
	@touch $@
