# The commands that developers and CI run. `make` alone lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash

# uv installs everything else. If uv is not on PATH, a private copy goes into .tools.
UV := $(or $(shell command -v uv 2>/dev/null),.tools/uv/bin/uv)
RUN := $(UV) run --frozen
export PATH := $(CURDIR)/.tools/uv/bin:$(PATH)

# With this variable set, every program compiles all its modules again at each start, which takes longer than most tests.
unexport PYTHONDONTWRITEBYTECODE

# PYTHON=3.13 runs a command on that Python, which uv finds or downloads, in a separate environment.
ifeq ($(origin PYTHON),command line)
export UV_PYTHON := $(PYTHON)
export UV_PROJECT_ENVIRONMENT := .tools/python-$(PYTHON)
endif

# A whole run takes four workers; tests/support/scheduler.py says how they share the work. One folder is quicker without.
SUITE := $(if $(LAYER),tests/$(LAYER),-n 4 --max-worker-restart=0)

# What `make check` runs, as many at once as the machine has cores. Each prints its output when it ends.
CHECKS := check-types check-sdk-types check-docs check-style check-format check-layers check-workflows check-lock
SIDE_BY_SIDE := --no-print-directory --keep-going --jobs=$(shell getconf _NPROCESSORS_ONLN) \
	$(if $(filter output-sync,$(.FEATURES)),--output-sync=target)

.PHONY: help setup demo downloads compile test unit chaos images matrix check $(CHECKS) docs golden bench manager release

help:  ## list these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.tools/uv/bin/uv:
	python3 -m venv .tools/uv
	.tools/uv/bin/pip install --quiet --disable-pip-version-check uv

setup: $(UV)  ## install the tools and packages that the other commands need; each of them also does so itself
	@$(UV) sync --frozen --quiet

demo: $(UV)  ## render a worker and run it on sample pictures, or on yours (IMAGES=folder)
	@$(RUN) python -m tools.demo $(if $(IMAGES),--images "$(IMAGES)")

test: $(UV)  ## run every test, or one folder (LAYER=integration/sdk), on the default Python or another (PYTHON=3.13)
	@$(if $(LAYER),,$(MAKE) --no-print-directory downloads)
	@$(RUN) pytest $(SUITE)

# Downloaded before the tests start, because a slow network would use up the time limit of a test. Tests that need a tool
# that could not be downloaded fail and say what to install.
downloads: $(UV)
	@for tool in helm promtool crds; do $(RUN) python -m tools.$$tool > /dev/null || true; done

# In a fresh clone, each worker of pytest would compile all modules that the tests import.
compile: $(UV)
	@$(RUN) pytest --quiet --collect-only > /dev/null || true

unit: $(UV)  ## run the unit tests, in half a minute
	@$(RUN) pytest --quiet tests/unit

chaos: $(UV)  ## kill processes under load and check that nothing is lost, then fuzz for long (KILLS=100, SEED=1 repeats a run)
	@$(RUN) python -m tests.chaos $(if $(SEED),--seed $(SEED)) $(if $(KILLS),--kills $(KILLS))
	@$(RUN) pytest tests/model tests/contract --hypothesis-profile=long --timeout=1800

images: $(UV)  ## build both images and run them as a cluster would (root on Linux, with buildah and mmdebstrap)
	@$(RUN) pytest tests/images

matrix: $(UV)  ## render every combination of answers, update from every version, and run the results
	@$(RUN) pytest tests/template -m matrix

check: setup  ## check style, format, types, layers, the lock file and generated files
	@$(MAKE) $(SIDE_BY_SIDE) $(CHECKS)

check-types:
	$(RUN) pyright

check-sdk-types:
	$(RUN) mypy --strict sdk/src

check-docs:
	$(RUN) python -m tools.docs --check

check-style:
	$(RUN) ruff check

check-format:
	$(RUN) ruff format --check

check-layers:
	$(RUN) lint-imports

check-workflows:
	$(RUN) check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(RUN) zizmor --quiet --no-progress --offline --pedantic .github

check-lock:
	$(UV) lock --check

docs: $(UV)  ## write the reference pages that are generated from code, in docs/reference
	@$(RUN) python -m tools.docs

golden: $(UV)  ## write what the charts render (tests/template/golden) and the reserved names (copier.yml), for review before you commit them
	@GOLDEN=write $(RUN) pytest --quiet tests/template -k all_that_is_rendered
	@git diff --stat -- tests/template/golden copier.yml

# The other queues stay out of .venv, because some of them install plugins for pytest.
bench: export UV_PROJECT_ENVIRONMENT := .tools/bench
bench: $(UV)  ## measure the engine, a worker beside other queues, a service that fails now and then, and the template (PART=engine, worker, failures or template for one; PART=soak MINUTES=60 for an hour at half load)
	@$(RUN) --group bench python -m benchmarks $(PART) $(if $(MINUTES),--minutes $(MINUTES))

manager: $(UV)  ## start the manager with its embedded PostgreSQL on 127.0.0.1:8080
	@$(RUN) jobnik-manager serve

release: $(UV)  ## set VERSION=0.2.0 everywhere, commit and tag it, without pushing
	@$(RUN) python -m tools.release "$(VERSION)"
