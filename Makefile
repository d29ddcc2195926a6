# Every word a developer says here. `make` alone lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash

# uv brings everything else. Where there is none, a private one is put into .tools.
UV := $(or $(shell command -v uv 2>/dev/null),.tools/uv/bin/uv)
RUN := $(UV) run --frozen
export PATH := $(CURDIR)/.tools/uv/bin:$(PATH)

# Where this is set, every program compiles all its modules anew at each start, which takes longer than most of our tests.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test chaos images check bench docs golden manager release matrix

help:  ## list these words
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.tools/uv/bin/uv:
	python3 -m venv .tools/uv
	.tools/uv/bin/pip install --quiet --disable-pip-version-check uv

demo: $(UV)  ## render a worker and watch it turn pictures into thumbnails (IMAGES=folder for yours)
	@$(RUN) python -m tools.demo $(if $(IMAGES),--images "$(IMAGES)")

test: $(UV)  ## run every test: unit, integration, template, end to end
	@$(RUN) pytest

chaos: $(UV)  ## kill everything while work goes on, ask for anything, and lose nothing (SEED=1 repeats a run, KILLS=100)
	@$(RUN) python -m tests.chaos $(if $(SEED),--seed $(SEED)) $(if $(KILLS),--kills $(KILLS))
	@$(RUN) pytest tests/model tests/contract --hypothesis-profile=long --timeout=1800

images: $(UV)  ## build both images and run them as a cluster would (root on Linux, with buildah and mmdebstrap)
	@$(RUN) pytest tests/images

matrix: $(UV)  ## render every combination of answers, update from every version, and run what comes of it
	@$(RUN) pytest tests/template -m matrix

check: $(UV)  ## lint, format, types, layers, generated files
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) pyright
	$(RUN) mypy --strict sdk/src
	$(RUN) lint-imports
	$(UV) lock --check
	$(RUN) python -m tools.docs --check

docs: $(UV)  ## write the references that are drawn from code, in docs/reference
	@$(RUN) python -m tools.docs

golden: $(UV)  ## write what the charts render, in tests/template/golden: to be read before it is committed
	@GOLDEN=write $(RUN) pytest --quiet tests/template -k all_that_is_rendered
	@git diff --stat -- tests/template/golden

# The other queues that it installs stay out of .venv: some of them bring plugins for pytest.
bench: export UV_PROJECT_ENVIRONMENT := .tools/bench
bench: $(UV)  ## measure the engine, a worker beside other queues, and the template (PART=engine, worker or template: one of them)
	@$(RUN) --group bench python -m benchmarks $(PART)

manager: $(UV)  ## start the manager with its embedded PostgreSQL on 127.0.0.1:8080
	@$(RUN) jobnik-manager serve

release: $(UV)  ## set VERSION=0.2.0 everywhere, commit and tag it; it pushes nothing
	@$(RUN) python -m tools.release "$(VERSION)"
