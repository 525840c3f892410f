# make demo: two trainings under attack, side by side. make check test: what every change must pass.

PYTHON ?= python3
BIN := .venv/bin
# torch for the CPU: from the folder PIP_FIND_LINKS, if you have one, or else from PyTorch's index.
# For an NVIDIA GPU: make install TORCH_FROM=
TORCH_FROM ?= $(if $(PIP_FIND_LINKS),,--extra-index-url https://download.pytorch.org/whl/cpu)
UV := UV_FIND_LINKS="$(PIP_FIND_LINKS)" $(BIN)/uv pip install --quiet --python $(BIN)/python
PEERS := UV_FIND_LINKS="$(PIP_FIND_LINKS)" $(BIN)/uv pip install --quiet --python .venv-peers/bin/python
ENGINE ?= $(or $(shell command -v podman),docker)

.PHONY: help install peers demo test test-containers check bench soak image image-server install-systemd uninstall-systemd docs test-kubernetes clean

help:  ## say what can be made
	@sed -nE 's/^([a-z-]+):.*  ## (.*)/make \1\t\2/p' $(MAKEFILE_LIST)

install: .venv/installed  ## the project and all it needs, into .venv

peers: .venv-peers/installed  ## other libraries, to measure against, into .venv-peers

demo: install  ## byzsgd and a plain parameter server under the same attack, side by side
	$(BIN)/byzsgd demo --out run/demo

test: install  ## all tests
	$(BIN)/pytest --numprocesses=auto

test-containers: install  ## a cluster of containers under attack: needs root and podman
	tests/containers/run.sh $(BIN)/python

test-kubernetes: install  ## the manifests on a real Kubernetes, built by tests/kubernetes/build.sh
	tests/alone.sh kubernetes $(BIN)/pytest -n0 tests/kubernetes/real.py

check: install  ## style, types, and who may import whom
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install peers  ## speed, as ratios beside floors and other libraries: docs/performance.md
	$(BIN)/python -m benchmarks $(if $(ONLY),--only $(ONLY)) $(if $(INTO),--into $(INTO))

# make soak SEEDS=10000 FIRST=0; one alone: SEED=123; with a bug in the code: PLANT=old-step; every bug: BUGS=1
SEEDS ?= 1000
soak: install  ## simulated clusters, one a seed: faults, liars, and promises checked at every event
	$(BIN)/python -m tests.soak --seeds $(SEEDS) $(if $(FIRST),--first $(FIRST)) $(if $(SEED),--seed $(SEED)) \
	    $(if $(STORY),--story '$(STORY)') $(if $(PLANT),--plant $(PLANT)) $(if $(BUGS),--bugs)

docs: .venv/docs  ## the documentation as a site, in run/docs; a warning or a dead link is an error
	$(BIN)/sphinx-build --quiet --fresh-env --fail-on-warning -d run/doctrees -c docs/site . run/docs

# Podman's own format has no health check. With CUDA: make image TORCH_FROM=
BUILD = $(ENGINE) build $(if $(findstring podman,$(ENGINE)),--format docker) \
    $(if $(filter command line,$(origin TORCH_FROM)),--build-arg TORCH_FROM='$(TORCH_FROM)') \
    --label org.opencontainers.image.revision=$(shell git rev-parse HEAD)

VERSION = $(shell sed -nE 's/^version = "(.*)"/\1/p' pyproject.toml)

image:  ## one container image for every daemon
	$(BUILD) --tag byzsgd --tag byzsgd:$(VERSION) .

image-server:  ## a small one for servers alone, without torch
	$(BUILD) --target server --tag byzsgd-server .

# make install-systemd PREFIX=/opt/byzsgd, and more words at the head of systemd/install
EXTRAS ?= demo,fast
UV_PROGRAM := $(or $(wildcard $(BIN)/uv),build/uv/bin/uv)
export PREFIX DESTDIR EXTRAS WITH TORCH TORCH_FROM SYSTEM_PYTHON UV_PROGRAM
install-systemd: $(UV_PROGRAM)  ## byzsgd and its systemd units on this machine; as root
	systemd/install

uninstall-systemd:  ## remove both again; keys and checkpoints stay
	systemd/install uninstall

build/uv/bin/uv:
	$(PYTHON) -m venv build/uv
	build/uv/bin/pip install --quiet uv==0.13.9

clean:  ## remove what the others have made
	rm -rf .venv .venv-peers run dist build .*_cache .hypothesis

.venv/installed: pyproject.toml requirements.lock torch.lock
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.version_info >= (3, 11) or sys.exit("byzsgd needs Python 3.11 or newer, and $(PYTHON) is " + v + ": make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet uv==0.13.9
	$(UV) --require-hashes -r requirements.lock
	$(UV) --index-strategy unsafe-best-match $(TORCH_FROM) -r torch.lock
	$(UV) --no-deps -e .
	@touch $@

.venv/docs: docs/site/requirements.lock .venv/installed
	$(UV) --require-hashes -r docs/site/requirements.lock
	@touch $@

# Some ask for an older torch, and krum for a newer Python, than those they run with.
.venv-peers/installed: benchmarks/peers.txt torch.lock | .venv/installed
	$(PYTHON) -m venv .venv-peers
	$(PEERS) --index-strategy unsafe-best-match $(TORCH_FROM) --overrides torch.lock -r torch.lock -r benchmarks/peers.txt
	$(PEERS) --no-deps --python-version 3.12 krum==0.9.1
	@touch $@
