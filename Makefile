# Every target sets up what it needs first (.ci/setup: a virtual environment here, nothing when it is there already).

SHELL := /bin/bash
PYTHON := .venv/bin/python
PYTEST_FLAGS ?= -n auto
MEMORY := $(or $(shell df --output=avail -B 1M /dev/shm 2>/dev/null | awk 'NR > 1 && $$1 > 500 {print "/dev/shm"}'),/tmp)
# Else each of the processes that tests start would compile for itself what it imports: a third of a test run.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-packages test-fast lint format simulate model fuzz mutants bench chaos versions soak screenshots nfs power shared constraints site clean

help:  ## list these targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */\1|/' | awk -F'|' '{printf "  make %-10s %s\n", $$1, $$2}'

setup:  ## make the virtual environment .venv, with maildefer and what its tests need
	@.ci/setup

demo: setup  ## see it: mail by SMTP, eight workers, a worker killed, nothing lost
	@$(PYTHON) -m benchmarks.demo

# The long tests come first (tests/conftest.py), and are handed out a few at a time. Pools and guests mostly wait, so four
# tests with them run at once; they stand by themselves, as those of the first part leave them no processor. Both parts
# run, whatever the first has found.
test: setup  ## all checks and all tests
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target lint test-packages
	@code=0; \
	$(PYTHON) -m pytest $(PYTEST_FLAGS) --maxschedchunk=8 -m "not lifecycle and not mount" || code=1; \
	$(PYTHON) -m pytest -n 4 --dist=loadgroup -m "lifecycle or mount" || code=1; \
	exit $$code

test-packages: setup
	@.ci/setup test

# In memory: on a disk half of the time is waiting for its syncs. `make test` runs the same tests on the disk.
test-fast: setup  ## the tests that are done in a minute
	@place=$$(mktemp -d $(MEMORY)/maildefer-tests-XXXXXX) && trap 'rm -rf "$$place"' EXIT && \
	$(PYTHON) -m pytest $(PYTEST_FLAGS) --basetemp="$$place/t" -m "not slow and not lifecycle and not mount"

lint: setup  ## style, types, the direction of imports, and the structure of the package
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy maildefer workers conf tests benchmarks
	.venv/bin/lint-imports --no-logo
	$(PYTHON) -m tests.structure

format: setup  ## put all files into the one format
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

simulate: setup  ## a minute of seeded schedules under every fault, then the planted bugs (SIMULATE="--seed K" for one)
	@$(PYTHON) -m tests.simulation $(or $(SIMULATE),--seconds 60)
	@$(if $(SIMULATE),,$(PYTHON) -m tests.simulation --mutants)

model: setup  ## the protocol, model-checked: every interleaving under some faults (MODEL=--deep: under more, a quarter of an hour)
	@$(PYTHON) -m tests.model $(MODEL)

fuzz: setup  ## ten minutes of wild clients against the front end's sessions (FUZZ="--seed N --cases N" shows one again)
	@$(PYTHON) -m tests.security.fuzz $(or $(FUZZ),--seconds 600)

mutants: setup  ## half an hour of small changes to the code, each of which a test must notice (MUTANTS="--seed N --only FILE")
	@$(PYTHON) -m tests.mutation --seconds 1800 $(MUTANTS)

bench:  ## the figures: drain, push, front end, memory, latency, other queues (BENCH="drain push" for some)
	@.ci/setup bench
	@$(PYTHON) -m benchmarks $(BENCH)

chaos: setup  ## 20,000 messages, two hosts, everybody killed or frozen all the time (CHAOS="--messages 100000")
	@$(PYTHON) -m benchmarks.chaos $(CHAOS)

versions: setup  ## the last release and this version on one queue for ten minutes, both killed (VERSIONS="--seconds 60")
	@$(PYTHON) -m tests.formats.two_versions $(VERSIONS)

soak: setup  ## an hour of steady mixed load, memory and descriptors plotted (SOAK="--minutes 20")
	@$(PYTHON) -m benchmarks.soak $(SOAK)

screenshots:  ## pictures of the page of `maildefer web`, for docs/images, by a headless Chromium
	@.ci/setup test
	@$(PYTHON) -m benchmarks.screenshots

nfs:  ## whole pools on real NFS, every fault, versions 3 to 4.2: half an hour
	@.ci/setup nfs
	MAILDEFER_NFS=all $(PYTHON) -m pytest tests/mount

power:  ## power cuts at every moment, and chaos, on ext4, xfs and btrfs: twenty minutes
	@.ci/setup power
	MAILDEFER_POWER=all $(PYTHON) -m pytest tests/power

shared:  ## GlusterFS, MooseFS and CephFS brought up here and tried, as root: SHARED="cephfs" for one
	@.ci/setup shared
	tests/shared/run.sh $(or $(SHARED),glusterfs moosefs cephfs)

constraints: setup  ## conf/deploy/constraints*.txt anew: the newest of what maildefer needs, each file by its hash
	$(PYTHON) .ci/constraints.py

site: setup  ## the documents as pages, in build/site, every link checked
	@$(PYTHON) .ci/site.py

clean:  ## remove all that was made here, but for run/
	rm -rf .cache .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
