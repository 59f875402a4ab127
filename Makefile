# Every command of this project. Each does its own set-up: the Debian packages that it needs (as root), then .venv; both are stamped and done once.

SHELL := /bin/bash
PYTHON ?= python3
export PYTHON
BIN := .venv/bin
STAMP := .venv/.ready
DEBIAN := build/.debian-ready

.DEFAULT_GOAL := help
.PHONY: help venv lint check kube test bench demo demo-kube demo-egress-ip docs lock sbom clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

$(DEBIAN)-%: tools/debian-packages.txt
	@tools/debian-packages.sh $@ $*

$(STAMP): requirements-dev.lock pyproject.toml | $(DEBIAN)-check
	@tools/venv.sh $@

venv: $(STAMP) ## make .venv with the locked dependencies and outgate in it

lint: $(STAMP)
	@$(BIN)/ruff format --check --quiet . || { echo 'make: not in the house format; mend it with: $(BIN)/ruff format .' >&2; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo > build/imports.txt || { cat build/imports.txt; exit 1; }

check: lint ## format, lint, types, import contracts, stories, laws: no root, under a minute
	@$(BIN)/python tools/suites.py stories laws

kube: $(DEBIAN)-test $(STAMP) ## build etcd, kube-apiserver, kubectl and helm into the cache, once (up to 15 minutes)
	@$(BIN)/python tools/kube/build.py

test: $(DEBIAN)-test lint kube ## everything that check does, and the suites in network namespaces and on a real API server (root)
	@$(BIN)/python tools/suites.py stories laws kernel ovn kube + gateway vm

bench: $(DEBIAN)-test $(STAMP) ## measure speed and memory beside their rivals (root)
	@$(BIN)/python -m bench

demo-kube: $(DEBIAN)-test $(STAMP) kube ## the demo, its objects on a real API server (root)
	@$(BIN)/outgate demo --api-server

demo-egress-ip: $(DEBIAN)-test $(STAMP) ## EgressIP on a real OVN: as today, and by the host's routes (root)
	@$(BIN)/outgate demo --egress-ip

demo: $(DEBIAN)-demo $(STAMP) ## the main job, live, in network namespaces of its own (root)
	@$(BIN)/outgate demo

docs: $(STAMP) ## write anew what is generated: pages of docs/, manifests of deploy/
	@$(BIN)/python -m tools.deploy
	@$(BIN)/python tools/docs.py

sbom: $(STAMP) ## write the bill of materials, build/outgate.cdx.json (CycloneDX)
	@$(BIN)/python tools/sbom.py

lock: $(STAMP) ## resolve pyproject.toml into the lock files anew
	@tools/lock.sh

clean: ## remove what was built and cached (.venv stays)
	@rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .grimp_cache
	@find src tests tools -name __pycache__ -prune -exec rm -rf {} +
