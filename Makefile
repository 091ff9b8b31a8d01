# Every target is phony: proto, policy, audit, tests and deploy are folders too.
.PHONY: help demo test test-matrix test-faults test-interop test-egress check bench bench-reid reid-attackers proto drift serve clean setup setup-dev weights lock lint types imports wire deploy-lint test-servers fuzz
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
UV := $(shell command -v uv)
VENV := .venv
BIN := $(VENV)/bin

# Compiled modules are kept, whatever the shell says: the tests start hundreds of processes of ours.
export PYTHONDONTWRITEBYTECODE :=
# Modules in the order of tests/conftest.py, the longest first.
ON_TWO := -n 2 --dist loadscope --no-loadscope-reorder

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'

# --- set-up ----------------------------------------------------------------------------------

# $(1): the lock.  uv where it is there, else pip; hashes are required either way.
define install
	@if [ ! -f $(VENV)/.$(1) ] || [ requirements/$(1).lock -nt $(VENV)/.$(1) ] || [ pyproject.toml -nt $(VENV)/.$(1) ]; then set -e; \
	  if [ -n "$(UV)" ]; then \
	    [ -x $(BIN)/python ] || $(UV) venv --quiet --python $(PYTHON) $(VENV); \
	    $(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements/$(1).lock; \
	    $(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .; \
	  else \
	    [ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV); \
	    $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/$(1).lock; \
	    $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .; \
	  fi; \
	  touch $(VENV)/.$(1); \
	fi
endef

setup:  ## install what running needs into .venv
	$(call install,runtime)

setup-dev:  ## install what developing needs into .venv
	$(call install,dev)

weights: setup  ## fetch the model weights as files, checked by sha256
	@$(BIN)/python -m gateway.weights.fetch --dest .cache/weights

lock:  ## resolve the locks again (needs uv)
	$(UV) pip compile --quiet --generate-hashes --no-emit-index-url --no-header --no-annotate --universal \
	  --python-version 3.11 --extra timestamp --extra c2pa --extra s3 --extra hsm --extra aws --extra build -c requirements/constraints.txt pyproject.toml -o requirements/runtime.lock
	$(UV) pip compile --quiet --generate-hashes --no-emit-index-url --no-header --no-annotate --universal \
	  --python-version 3.11 --extra timestamp --extra c2pa --extra s3 --extra heic --extra ner --extra hsm --extra aws --extra build --extra dev -c requirements/constraints.txt -c requirements/runtime.lock pyproject.toml -o requirements/dev.lock

# --- what people run -------------------------------------------------------------------------

demo: setup weights  ## the whole story on a real portrait, on loopback
	@LETHE_WEIGHTS_DIR=.cache/weights $(BIN)/lethe demo $(if $(KEEP),--keep $(KEEP))

serve: setup weights  ## a development gateway and backend, with a folder in .cache/dev
	@[ -d .cache/dev ] || $(BIN)/lethe init .cache/dev
	@$(BIN)/lethe migrate --config .cache/dev/lethe.yaml
	@LETHE_WEIGHTS_DIR=.cache/weights $(BIN)/lethe backend serve --address 127.0.0.1:8444 --cert .cache/dev/certs/backend.pem \
	  --key .cache/dev/certs/backend.key --ca .cache/dev/backend-ca/ca.pem & backend=$$!; trap 'kill $$backend' EXIT; \
	  $(BIN)/lethe serve --config .cache/dev/lethe.yaml

test: setup-dev weights  ## all tests, warnings are errors
	@LETHE_WEIGHTS_DIR=$(CURDIR)/.cache/weights $(BIN)/python -m pytest $(ON_TWO) $(ARGS)

test-matrix: setup-dev weights  ## every journey on every combination: SQLite and files, PostgreSQL and S3, a hardware module
	@LETHE_MATRIX=all LETHE_WEIGHTS_DIR=$(CURDIR)/.cache/weights $(BIN)/python -m pytest $(ON_TWO) tests/integration $(ARGS)

# What `make test` tries a part of (tests/sample.py), besides the kills.
SAMPLED := tests/property/test_audit_fsck.py tests/property/test_policy_coded.py tests/property/test_sequencer_model.py \
  tests/unit/audit/test_verify.py tests/unit/backends/test_picture.py tests/unit/deidentify/test_fuzz.py tests/unit/flows/test_erasure.py \
  tests/unit/flows/test_lost_writes.py tests/unit/flows/test_rekey.py tests/unit/test_judge.py

# LETHE_PLACE=bucket kills it on PostgreSQL and S3 instead of SQLite and files.
test-faults: setup-dev weights  ## kill the gateway at every point, and N times at random moments (1,000; an hour or more); 12,000 races
	@LETHE_INTERLEAVINGS=10000 $(BIN)/python -m pytest tests/property/test_withdrawal_model.py
	@LETHE_RESIDENCY_STORIES=1000 $(BIN)/python -m pytest tests/property/test_residency.py
	@LETHE_MACHINE_RUNS=2000 $(BIN)/python -m pytest tests/property/test_request_machine.py
	@LETHE_GROUPS=60 LETHE_WEIGHTS_DIR=$(CURDIR)/.cache/weights $(BIN)/python -m pytest tests/property/test_bystanders.py
	@LETHE_EVERY_POINT=1 LETHE_EXAMPLES=$(or $(N),1000) $(BIN)/python -m pytest tests/unit/flows/test_training.py
	@LETHE_EVERY_POINT=1 LETHE_WEIGHTS_DIR=$(CURDIR)/.cache/weights $(BIN)/python -m pytest $(ON_TWO) $(SAMPLED)
	@LETHE_KILLS=0 LETHE_EVERY_POINT=1 LETHE_WEIGHTS_DIR=$(CURDIR)/.cache/weights $(BIN)/python -m pytest -n 2 --dist load tests/faults/test_kill.py tests/faults/test_settle.py tests/unit/flows/test_zero_retention.py
	@LETHE_KILLS=$(or $(N),1000) LETHE_WEIGHTS_DIR=$(CURDIR)/.cache/weights $(BIN)/python -m pytest -s tests/faults/test_random_kills.py $(ARGS)

test-interop: setup-dev  ## verifiers written by others judge our log
	@$(BIN)/python -m tests.interop.install .cache/interop
	@LETHE_INTEROP=1 $(BIN)/python -m pytest tests/interop $(ARGS)

test-servers: setup-dev  ## a job through a real Triton and a real KServe, each in an environment of its own (1.2 GB)
	@$(BIN)/python -m tests.servers.install .cache/servers
	@LETHE_SERVERS=1 $(BIN)/python -m pytest tests/servers $(ARGS)

test-egress: setup-dev weights  ## 90 s of portraits where there is no network: nobody is called, no name is asked for
	@LETHE_EGRESS_S=90 LETHE_REQUIRE=all LETHE_WEIGHTS_DIR=$(CURDIR)/.cache/weights $(BIN)/python -m pytest tests/egress $(ARGS)

fuzz: setup-dev  ## every parser of pictures, MINUTES each (2), with libFuzzer
	@$(BIN)/python -m tests.fuzz.run --minutes $(or $(MINUTES),2) $(ARGS)

bench: setup-dev weights  ## the benchmarks, with what they compare against in the same run
	@LETHE_WEIGHTS_DIR=.cache/weights $(BIN)/python -m tests.benchmarks.run $(ARGS)

bench-reid: setup-dev weights  ## whether treated faces are recognised all the same: ARGS='--faces DIR', a folder for each person
	@LETHE_WEIGHTS_DIR=.cache/weights $(BIN)/python -m tests.benchmarks.reid.run $(ARGS)

reid-attackers: setup-dev  ## two more recognisers for bench-reid; one is for non-commercial use
	@$(BIN)/python -m tests.benchmarks.reid.install .cache/reid

# --- what a commit has passed ----------------------------------------------------------------

check: lint types imports wire drift deploy-lint  ## everything static

lint: setup-dev
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .

types: setup-dev
	@$(BIN)/mypy

imports: setup-dev
	@$(BIN)/lint-imports
	@$(BIN)/python -m tests.contracts_break

wire: setup-dev
	@mkdir -p .cache && $(BIN)/python proto/generate.py --image .cache/wire.binpb
	@$(BIN)/buf lint .cache/wire.binpb
	@$(BIN)/buf breaking .cache/wire.binpb --against proto/wire.binpb

drift: setup-dev  ## the generated code is that of the .proto files
	@tmp=$$(mktemp -d) && trap 'rm -rf "$$tmp"' EXIT && $(BIN)/python proto/generate.py $$tmp && \
	  (cd $$tmp && find . -name '*_pb2*' -not -path '*__pycache__*') | sort > $$tmp/made && (cd proto && find . -name '*_pb2*' -not -path '*__pycache__*') | sort | diff $$tmp/made - && \
	  while read -r f; do cmp "$$tmp/$$f" "proto/$$f" || exit 1; done < $$tmp/made && echo "no drift"

proto: setup-dev  ## generate the Python code of the wire
	@$(BIN)/python proto/generate.py proto
	@rm -rf .mypy_cache

deploy-lint: setup-dev
	@$(BIN)/yamllint -s deploy policy
	@$(BIN)/python -m tests.deploy_lint

clean:  ## remove what the targets made
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
