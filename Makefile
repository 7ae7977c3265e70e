# `make demo` and `make test` need only a clone and python3 (3.11 or newer).
PYTHON ?= python3

# The environment is rebuilt only when one of these files changes.
INSTALLED = .venv/.installed
# timm imports torchvision. Its compiled part does not fit torch for CPUs, so both are in a separate environment (tests/foreign).
FOREIGN = .venv-timm/.installed
TIMM = timm==1.0.31 torchvision==0.28.0

.PHONY: help install triton demo test proofs mutants bench evidence evidence-full lint clean

help:
	@echo "make demo      find, train, test and export a network for the digits that ship with the package"
	@echo "make test      run all tests except those of make proofs, including style, types and import directions"
	@echo "make proofs    run the tests that take long and seldom fail, check prices for 1,000 random genotypes per space instead of 30, and count timm's networks"
	@echo "make faults    kill runs, fill disks, flip bits, send signals, and print a table of failures (about two hours)"
	@echo "make mutants   break one line at a time and check that a test fails (about ten minutes)"
	@echo "make bench     measure the speed of the batched and plain supernets, the data pipeline and the command line"
	@echo "make evidence  compare searches with chance: run the missing searches, and write docs/evidence.md"
	@echo "make evidence-full  also compare rapdarts find with random cells at equal compute, and the relaxations (many hours)"
	@echo "make lint      check only style, types and import directions"
	@echo "make clean     remove generated files, except .venv, .venv-timm and runs other than runs/demo"

install: $(INSTALLED)

$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $(INSTALLED)

# Triton's interpreter runs the GPU kernels on a CPU. CUDA builds of torch bring their own version of Triton, which is kept.
triton: $(INSTALLED)
	.venv/bin/python -c "import triton" 2>/dev/null || .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt triton==3.9.0

demo: $(INSTALLED)
	rm -rf runs/demo
	.venv/bin/rapdarts find digits budget.params=100k effort=0.4 replicas=2 run=runs/demo

# Includes `make lint` (through tests/whole/test_house.py). Each process runs whole files, so that shared fixtures are created once.
test: $(INSTALLED)
	.venv/bin/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

$(FOREIGN): setup.cfg pyproject.toml constraints.txt Makefile
	$(PYTHON) -m venv .venv-timm
	.venv-timm/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e . huggingface_hub pytest
	.venv-timm/bin/python -m pip install --quiet --disable-pip-version-check --no-deps $(TIMM)
	touch $(FOREIGN)

# Expected cost = counted cost, peak memory = simulated peak, and every budget is met. `make test` checks this on a smaller sample.
# Counting timm's networks takes two minutes. Faults are planted in each kernel, in Triton's interpreter.
proofs: $(INSTALLED) $(FOREIGN) triton
	.venv/bin/python -m pytest --numprocesses 2 -m proof
	RAPDARTS_PROOFS=1000 .venv/bin/python -m pytest -s tests/cost/test_expected.py tests/cost/test_peak_memory.py tests/strategy/test_exact.py
	.venv-timm/bin/python -m pytest -p no:cacheprovider tests/foreign

# Example: `make faults FAULTS="saves kills --scale 0.1"`. `--keep` writes the results into docs/reliability.md.
faults: $(INSTALLED)
	.venv/bin/python -m tests.faults $(FAULTS)

# Each of more than 100 faults must make a test fail. `make mutants MUTANTS="alpha clip"` runs only those with one of these words.
mutants: $(INSTALLED)
	.venv/bin/python -m tests.mutants $(MUTANTS)

# Example: `make bench BENCH="search --cases darts-1 --json figures.json"`. BENCH=--help lists parts and options.
bench: $(INSTALLED)
	.venv/bin/python -m tests.benchmarks $(BENCH)

# Example: `make evidence EVIDENCE="--jobs 2"`. --again repeats existing searches. CIFAR-10 is read from RAPDARTS_DATA or downloaded.
evidence: $(INSTALLED)
	.venv/bin/python -m tests.evidence $(EVIDENCE)

# What `make evidence` leaves out: `rapdarts find` against random cells, relaxations, multipliers (many hours; can be stopped and resumed).
evidence-full: $(INSTALLED)
	.venv/bin/python -m tests.evidence full $(EVIDENCE)

lint: $(INSTALLED)
	.venv/bin/python -m ruff check .
	.venv/bin/python -m mypy
	.venv/bin/lint-imports

clean:
	rm -rf build dist rapdarts.egg-info runs/demo .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .grimp_cache
	find rapdarts search_spaces tests -name __pycache__ -type d -prune -exec rm -rf {} +
