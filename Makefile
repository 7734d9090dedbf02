.DEFAULT_GOAL := help
.PHONY: help run down reset status parcels build test attack fuzz mutants chaos ha plans matrix upgrade bench peers smoke check api-check clients deployment prepare audit nightly

# Of both services at once, so that what they share is compiled once; without the other crates, whose
# features of shared dependencies would end up in the services.
release := cargo build --release -p order-service -p activity-service

help: ## Show this
	@awk -F ': *## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## Provide, start and try everything, then follow the logs (FOLLOW=0: leave it running)
	@dev/run

down: ## Stop what make run started
	@dev/run down

reset: ## Stop it and remove its data
	@dev/run reset

status: ## Show what runs, and where
	@dev/run status

parcels: ## Run the example of a third service beside activity-service: a parcel is booked, and counted
	dev/provide test
	cargo build -p parcels -p activity-service
	dev/with-stack dev/parcels

build: ## Build both services for release, each with what it is made of (CycloneDX)
	$(release)
	dev/provide sbom
	dev/sbom

# What make test builds and runs: everything; or, where ARGS names crates by -p, those and the services that tests start.
ifeq ($(filter -p% --package%,$(ARGS)),)
tested := --workspace
built := --workspace --all-targets --features failpoints
else
built := -p order-service -p activity-service --features order-service/failpoints,activity-service/failpoints
endif

# Tests wait more than they compute: two at a time kept two cores busy for 61 % of the time, three for 77 %.
test: export RUST_TEST_THREADS ?= $(shell expr $$(nproc) + 1)

test: ## Run every test on a Postgres and a Kafka of their own (ARGS='--test it name', -p CRATE: of one)
	dev/provide test
	cargo build $(built)
	dev/with-stack cargo test $(tested) --features failpoints $(ARGS)

attack: ## Try the attack list of SECURITY.md (OWASP API Top 10, RFC 8725) on loopback, in minutes
	dev/provide test
	cargo build -p order-service -p activity-service --features order-service/failpoints,activity-service/failpoints
	dev/with-stack dev/attack

fuzz: ## Feed order bodies, tokens and messages made up by libFuzzer, 60 s each (ARGS='300 message')
	dev/provide fuzz
	dev/fuzz $(ARGS)

mutants: ## Show that the tests can fail: plant known bugs, each has to be caught (ARGS='mark-at-enqueue')
	dev/provide test
	dev/with-stack dev/seeded-bugs $(ARGS)

chaos: ## Break everything at random under load, then at each step there is, and judge (ARGS='--quick --seed 7')
	dev/provide test
	$(release)
	cargo run --release -p testing --example chaos -- $(ARGS)
	cargo build --workspace --all-targets --features failpoints
	dev/with-stack cargo test --workspace --features failpoints --test it matrix -- --ignored

ha: ## Measure what the death of a leader, of two of three brokers and of the primary costs under load, and judge (target/ha)
	dev/provide test
	$(release)
	cargo run --release -p testing --example ha

plans: ## Read the plans of statements on tables of a million rows each
	dev/provide test
	cargo build --workspace --all-targets --features failpoints
	dev/with-stack cargo test --workspace --features failpoints --test it plans -- --ignored

matrix: ## Try each version of Postgres and Kafka that is supported, and write their table (ARGS=--short: briefly, the oldest and the newest)
	dev/provide matrix
	cargo build --workspace --all-targets --features failpoints
	dev/matrix $(ARGS)

upgrade: ## Run the version before the newest migration beside that of now (ARGS=COMMIT: that version)
	dev/provide test
	cargo build --workspace --all-targets --features failpoints
	dev/with-stack dev/upgrade $(ARGS)

bench: ## Measure speed and memory; figures go to target/bench
	dev/provide test
	$(release)
	cargo build --release -p bench
	dev/with-stack cargo run --release -p bench -- $(ARGS)

peers: ## Measure what could be used instead beside the services, and renew docs/benchmarks (ARGS=--quick: briefly, into target/peers)
	dev/provide peers
	$(release)
	cargo build --release -p bench
	STACK_WAL_LEVEL=logical dev/with-stack dev/peers/run $(ARGS)

smoke: ## See that measurements work, by small ones of what make test has built: their figures mean nothing
	dev/provide test
	cargo build --workspace --all-targets --features failpoints
	dev/with-stack target/debug/bench --quick drain consume takeover

check: ## Formatting, lints, spelling, types of the pages' scripts; whether documents, query data and seeded bugs fit the sources
	dev/provide check
	python3 dev/check/documents.py
	python3 dev/check/sources.py
	python3 dev/check/rooms.py
	.dev/tools/lint/bin/shellcheck $$(git grep --untracked -lE '^#!.*\bbash$$' -- .ci dev)
	.dev/tools/lint/bin/typos
	dev/provide test
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets --features failpoints -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps --features failpoints
	dev/with-stack dev/sqlx-prepare --check
	dev/provide pages
	@for of in shared order-service activity-service; do .dev/tools/typescript/node_modules/.bin/tsc -p $$of/pages || exit 1; done
	@for bug in testing/seeded-bugs/*.patch; do git apply --check $$bug || exit 1; done

api-check: ## Let Schemathesis look for answers that the OpenAPI documents do not tell of (ARGS='-n 100')
	dev/provide api
	cargo build -p order-service -p activity-service
	dev/with-stack dev/api-check $(ARGS)

clients: ## Generate clients in four languages, compile them, and use them and docs/examples against the services
	dev/provide clients
	cargo build -p order-service -p activity-service
	dev/with-stack dev/clients/run

deployment: ## Check manifests, the chart, alerts and dashboards of deploy/, without a cluster
	dev/provide deploy
	cargo build --workspace --all-targets --features failpoints
	.dev/tools/python/bin/python deploy/check/observability.py
	.dev/tools/python/bin/python deploy/check/rules_of_operator.py
	.dev/tools/bin/promtool check config deploy/observability/prometheus.yml
	.dev/tools/bin/promtool test rules deploy/observability/alerts.test.yml
	.dev/tools/python/bin/python deploy/check/kubernetes.py .dev/tools/bin/kustomize $${CARGO_TARGET_DIR:-target}/debug
	.dev/tools/python/bin/python deploy/check/helm.py .dev/tools/bin/helm .dev/tools/bin/kustomize

prepare: ## Write the query data (.sqlx) and the OpenAPI documents again after a change of queries, migrations or routes
	dev/provide test
	dev/with-stack dev/sqlx-prepare
	UPDATE=1 cargo test -q -p order-service -p activity-service --features failpoints --test it the_checked_in

nightly: mutants chaos ha plans fuzz audit matrix clients upgrade ## What takes hours: mutants, chaos, ha, plans, fuzz, audit, matrix, clients and upgrade, then small runs of every measurement
	$(MAKE) bench ARGS=--quick

audit: ## Check dependencies: bans, licences, sources, advisories (ADVISORY_DB=PATH of a clone)
	dev/provide audit
	dev/audit
