# Two commands for a fresh machine: `make run` and `make test`. `make help` lists the rest.

CARGO ?= cargo
TOOLS := target/tools/bin
DENY_VERSION := 0.20.2
DEB_VERSION := 3.8.0
RPM_VERSION := 0.21.1
CYCLONEDX_VERSION := 0.5.9
# The binary that is shipped. Static, so that it runs on every distribution and in an empty image; with the C library that
# the benchmarks ran with, as another brings its own memory allocator. Without symbols, and without this machine's paths.
STATIC_TARGET ?= $(shell rustc --version --verbose | sed -n 's/^host: //p')
STATIC := target/$(STATIC_TARGET)/release/skmem-exporter
STATIC_FLAGS = -C target-feature=+crt-static --remap-path-prefix=$(CURDIR)=/skmem-exporter \
	--remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)=/cargo
ROUTES := alerts/alertmanager.example.yml
ROUTED := amtool config routes test --config.file=$(ROUTES) --verify.receivers

# Tests want the host to themselves; and everything is looked for below ./target.
.NOTPARALLEL:
export CARGO_TARGET_DIR := $(CURDIR)/target
unexport CARGO_BUILD_TARGET

.PHONY: help run build test tools fmt clippy rules rules3 unit e2e dashboards doc deny bench bless clean static kubernetes image scraping arm64 manual packages dist shell

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "%-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: build ## Build and start the daemon; it prints its URL
	exec target/release/skmem-exporter

build: ## Build the release binary
	$(CARGO) build --release --locked

static: ## Build the static release binary, which packages and images carry
	CARGO_PROFILE_RELEASE_STRIP=symbols RUSTFLAGS="$(STATIC_FLAGS)" $(CARGO) build --release --locked --target $(STATIC_TARGET)
	@echo "make static: $(STATIC)"

manual: ## Write man pages and shell completions into target/manual
	@rm -rf target/manual
	$(CARGO) run --quiet --locked --example manual -- target/manual

packages: tools dist ## Build everything a release consists of, and try the packages under a real systemd
	rm -rf target/packages
	scripts/package target/packages $(STATIC_TARGET) 99.0.0
	scripts/with-container-engine /usr/bin/python3 -m unittest discover --verbose --start-directory tests/systemd

dist: static manual $(TOOLS)/cargo-deb $(TOOLS)/cargo-generate-rpm $(TOOLS)/cargo-cyclonedx ## Everything a release consists of, in target/dist
	scripts/dist $(STATIC_TARGET)

test: tools shell fmt clippy rules rules3 unit dashboards kubernetes image scraping packages doc deny ## Everything: fmt, clippy, alerts, all tests, manifests, image, packages, docs, licences
	@echo "make test: everything passed"

tools: ## Install what the tests need from Debian's packages, or say what is missing
	scripts/test-tools

shell: ## Lint the shell scripts
	shellcheck scripts/* deploy/debian/p*
	shellcheck --shell=sh deploy/rpm/*.sh

fmt: ## Check the formatting
	$(CARGO) fmt --check

clippy: ## Lint, warnings are errors
	$(CARGO) clippy --all-targets --locked -- -D warnings

unit: ## Unit, property, golden and live tests
	$(CARGO) test --locked

e2e: tools ## Provoke every alert, through a real Prometheus and Alertmanager (root; part of unit)
	$(CARGO) test --locked --test e2e -- --nocapture

dashboards: ## Check the dashboards with Grafana's dashboard-linter, if it is installed
	@PATH="$(CURDIR)/$(TOOLS):$$PATH"; \
	if command -v dashboard-linter >/dev/null; then \
		for file in dashboards/*.json; do dashboard-linter lint --strict "$$file" || exit 1; done; \
	else \
		echo "make dashboards: no dashboard-linter in PATH or $(TOOLS); tests/dashboards.rs alone has checked them"; \
	fi

kubernetes: ## Render and validate manifests and chart, and compare them; installs kustomize and helm below target
	scripts/deploy-tools
	target/tools/venv/bin/python tests/kubernetes/check.py

image: ## Build the image and run it as the DaemonSet does (root; some minutes)
	scripts/deploy-tools
	target/tools/venv/bin/hadolint Dockerfile
	scripts/with-container-engine target/tools/venv/bin/python tests/image/check.py

scraping: ## Try the scrape configurations with a real Prometheus (root)
	scripts/deploy-tools
	$(CARGO) build --locked
	unshare --net target/tools/venv/bin/python tests/scraping/check.py

arm64: ## Build for 64-bit ARM and see that it starts, in an emulator; not part of make test
	scripts/arm64

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

rules3: ## The same with the promtool of Prometheus 3, which it builds below target
	scripts/deploy-tools
	target/tools/prometheus3/promtool check rules --lint=all --lint-fatal alerts/skmem.rules.yml
	target/tools/prometheus3/promtool test rules alerts/tests/*.test.yml tests/kubernetes/joins.test.yml

doc: ## Check the API documentation, warnings are errors
	RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" $(CARGO) doc --no-deps --locked --document-private-items

deny: $(TOOLS)/cargo-deny ## Check licences and sources of all dependencies
	PATH="$(CURDIR)/$(TOOLS):$$PATH" $(CARGO) deny --log-level error --locked check --hide-inclusion-graph bans licenses sources

$(TOOLS)/cargo-deny: VERSION = $(DENY_VERSION)
$(TOOLS)/cargo-deb: VERSION = $(DEB_VERSION)
$(TOOLS)/cargo-generate-rpm: VERSION = $(RPM_VERSION)
$(TOOLS)/cargo-cyclonedx: VERSION = $(CYCLONEDX_VERSION)
$(TOOLS)/cargo-%:
	$(CARGO) install --quiet --root target/tools --locked $(@F)@$(VERSION)

bench: ## Measure against the bare kernel and the neighbours (root; a few minutes)
	$(CARGO) bench --locked --bench sample

bless: ## Rewrite goldens and generated documents after a change that is meant
	BLESS=1 $(CARGO) test --locked

clean: ## Remove everything built
	$(CARGO) clean
