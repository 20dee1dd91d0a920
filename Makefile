# Two commands for a fresh machine: `make run` and `make test`. `make help` lists the rest.

CARGO ?= cargo
TOOLS := target/tools/bin
DENY_VERSION := 0.20.2
ROUTES := alerts/alertmanager.example.yml
ROUTED := amtool config routes test --config.file=$(ROUTES) --verify.receivers

.PHONY: help run build test tools fmt clippy rules unit dashboards doc deny bench bless clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "%-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: build ## Build and start the daemon; it prints its URL
	exec target/release/skmem-exporter

build: ## Build the release binary
	$(CARGO) build --release --locked

test: tools fmt clippy rules unit dashboards doc deny ## Everything: fmt, clippy, alerts, all tests, dashboards, docs, licences
	@echo "make test: everything passed"

tools: ## Install what the tests need from Debian's packages, or say what is missing
	scripts/test-tools

fmt: ## Check the formatting
	$(CARGO) fmt --check

clippy: ## Lint, warnings are errors
	$(CARGO) clippy --all-targets --locked -- -D warnings

unit: ## Unit, property, golden and live tests
	$(CARGO) test --locked

dashboards: ## Check the dashboards with Grafana's dashboard-linter, if it is installed
	@PATH="$(CURDIR)/$(TOOLS):$$PATH"; \
	if command -v dashboard-linter >/dev/null; then \
		for file in dashboards/*.json; do dashboard-linter lint --strict "$$file" || exit 1; done; \
	else \
		echo "make dashboards: no dashboard-linter in PATH or $(TOOLS); tests/dashboards.rs alone has checked them"; \
	fi

rules: ## Check and test the alerts and their routes
	promtool check rules --lint=all --lint-fatal alerts/skmem.rules.yml
	promtool test rules alerts/tests/*.test.yml
	amtool check-config $(ROUTES)
	$(ROUTED)=pager alertname=SkmemProcessNotReading severity=critical
	$(ROUTED)=tickets alertname=SkmemProcessNotReading severity=warning
	$(ROUTED)=monitoring alertname=SkmemSampleStale severity=warning
	$(ROUTED)=monitoring alertname=SkmemLimitMissing severity=warning
	$(ROUTED)=pager alertname=SkmemExporterAbsent severity=critical
	$(ROUTED)=tickets alertname=NotOurs severity=critical

doc: ## Check the API documentation, warnings are errors
	RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" $(CARGO) doc --no-deps --locked --document-private-items

deny: $(TOOLS)/cargo-deny ## Check licences and sources of all dependencies
	PATH="$(CURDIR)/$(TOOLS):$$PATH" $(CARGO) deny --log-level error --locked check --hide-inclusion-graph bans licenses sources

$(TOOLS)/cargo-deny:
	$(CARGO) install --quiet --root target/tools --locked cargo-deny@$(DENY_VERSION)

bench: ## Measure against the bare kernel and the neighbours (root; a few minutes)
	$(CARGO) bench --locked --bench sample

bless: ## Rewrite goldens and generated documents after a change that is meant
	BLESS=1 $(CARGO) test --locked

clean: ## Remove everything built
	$(CARGO) clean
