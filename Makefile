# `make test` is the whole test run: what CI runs, and nothing else of weight.
.PHONY: help run cluster cluster-stop setup test test-client check check-faults check-faults-long check-fuzz check-jobs check-sabotage audit check-manifests proto settings bench bench-cluster bench-jobs bench-quick bench-streams

CHECKER = $${CARGO_TARGET_DIR:-target}/debug/checker
FUZZ_SECONDS = 60

help:            ## Shows this list.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

run:             ## Starts both services on http://127.0.0.1:8010 and :8020.
	cargo run --locked

cluster:         ## Starts PostgreSQL, NATS, three ingress, two proc and nginx on http://127.0.0.1:8000; ARGS=--help lists what else it can.
	cargo build --locked -p ingress -p proc -p cluster
	$${CARGO_TARGET_DIR:-target}/debug/cluster $(ARGS)

cluster-stop:    ## Stops it from another shell.
	$${CARGO_TARGET_DIR:-target}/debug/cluster --stop $(ARGS)

setup:           ## Installs what building and testing need (Debian; does nothing when it is there).
	@scripts/setup

# The first builds the services' programs too, which are started by the tests of deploy/cluster and by the checker. The look
# at the ratios fails on nothing.
test: setup      ## Runs every test.
	cargo build --workspace --all-targets --locked
	cargo test --workspace --locked
	cd client && npm test
	$(CHECKER) run short
	-@$(MAKE) --no-print-directory bench-quick

check:           ## Format, lints and documentation, warnings being errors.
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --document-private-items --locked

test-client: setup ## The client library's tests alone: types, sizes, Chromium and Firefox, a cluster; four minutes.
	cargo build --locked -p standalone -p ingress -p proc -p cluster
	cd client && npm test

check-faults:    ## Takes parts of a cluster away under load for two minutes; nothing may be lost, doubled or reordered. ARGS=--help lists what else it can.
	cargo build --locked -p ingress -p proc -p checker
	$(CHECKER) run short $(ARGS)

check-faults-long: ## The same for ten minutes with faults by chance, then a minute without NATS, then a rolling restart under 2,000 streams.
	cargo build --locked -p ingress -p proc -p checker
	$(CHECKER) run long $(ARGS)
	$(CHECKER) run nats-down $(ARGS)
	$(CHECKER) run rolling $(ARGS)

# New inputs are kept beside the build, so that a check changes no committed file; fuzz/README.md says how to take them in.
check-fuzz:      ## Fuzzes the readers of foreign bytes and the encoder of streams, a minute each after the build. FUZZ_SECONDS=600 is longer.
	@command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz
	@set -e; cd fuzz; for target in $$(cargo fuzz list); do \
		mkdir -p target/corpus/$$target; \
		options="-max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=2048 -timeout=10"; \
		if [ -e dictionaries/$$target.dict ]; then options="$$options -dict=dictionaries/$$target.dict"; fi; \
		cargo fuzz run -s none $$target target/corpus/$$target corpus/$$target -- $$options; \
	done

check-jobs:      ## Runs 5,000 jobs on each database while their workers are killed, frozen and stopped; five minutes. ARGS=--help lists what else it can.
	cargo build --locked -p ingress -p proc -p standalone -p checker
	$(CHECKER) jobs $(ARGS)

check-sabotage:  ## Whether deliberate bugs are noticed, each beside the same run without it.
	cargo build --locked -p ingress -p proc -p checker
	$(CHECKER) sabotage $(ARGS)

audit:           ## Licences, sources and duplicates of dependencies; needs `cargo install cargo-deny`.
	cargo deny --locked check
	cargo deny --locked --manifest-path fuzz/Cargo.toml check --config deny.toml

check-manifests: ## Schemas, settings, ports and deadlines of deploy/; needs Python, downloads two packages the first time.
	@scripts/check-manifests

settings:        ## Writes the README's table of settings anew.
	PARLEY_REGENERATE=1 cargo test --locked -p standalone the_table_of_settings

proto:           ## Writes proto/src anew after a change to a .proto file.
	PARLEY_REGENERATE=1 cargo test --locked -p proto

bench:           ## Acknowledged sends a second, beside the same SQL in a bare loop.
	cargo run --release --locked -p bench -- sends

bench-cluster:   ## Sends and deliveries by way of nginx and three ingress, beside pgbench on the same database; four minutes.
	cargo build --release --locked -p ingress -p proc -p bench
	$${CARGO_TARGET_DIR:-target}/release/bench cluster $(ARGS)

bench-jobs:      ## Jobs a second beside graphile-worker and pg-boss on the same database, and how long one waits; five minutes. ARGS=--help lists what can be changed.
	cargo build --release --locked -p ingress -p proc -p bench
	$${CARGO_TARGET_DIR:-target}/release/bench jobs $(ARGS)

bench-quick:     ## Twelve seconds of bench-streams, for a look at the ratios.
	cargo run --release --locked -p bench -- streams --quick

bench-streams:   ## What a stream costs, beside bare writes and the servers that bench/peers/setup installs.
	cargo run --release --locked -p bench -- streams
