# One command for each thing a person does with this repository; `make help` lists them.

CARGO ?= cargo
CACHE ?= $(HOME)/.cache/dunlin
TARGET := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)
TOOLS := $(CACHE)/tools
CARGO_DENY := $(TOOLS)/bin/cargo-deny
CARGO_FUZZ := $(TOOLS)/bin/cargo-fuzz
# A compiler cache, when ccache is installed, keeps what it built beside our other caches.
export CCACHE_DIR ?= $(CACHE)/ccache

.DEFAULT_GOAL := help
.PHONY: help run build test peers prove bench lint fmt clippy doc deny advisories fuzz install

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Install what is missing, build, and run a flock of peers on this machine
	@scripts/setup.sh run
	$(CARGO) build --release --locked -p dunlin
	$(TARGET)/release/dunlin flock

build: ## Build the program
	$(CARGO) build --release --locked -p dunlin

peers: ## Prepare the real peers that tests run against (bitcoind, libtorrent, Transmission, Chromium)
	@scripts/setup.sh test
	$(CARGO) run --release --locked --quiet -p dunlin-testkit --bin testkit-setup

test: peers ## Install what is missing and run every test, those against real peers included
	$(CARGO) test --release --locked --workspace

# Seeds of the differential test, instants to kill at, bytes to change.
SEEDS ?= 200
KILLS ?= 200
FLIPS ?= 1000

prove: ## Run the chain's long tests: SEEDS stories beside Core's engine, KILLS kills, FLIPS changed bytes
	DUNLIN_DIFFERENTIAL=1000..$$((1000 + $(SEEDS))) DUNLIN_KILLS=$(KILLS) DUNLIN_FLIPS=$(FLIPS) \
		$(CARGO) test --release --locked -p dunlin-chain --test differential --test kill --test flip --test flip_index -- --nocapture

bench: peers ## Measure Dunlin against real peers on the same work in the same run
	$(CARGO) bench --profile release --locked -p dunlin --bench side_by_side -- $(ARGS)

lint: fmt clippy doc deny ## Every check that needs no running program

fmt:
	$(CARGO) fmt --all -- --check

clippy:
	$(CARGO) clippy --release --locked --workspace --all-targets -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --release --locked --workspace --no-deps --document-private-items

deny: $(CARGO_DENY)
	$(CARGO_DENY) --locked check --hide-inclusion-graph bans licenses sources

advisories: $(CARGO_DENY) ## Look for known vulnerabilities in dependencies (fetches the advisory database)
	$(CARGO_DENY) --locked check advisories

# Seconds for each target, and which; fuzz/README.md has the list.
TIME ?= 60
TARGETS ?= $(basename $(notdir $(wildcard fuzz/targets/*.rs)))

# The stable compiler takes the sanitizer's unstable flags because RUSTC_BOOTSTRAP says so.
fuzz: $(CARGO_FUZZ) ## Run each fuzz target for TIME seconds (60)
	@set -e; for target in $(TARGETS); do \
		mkdir -p fuzz/corpus/$$target fuzz/seeds/$$target; \
		RUSTC_BOOTSTRAP=1 $(CARGO_FUZZ) run --fuzz-dir fuzz $$target fuzz/corpus/$$target fuzz/seeds/$$target -- \
			-max_total_time=$(TIME) -timeout=20 -print_final_stats=1; \
	done

# Its own target directory, so that a tool's build never disturbs ours.
$(CARGO_DENY) $(CARGO_FUZZ):
	CARGO_TARGET_DIR=$(CACHE)/tools-target $(CARGO) install $(@F) --locked --quiet --root $(TOOLS)
	rm -rf $(CACHE)/tools-target

install: ## Install the program into cargo's bin folder
	@scripts/setup.sh run
	$(CARGO) install --locked --path crates/dunlin
