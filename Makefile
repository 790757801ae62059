# Every target sets up what it needs, in .venv of this clone, and is quick the second time.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

# Two processes share the tests, file by file. "TESTS=" alone runs them in one.
TESTS ?= -n 2 --dist loadfile --max-worker-restart 0

.PHONY: help demo test test-fast test-tensorrt lint format docs peers bench clean

demo: $(VENV)/.installed  ## ten seconds of drawn shapes, explained: demo.mp4, demo.png, figures
	$(BIN)/stream-cam demo --overwrite

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

test: $(VENV)/.dev  ## all tests, in two processes
	$(BIN)/python -m pytest $(TESTS)

test-fast: $(VENV)/.dev  ## the tests without browsers, servers, whole commands and engine builds
	$(BIN)/python -m pytest $(TESTS) -m "not slow"

# Torch-tensorrt wants an older PyTorch, hence its own environment: 6 GB, no GPU needed.
test-tensorrt: $(VENV)-tensorrt/.installed  ## networks into TensorRT's builder, without a GPU
	$(VENV)-tensorrt/bin/python -m pytest tests/engine/test_tensorrt_conversion.py

lint: $(VENV)/.dev  ## ruff (check and format) and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev  ## mends whatever ruff can mend by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.docs  ## the documentation as a site: site/index.html; a dead link is an error
	$(BIN)/zensical build --clean --strict

bench: $(VENV)/.peers  ## stream-cam beside torch-cam and pytorch-grad-cam
	$(BIN)/python scripts/bench_peers.py

peers: $(VENV)/.peers  ## installs torch-cam and pytorch-grad-cam

$(VENV)/.installed: pyproject.toml scripts/ensure_cv2.py
	@echo "setting up $(VENV): the first time takes some minutes (PyTorch is large)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -e .
	$(BIN)/python scripts/ensure_cv2.py
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(PIP) install -e ".[dev]"
	@touch $@

$(VENV)/.docs: $(VENV)/.installed
	$(PIP) install -e ".[docs]"
	@touch $@

# grad-cam asks for opencv-python-headless, which would overwrite opencv-python's files (both own the
# folder cv2), so it comes without its dependencies, and they come by name.
$(VENV)/.peers: $(VENV)/.dev
	$(PIP) install torchcam ttach tqdm matplotlib scikit-learn scipy
	$(PIP) install --no-deps grad-cam
	@touch $@

$(VENV)-tensorrt/.installed: pyproject.toml
	@test -x $(VENV)-tensorrt/bin/python || $(PYTHON) -m venv $(VENV)-tensorrt
	$(VENV)-tensorrt/bin/python -m pip --disable-pip-version-check -q install -e ".[tensorrt-rtx]" "pytest>=9" pytest-timeout
	@touch $@

clean:  ## removes the environments, the site and the demo's files
	rm -rf $(VENV) $(VENV)-tensorrt site .cache demo.mp4 demo.png
