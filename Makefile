# `make help` lists the targets. Each is a line or two: the work is done by the programs that they name.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
CLAIMS := .posttrain/claims

# The environment is ready when it is newer than what it is made from and lies where it was made.
READY := .venv/.ready
ifneq ($(shell cat .venv/.checkout 2>/dev/null),$(CURDIR))
.PHONY: $(READY)
endif
$(READY): hack/setup.sh locks/bootstrap.lock locks/dev.lock $(wildcard jobs/*/pyproject.toml) operator/pyproject.toml cli/pyproject.toml
	@hack/setup.sh

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(READY) ## make .venv from the locks (nothing to do when they are unchanged)

.PHONY: quickstart
quickstart: setup ## from raw data to a published model in a few minutes, on a CPU
	@test -e $(CLAIMS)/posttrain/quickstart/.made || { \
	  $(BIN)/python examples/quickstart/inputs/make_inputs.py $(CLAIMS)/posttrain/quickstart && \
	  touch $(CLAIMS)/posttrain/quickstart/.made; }
	@$(BIN)/posttrain run examples/quickstart

.PHONY: test
test: setup ## every test but the slow ones, two files at a time
	$(BIN)/pytest -n 2 --dist loadfile

.PHONY: test-slow
test-slow: setup ## the slow tests
	$(BIN)/pytest -m slow

.PHONY: control-plane
control-plane: setup ## the API server, etcd and kubectl for tests/api: found, or built once; prints their folder
	@$(BIN)/python hack/control_plane.py

# How a cluster for trials comes up, how an image is built, and how images reach its nodes: with kind and Docker, unless the
# command line says otherwise, such as BUILD='podman build' or LOAD=: where building is enough.
UP := hack/kind.sh
BUILD := docker build
LOAD := kind load docker-image --name posttrain

.PHONY: cluster
cluster: ## a cluster for trials, with the images of this checkout in it; UP, BUILD and LOAD say how (docs/install.md)
	$(UP)
	@$(MAKE) images

.PHONY: images
images: ## the images of this checkout: the operator's, and one with every stage for CPUs; built and loaded into the nodes
	$(BUILD) -t posttrain/operator:dev -f images/operator/Dockerfile .
	$(BUILD) -t posttrain/cpu:dev --build-arg STAGE=cpu -f images/stage/Dockerfile .
	$(LOAD) posttrain/operator:dev posttrain/cpu:dev

ENGINE := docker

.PHONY: check-images
check-images: setup ## the images that were built, tried as a cluster would run them; ENGINE=podman, where that has them
	$(BIN)/python hack/images.py --engine $(ENGINE) posttrain/operator:dev posttrain/cpu:dev

E2E := $(BIN)/pytest -m e2e --log-cli-level=INFO --log-cli-format='%(asctime)s %(message)s' --log-cli-date-format=%T

# Where kubectl has no cluster for trials and KUBECONFIG asks for none, but Docker and kind are there: one of kind, under a KUBECONFIG
# of its own, so that the context of the person at work stays. What is there already stays, too.
define on_cluster
@if [ -z "$${KUBECONFIG:-}" ] && ! PYTHONPATH=tests $(BIN)/python -c \
    'from support.kubectl import unusable; raise SystemExit(unusable())' && { docker info && kind version; } >/dev/null 2>&1; then \
  export KUBECONFIG=$(CURDIR)/.posttrain/kubeconfig; $(MAKE) cluster; \
fi; $(E2E) $(1)
endef

.PHONY: e2e
e2e: setup ## everything that is tried on a cluster, which is made where Docker and kind are (docs/e2e.md)
	$(call on_cluster,tests/e2e)

.PHONY: e2e-smoke
e2e-smoke: setup ## the quickstart, and pods that are killed while they train, on such a cluster
	$(call on_cluster,tests/e2e/test_quickstart.py tests/e2e/test_disturbances.py)

.PHONY: bench-quickstart
bench-quickstart: setup ## measure the quickstart: time, memory, held-out score; QUICK=1 for one seed
	PYTHONPATH=. $(BIN)/python -m benchmarks.quickstart $(if $(QUICK),--quick)

.PHONY: bench-operator
bench-operator: setup ## measure the operator against a real API server, beside others; QUICK=1 for two minutes
	PYTHONPATH=tests $(BIN)/python -m benchmarks.operator $(if $(QUICK),--quick)

.PHONY: bench-finetune
bench-finetune: setup ## measure fine-tuning beside TRL called by hand, the preparation of data, and 8B on a GPU; QUICK=1 for two minutes
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 PYTHONPATH=.:tests $(BIN)/python -m benchmarks.finetune $(if $(QUICK),--quick)

.PHONY: fmt
fmt: setup ## format, and mend what the linter can
	$(BIN)/ruff check --fix-only --quiet
	$(BIN)/ruff format

.PHONY: lint
lint: setup ## format check and lint
	$(BIN)/ruff format --check
	$(BIN)/ruff check

.PHONY: types
types: setup ## strict types, tests included
	$(BIN)/mypy

.PHONY: layers
layers: setup ## which part may import which (pyproject.toml, tool.importlinter)
	$(BIN)/lint-imports

.PHONY: slim
slim: setup ## the contract's wheel, alone in an empty environment, needs pydantic and nothing heavier
	$(BIN)/python hack/slim.py

.PHONY: lock
lock: setup ## make locks/*.lock from locks/*.in; UPGRADE=1 takes newer versions
	$(BIN)/python hack/locks.py write $(if $(UPGRADE),--upgrade)

.PHONY: crds
crds: setup ## make crds/ from the operator's types
	$(BIN)/python -m posttrain_operator.api.crd crds

.PHONY: reasons
reasons: setup ## make docs/reasons.md from the enum
	$(BIN)/python hack/reasons.py

.PHONY: golden
golden: setup ## make the expected halves of the golden tests anew; review the diff
	$(BIN)/pytest -q tests/golden --write-golden

.PHONY: release-fixture
release-fixture: setup ## keep the CRDs and objects of this version in tests/releases/, when it is released
	@test -n "$(VERSION)" || { echo 'say which: make release-fixture VERSION=0.1.0' >&2; exit 1; }
	rm -rf tests/releases/$(VERSION) && mkdir -p tests/releases/$(VERSION)
	cd tests && ../$(BIN)/python -m support.release releases/$(VERSION)

.PHONY: generated
generated: setup ## are crds/, docs/reasons.md and the golden files what the code makes?
	@made=$$(mktemp -d); trap 'rm -rf "$$made"' EXIT; $(BIN)/python -m posttrain_operator.api.crd "$$made"; \
	  diff -r crds "$$made" || { echo 'crds/ is not what the types say; run: make crds' >&2; exit 1; }
	$(BIN)/python hack/reasons.py check
	$(BIN)/pytest -q tests/golden

.PHONY: workflows
workflows: setup ## .github/workflows: syntax, time limits, and what makes workflows unsafe
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yaml
	$(BIN)/check-jsonschema --builtin-schema custom.github-workflows-require-timeout .github/workflows/*.yaml
	$(BIN)/zizmor --offline --no-progress --quiet --persona pedantic .github

.PHONY: verify
verify: lint types layers generated slim workflows ## what a change must pass besides its tests
	$(BIN)/python hack/links.py
	$(BIN)/python hack/locks.py check

.PHONY: clean
clean: ## remove the environment, caches and runs
	rm -rf .venv .posttrain .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
