# The chores of this repository. `make demo` and `make test` need nothing run before them.

SHELL := /bin/sh
TARGET := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)
# Absolute, since tests run in their crate's folder.
BIN := $(abspath $(TARGET)/bin)
TEST_BIN := $(abspath $(TARGET)/test-bin)

# Randomised tests run a tenth of their schedules unless MESHWORK_SCHEDULES says how many; this many are a full run.
FULL_SCHEDULES := 2000
# Namespaces, TUN devices and nftables need root; everything else does not.
ROOT := $(if $(filter 0,$(shell id -u)),,sudo --preserve-env=KEEP,MESHWORK_SEED,MESHWORK_SCHEDULES)

# Tests are built as whoever calls and run as root.
TEST_RUNNER := $(if $(ROOT),env CARGO_TARGET_$(shell rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')_RUNNER='$(ROOT) --preserve-env=MESHWORK_BIN')

.PHONY: setup build demo test test-long test-faults fuzz bench bench-micro scale lint clean

setup:
	@scripts/setup

build: setup
	scripts/build release $(BIN)

demo: build
	@$(ROOT) $(BIN)/meshlab demo

test: setup
	@scripts/setup test
	scripts/build dev $(TEST_BIN)
	MESHWORK_BIN=$(TEST_BIN) $(TEST_RUNNER) cargo test --locked --workspace --no-fail-fast

test-long:
	MESHWORK_SCHEDULES=$(FULL_SCHEDULES) $(MAKE) test

# Every fault of ARCHITECTURE.md with the tests that show it; test programs are built as whoever calls and run as root.
test-faults: setup
	@scripts/setup test
	scripts/build dev $(TEST_BIN)
	MESHWORK_BIN=$(TEST_BIN) scripts/faults $(if $(ROOT),$(ROOT) --preserve-env=MESHWORK_BIN)

# Every decoder under libFuzzer, for so many seconds each. `make test` replays what it found.
FUZZ_SECONDS ?= 10
fuzz:
	@scripts/setup fuzz
	scripts/fuzz run $(FUZZ_SECONDS)

# Everything, or what `meshlab bench` is told, such as BENCH="--only tcp,ping --rounds 1"; only all of it is written down.
# Rivals are installed as whoever calls.
BENCH ?=
bench: build
	$(BIN)/meshlab rivals --cache .cache
	$(ROOT) $(BIN)/meshlab bench --cache .cache $(if $(BENCH),$(BENCH),--results bench/RESULTS.md)
	$(if $(BENCH),,$(ROOT) $(BIN)/meshlab churn)

# Each step of a packet in our own code, against the figures that are kept.
bench-micro:
	scripts/micro

# A hundred daemons on this machine.
scale: build
	$(ROOT) $(BIN)/meshlab scale

lint:
	@scripts/setup lint
	cargo fmt --all -- --check
	cargo clippy --locked --workspace --all-targets --features meshwork-tunnel/bench-internals -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --document-private-items
	@scripts/setup deny
	cargo deny --locked check bans licenses sources

clean:
	cargo clean
	rm -rf .cache
