# The commands that people and CI use. `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help setup packages demo test test-rust test-python lint format bench interop-figures sim fuzz soak clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BUILT := $(VENV)/.built
SOURCES := Cargo.toml Cargo.lock pyproject.toml $(shell find rust -name '*.rs' -o -name Cargo.toml)
# A bench or a test by the beginning of its name: make bench ONLY=translate
ONLY ?=
# Schedules that `make sim` plays.
SCHEDULES ?= 2000
# Seconds for each target of `make fuzz`, and each transport of `make soak`.
SECONDS ?= 60
FUZZ_TARGETS := wire frame joold node
# Sanitizers are a nightly compiler's; a stable one has them too, if it is told to let them be used.
FUZZ_CARGO = $(shell rustup run nightly rustc -V >/dev/null 2>&1 \
	&& echo cargo +nightly || echo RUSTC_BOOTSTRAP=1 cargo)

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: packages $(BUILT) ## everything the other commands need, in .venv and (as root) from Debian

packages: # Debian packages: as root install what is missing, else name it
	@contrib/debian-packages

$(BIN)/maturin:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet 'maturin>=1.9,<2'

$(BUILT): $(BIN)/maturin $(SOURCES)
	PIP_QUIET=1 VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop --release --extras dev --quiet
	@touch $@

demo: setup ## a NAT64 dies and its connections go on: the two stories, in namespaces
	$(BIN)/jsync demo

test: test-rust test-python ## all tests; those that need root say so when they are skipped

test-rust: setup
	cargo test --workspace --quiet

test-python: setup # suites that mostly wait, two at a time
	$(BIN)/pytest --numprocesses 2

lint: setup ## formatting, clippy, ruff, mypy: warnings are errors
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	$(BIN)/ruff format --check python tests benches
	$(BIN)/ruff check python tests benches
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest jsync._core

format: setup ## rewrite the sources as `make lint` wants them
	cargo fmt --all
	$(BIN)/ruff format python tests benches
	$(BIN)/ruff check --fix python tests benches

bench: setup ## measurements with the ceiling of the same run; ONLY=prefix for some
	$(BIN)/python benches/run.py $(ONLY)

interop-figures: setup ## jsync and joold with the sessions of a real Jool, compared; as root
	$(BIN)/python tests/interop/figures.py

sim: ## seeded schedules of a cluster on a bad network; SCHEDULES=n
	cargo run --release --quiet -p jsync-sim --bin sim -- $(SCHEDULES)

fuzz: ## each fuzz target for SECONDS, on stable Rust where there is no nightly; installs cargo-fuzz
	@command -v cargo-fuzz >/dev/null || cargo install --quiet cargo-fuzz
	@for target in $(FUZZ_TARGETS); do \
		mkdir -p target/fuzz/$$target; \
		$(FUZZ_CARGO) fuzz run --fuzz-dir rust/fuzz --features libfuzzer $$target \
			target/fuzz/$$target rust/fuzz/corpus/$$target -- \
			-max_total_time=$(SECONDS) -print_final_stats=1 || exit 1; \
	done

soak: setup ## three NAT64s under faults for SECONDS: what is lost, and how soon it is mended
	@$(BIN)/python tests/netns/soak.py cut "multicast 4"
	@for transport in "multicast 4" "unicast 4" "tcp 4" "tls 6"; do \
		$(BIN)/python tests/netns/soak.py $(SECONDS) "$$transport" || exit 1; \
	done

clean: ## forget what was built
	rm -rf $(VENV) target
