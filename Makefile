# Every target sets up what it needs, in .venv of this clone, and is quick the second time.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

# Two processes share the tests, file by file. "TESTS=" alone runs them in one.
TESTS ?= -n 2 --dist loadfile --max-worker-restart 0

.PHONY: demo test test-fast test-tensorrt lint format peers bench clean

demo: $(VENV)/.installed
	$(BIN)/stream-cam demo --overwrite

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(TESTS)

# Without browsers, RTSP servers, whole commands and real engine builds.
test-fast: $(VENV)/.dev
	$(BIN)/python -m pytest $(TESTS) -m "not slow"

# Torch-tensorrt wants an older PyTorch, hence its own environment: 6 GB, no GPU needed.
test-tensorrt: $(VENV)-tensorrt/.installed
	$(VENV)-tensorrt/bin/python -m pytest tests/engine/test_tensorrt_conversion.py

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.peers
	$(BIN)/python scripts/bench_peers.py

peers: $(VENV)/.peers

$(VENV)/.installed: pyproject.toml scripts/ensure_cv2.py
	@echo "setting up $(VENV): the first time takes some minutes (PyTorch is large)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -e .
	$(BIN)/python scripts/ensure_cv2.py
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(PIP) install -e ".[dev]"
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

clean:
	rm -rf $(VENV) $(VENV)-tensorrt demo.mp4 demo.png
