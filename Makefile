# make lab    JupyterLab with the course            make test       everything that is checked
# make help   the other commands                    PYTHON=python3.12 make lab    another Python

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
STAGES := setup style types unit notebooks browser
PYTEST := $(BIN)/python -m pytest --quiet -p no:cacheprovider
# A machine without a screen gets the address of the page instead of a page.
SCREEN := $(or $(DISPLAY),$(WAYLAND_DISPLAY),$(filter Darwin,$(shell uname -s)))
LAB := $(if $(SCREEN),,--no-browser) $(if $(filter 0,$(shell id -u)),--allow-root)

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYDEVD_DISABLE_FILE_VALIDATION := 1
# Threads that spin while they wait slow down everything else on a small machine.
export OMP_WAIT_POLICY := PASSIVE

.DEFAULT_GOAL := help
.PHONY: help lab test chapters bench clean $(STAGES)

help: ## this list
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1	\2/p' Makefile | expand -t 18

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
	@failed=0; table=""; for stage in $(STAGES); do \
	  printf '\n== %s\n' $$stage; start=$$(date +%s); \
	  if $(MAKE) --no-print-directory $$stage; then result=passed; else result=FAILED; failed=1; fi; \
	  table="$$table$$(printf '%-10s %s %5d s' $$stage $$result $$(($$(date +%s) - start)))\n"; \
	  [ $$stage$$failed != setup1 ] || break; \
	done; printf "\n$$table"; exit $$failed

style: $(READY) ## lint and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(READY) ## mypy
	$(BIN)/mypy

unit: $(READY) ## unit and property tests
	$(PYTEST) -n 2 --dist loadgroup tests --ignore tests/notebooks --ignore tests/browser

notebooks: $(READY) ## the notebooks: in step, clean, right on two runs
	rm -rf build/executed
	OMP_NUM_THREADS=1 $(PYTEST) -n 2 tests/notebooks
	OMP_NUM_THREADS=1 $(PYTEST) -n 2 --dist loadscope --nbval --nbval-current-env --nbval-cell-timeout 300 build/executed

browser: $(READY) ## the chapters in JupyterLab, in a real browser
	OMP_NUM_THREADS=1 $(PYTEST) -n 2 -rs tests/browser

bench: $(READY) ## speed beside other packages, as one table of ratios (one of them: NAME=pairing)
	@test -d build/peers || $(BIN)/python -m pip install --quiet --no-deps --target build/peers -r benchmarks/requirements.txt
	@rm -rf build/peers/tests # a package of that name in a peer's wheel would hide ours
	PYTHONPATH=build/peers $(BIN)/python -m benchmarks $(NAME)

clean: ## remove what the commands above made
	rm -rf .venv build .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +
