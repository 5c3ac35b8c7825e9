# make lab    JupyterLab with the course            make test       what is checked before a change is merged
# make help   the other commands                    PYTHON=python3.12 make lab    another Python

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
STAGES := setup style types unit notebooks browser
MORE := twice pages peers
PYTEST := $(BIN)/python -m pytest --quiet -p no:cacheprovider
WORKERS := OMP_NUM_THREADS=1 $(PYTEST) -n 2
# The cells of a notebook share a kernel, so they stay in one worker. What takes longest starts first.
NBVAL := --dist loadscope --no-loadscope-reorder -p tests.notebooks.close_numbers
NBVAL += --nbval --nbval-current-env --nbval-cell-timeout 300
KERNELS := tests/notebooks/test_solutions_in_a_kernel.py
PEERS := build/peers/ready
# A machine without a screen gets the address of the page instead of a page.
SCREEN := $(or $(DISPLAY),$(WAYLAND_DISPLAY),$(filter Darwin,$(shell uname -s)))
LAB := $(if $(SCREEN),,--no-browser) $(if $(filter 0,$(shell id -u)),--allow-root)

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYDEVD_DISABLE_FILE_VALIDATION := 1
# Threads that spin while they wait slow down everything else on a small machine.
export OMP_WAIT_POLICY := PASSIVE
# What is compiled once is read by the hundred processes of the tests, also where Python is told to write nothing.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help lab test test-all chapters bench gpu clean $(STAGES) $(MORE)

# Run stages one after the other, also after one that fails, and end with the time of each.
define run_stages
table=""; for stage in $(1); do \
  printf '\n== %s\n' $$stage; start=$$(date +%s); \
  if $(MAKE) --no-print-directory $$stage; then result=passed; else result=FAILED; failed=1; fi; \
  table="$$table$$(printf '%-10s %s %5d s' $$stage $$result $$(($$(date +%s) - start)))\n"; \
  [ $$stage$$failed != setup1 ] || break; \
done; printf "\n$$table"; exit $$failed
endef

help: ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1	\2/p' Makefile | expand -t 18

setup: $(READY)
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
	  echo "The course needs Python 3.10 or newer; $(PYTHON) is $$($(PYTHON) --version 2>/dev/null || echo not there)." \
	       "Name another one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[test]"
	@touch $(READY)

lab: $(READY) ## set up what is missing and open the course in JupyterLab
	$(BIN)/jupyter lab $(LAB) --ServerApp.root_dir="$(CURDIR)" --LabApp.default_url=/lab/tree/chapters/00_start_here.ipynb

chapters: $(READY) ## rebuild and run the notebooks from their sources (one of them: NAME=01_diffusion)
	$(BIN)/python -m fmcore.course.build $(NAME)
	$(PYTEST) tests/notebooks/test_stored.py

test: ## set up what is missing and run every check; ends with the time of each
	@failed=0; $(call run_stages,$(STAGES))

test-all: ## make test; then a second run of each chapter, every page, and the tests beside other packages
	@failed=0; $(MAKE) --no-print-directory test || failed=1; $(call run_stages,$(MORE))

style: $(READY) ## lint and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(READY) ## mypy
	$(BIN)/mypy

unit: $(READY) ## unit and property tests
	$(PYTEST) -p no:nbval -n 2 --dist loadgroup tests --ignore tests/notebooks --ignore tests/browser

notebooks: $(READY) ## the notebooks: in step, clean, and each run once against what is stored
	rm -rf build/executed
	$(BIN)/python -m tests.notebooks.copies
	$(WORKERS) $(NBVAL) build/notebooks tests/notebooks --ignore $(KERNELS)

browser: $(READY) ## in JupyterLab, in a real browser: chapters with every kind of element, an exercise sheet
	$(WORKERS) --dist worksteal -rs tests/browser --ignore tests/browser/test_every_other_chapter.py

twice: $(READY) ## each chapter a second time: the same, letter by letter; answers to exercises in kernels
	@test -d build/executed || $(MAKE) --no-print-directory notebooks
	$(WORKERS) $(NBVAL) --nbval-exactly build/executed $(KERNELS)

pages: $(READY) ## the other chapters in a real browser
	$(WORKERS) --dist worksteal -rs tests/browser/test_every_other_chapter.py

peers: $(READY) ## our code beside other packages'; left out where these cannot be downloaded
	@$(MAKE) --no-print-directory $(PEERS) || if $(BIN)/python -m pip index versions torchcfm > build/index.log 2>&1; \
	  then exit 1; else echo "PEERS LEFT OUT: the package index cannot be reached."; fi
	@test ! -f $(PEERS) || { export PYTHONPATH=build/peers && \
	  $(BIN)/python -c 'import flow_matching.path, flow_matching.solver, torchcfm.models.unet.unet' && \
	  $(PYTEST) -n 2 tests/peers; }

$(PEERS): benchmarks/requirements.txt | $(READY)
	@rm -rf build/peers
	$(BIN)/python -m pip install --quiet --no-deps --target build/peers -r benchmarks/requirements.txt
	@rm -rf build/peers/tests # a package of that name in a peer's wheel would hide ours
	@touch $(PEERS)

bench: $(PEERS) ## speed beside other packages, as one table of ratios (one of them: NAME=pairing)
	PYTHONPATH=build/peers $(BIN)/python -m benchmarks $(NAME)

# A machine with a GPU has its own PyTorch: the environment is used where it is, and never made.
gpu: ## on a machine with a GPU: checks, speeds, then CIFAR-10 for MINUTES=8 (DATA=, OUT=, LIMIT=seconds)
	PYTHONPATH=build/peers:$$PYTHONPATH $(if $(wildcard $(READY)),$(BIN)/python,$(PYTHON)) -m benchmarks.gpu \
	  --minutes $(or $(MINUTES),8) $(if $(DATA),--data "$(DATA)") $(if $(OUT),--out "$(OUT)") $(if $(LIMIT),--limit $(LIMIT))

clean: ## remove what the commands above made
	rm -rf .venv build .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +
