# `make` alone lists the targets. Everything made goes to ./bin, which git
# ignores; the tools are pinned in tools/*/go.mod and built from source.

GO      ?= go
# A release says its tag; a checkout says where it is; a tarball says dev.
GIT     := $(if $(wildcard .git),$(shell git describe --tags --always --dirty 2>/dev/null))
VERSION ?= $(or $(GIT),dev)
REVISION = $(or $(if $(GIT),$(shell git rev-parse HEAD)),unknown)
PKG     ?= ./...

BIN   := $(CURDIR)/bin
TOOLS := $(BIN)/tools
LINT  := $(TOOLS)/golangci-lint
BUF   := PATH="$(TOOLS):$$PATH" buf

# Time limit of one package's tests, and packages tested at once. Clusters under
# the race detector share the machine badly, so it is not one a core on large ones.
TEST_TIMEOUT ?= 20m
TEST_P       ?= 2
TEST_FLAGS   ?=
FUZZTIME     ?= 30s
# Virtual hours of make sim, or real seconds, or one seed.
SIM_SEED     ?=
SIM_FROM     ?=
SIM_FOR      ?=
SIM_HOURS    ?= $(if $(SIM_SEED)$(SIM_FOR),,5)
BENCH        ?= .
BENCH_FLAGS  ?=
DEV_FLAGS    ?=
IMAGE        ?= logd:dev
CLIENT_IMAGE ?= logd-client:dev
IMAGE_FLAGS  ?=
DEMO_FLAGS   ?=
SOAK         ?= 10m
SOAK_FLAGS   ?=
CRASH_FLAGS  ?=
# What make upgrade comes from.
OLD          ?= $(shell git describe --tags --abbrev=0 2>/dev/null)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help build images deb dev demo soak test test-long test-system test-browser test-deploy upgrade sim crash fuzz bench bench-proxy bench-cluster bench-log bench-go lint fmt gen gen-check sbom licenses reproducible supply-check ci clean

help: ## list the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

## --- what ships ---

# grpcnotrace leaves out grpc's use of golang.org/x/net/trace, which nothing shows.
build: ## build bin/logd and bin/logproxy, static
	CGO_ENABLED=0 $(GO) build -tags grpcnotrace -trimpath -buildvcs=$(if $(GIT),auto,false) -ldflags '-s -w -X main.version=$(VERSION)' -o $(BIN)/ ./cmd/...

images: build ## the docker images logd:dev, both programs on nothing, and logd-client:dev (IMAGE, CLIENT_IMAGE)
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '-s -w' -o $(BIN)/image/client ./examples/client
	docker build $(IMAGE_FLAGS) --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) --target logd -t $(IMAGE) -f deploy/docker/Dockerfile .
	docker build $(IMAGE_FLAGS) --target client -t $(CLIENT_IMAGE) -f deploy/docker/Dockerfile .

# A tag v1.2.3 is version 1.2.3; what has none comes before every one that has. The same
# commit makes the same packages, to the bit.
DEB_ARCH    ?= $(shell $(GO) env GOARCH)
DEB_VERSION ?= $(subst -,+,$(or $(patsubst v%,%,$(filter v%,$(VERSION))),0~$(DEB_DATE).$(VERSION)))
DEB_EPOCH   := $(or $(if $(GIT),$(shell git log -1 --format=%ct)),1)
DEB_DATE     = $(shell date -u -d @$(DEB_EPOCH) +%Y%m%d%H%M%S)
deb: build $(TOOLS)/deb.stamp ## Debian packages bin/deb/logd_*.deb and logproxy_*.deb (DEB_VERSION)
	@rm -rf $(BIN)/deb && mkdir -p $(BIN)/deb
	@gzip -9nc CHANGELOG.md >$(BIN)/deb/CHANGELOG.md.gz
	@set -eu; for package in logd logproxy; do \
		gzip -9nc deploy/deb/$$package.8 >$(BIN)/deb/$$package.8.gz; \
		printf '%s (%s) unstable; urgency=medium\n\n  * What changed is in CHANGELOG.md.gz.\n\n -- The logd authors <maintainers@logd.invalid>  %s\n' \
			$$package '$(DEB_VERSION)' "$$(LC_ALL=C date -u -R -d @$(DEB_EPOCH))" | gzip -9n >$(BIN)/deb/$$package.changelog.gz; \
		DEB_ARCH=$(DEB_ARCH) DEB_VERSION='$(DEB_VERSION)' SOURCE_DATE_EPOCH=$(DEB_EPOCH) \
			$(TOOLS)/nfpm package -f deploy/deb/$$package.yaml -p deb -t $(BIN)/deb/; \
	done

dev: build ## three nodes and a proxy in one process (DEV_FLAGS)
	$(BIN)/logd dev $(DEV_FLAGS)

demo: build ## real processes, the leader killed twice, every record counted (DEMO_FLAGS)
	$(GO) run -buildvcs=false ./test/demo -bin $(BIN) $(DEMO_FLAGS)

soak: build ## real processes under load, hostile clients, kills and drains, for SOAK=10m (SOAK_FLAGS)
	$(GO) run -buildvcs=false ./test/soak -bin $(BIN) -for $(SOAK) $(SOAK_FLAGS)

## --- tests ---

test: ## all tests that need only Go and gcc, race detector on (PKG, TEST_FLAGS)
	CGO_ENABLED=1 $(GO) test -race -timeout $(TEST_TIMEOUT) -p $(TEST_P) $(TEST_FLAGS) $(PKG)

# -v, so that a test that was skipped says so. ZooKeeper's jars are looked for where Debian
# has them, or in LOGD_TEST_ZOOKEEPER, with which they have to be there, and java.
test-system: $(TOOLS)/test.stamp $(TOOLS)/deb.stamp ## the tests that need root, iproute2, curl, docker, chromium, prometheus or other clients (build tag system)
	LOGD_TEST_TOOLS=$(TOOLS) $(GO) test -v -tags system -run '^TestSystem' -count 1 -timeout 16m -p 1 $(TEST_FLAGS) ./test/...
	@$(MAKE) --no-print-directory test-browser

# A module of its own, since what it needs (Kubernetes, Helm) is large.
test-deploy: ## the files in deploy for Kubernetes, Helm, Nomad and Grafana, against their libraries and our programs
	cd test/deploy && CGO_ENABLED=0 GOWORK=off $(GO) test -vet all -count 1 -timeout 6m -p 2 $(TEST_FLAGS) ./...

test-browser: ## the admin pages in Debian's chromium (TEST_FLAGS=-update makes the pictures in docs/images)
	cd test/browser && GOWORK=off $(GO) test -v -run '^TestSystem' -count 1 -timeout 6m $(TEST_FLAGS) ./...

test-long: ## the tests that take a minute each, without the race detector
	$(GO) test -v -run '^TestLong' -count 1 -timeout 10m $(TEST_FLAGS) ./test/e2e

upgrade: ## roll a loaded cluster from the programs of OLD (a tag or commit; the last tag) to these, and back
	@test -n '$(OLD)' || { echo "there is no tag yet: make upgrade OLD=<commit>" >&2; exit 1; }
	@set -eu; tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; \
	git archive $(OLD) | tar -x -C "$$tmp"; \
	cd "$$tmp" && CGO_ENABLED=0 $(GO) build -buildvcs=false -ldflags '-X main.version=$(OLD)' -o $(BIN)/old/ ./cmd/...
	LOGD_OLD_BIN=$(BIN)/old $(GO) test -v -run '^TestUpgrade$$' -count 1 $(TEST_FLAGS) ./test/e2e

sim: ## replication in virtual time, every step checked (SIM_HOURS=50, SIM_FOR=seconds, SIM_FROM=, SIM_SEED=)
	$(GO) test -c -o $(BIN)/sim.test ./pkg/replica
	@cd pkg/replica && SIM_HOURS=$(SIM_HOURS) SIM_FOR=$(SIM_FOR) SIM_FROM=$(SIM_FROM) SIM_SEED=$(SIM_SEED) $(BIN)/sim.test -test.run '^TestSim$$' -test.timeout 0

crash: ## every state a crash can leave, two million of them, against a model (CRASH_FLAGS="-seed 1")
	$(GO) run -buildvcs=false ./test/crash $(CRASH_FLAGS)

fuzz: ## run every fuzz target for FUZZTIME
	@set -eu; for pkg in $$($(GO) list $(PKG)); do \
		for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "==> $$pkg $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$pkg; \
		done; \
	done

bench: build ## measure a cluster of real processes, with a line a GOAL (BENCH_FLAGS)
	$(GO) run -buildvcs=false ./test/bench -bin $(BIN) $(BENCH_FLAGS)

bench-proxy: build ## measure logproxy beside nginx, haproxy and no proxy (BENCH_FLAGS="-time 1s -rounds 3 -only unary")
	-@test/benchproxy/peers.sh $(BIN)/peers
	$(GO) run -buildvcs=false ./test/benchproxy -bin $(BIN) -peers $(BIN)/peers $(BENCH_FLAGS)

# The peers are built like ours: static, from modules, at pinned versions.
bench-cluster: build ## measure logd beside NATS JetStream and etcd (BENCH_FLAGS as of bench-proxy)
	cd test/benchcluster && CGO_ENABLED=0 GOWORK=off $(GO) build -trimpath -buildvcs=false -ldflags '-s -w' -o $(BIN)/peers/etcd go.etcd.io/etcd/server/v3
	cd test/benchcluster && CGO_ENABLED=0 GOWORK=off $(GO) build -trimpath -buildvcs=false -ldflags '-s -w' -o $(BIN)/peers/nats-server github.com/nats-io/nats-server/v2
	cd test/benchcluster && GOWORK=off $(GO) run -buildvcs=false . -bin $(BIN) -peers $(BIN)/peers $(BENCH_FLAGS)

bench-log: build ## measure the local log beside its peers, and a node's storage (BENCH_FLAGS of the first)
	cd test/benchlog && GOWORK=off $(GO) run -buildvcs=false . $(BENCH_FLAGS)
	$(GO) run -buildvcs=false ./test/bench -bin $(BIN) -only catchup,memory -rounds 3

bench-go: ## run the Go benchmarks, for benchstat (BENCH, PKG, TEST_FLAGS)
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -p 1 $(TEST_FLAGS) $(PKG)

## --- the source ---

lint: $(LINT) ## golangci-lint with .golangci.yml
	$(LINT) run $(PKG)
	cd test/benchlog && GOWORK=off $(GO) vet ./...
	cd test/browser && GOWORK=off $(GO) vet ./...
	cd test/nomad && CGO_ENABLED=0 GOWORK=off $(GO) vet ./...

fmt: $(LINT) $(TOOLS)/gen.stamp ## format Go and .proto files
	$(LINT) fmt
	$(BUF) format -w

gen: $(TOOLS)/gen.stamp ## generate pkg/api from its .proto files
	$(BUF) lint
	$(BUF) generate

gen-check: $(TOOLS)/gen.stamp ## fail when generated code is not what make gen makes
	$(BUF) lint
	$(BUF) format -d --exit-code
	@set -eu; tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; \
	$(BUF) generate -o "$$tmp"; \
	if ! diff -ru --exclude='*.proto' pkg/api "$$tmp/pkg/api"; then \
		echo "pkg/api is not what its .proto files generate: run make gen" >&2; exit 1; \
	fi

## --- where it comes from ---

MODULES := . test/benchlog test/benchcluster test/browser test/deploy test/nomad tools/deb tools/gen tools/lint tools/supply tools/test

sbom: $(TOOLS)/supply.stamp ## bin/sbom: what each program is made of, in CycloneDX's format
	@mkdir -p $(BIN)/sbom
	for program in logd logproxy; do \
		CGO_ENABLED=0 GOFLAGS=-tags=grpcnotrace $(TOOLS)/cyclonedx-gomod app -json -std -licenses \
			-output $(BIN)/sbom/$$program.cdx.json -main cmd/$$program . || exit 1; \
	done

licenses: $(TOOLS)/supply.stamp ## write docs/dependencies.md: the modules of both programs and their licences
	$(TOOLS)/licenses . ./cmd/... >$(BIN)/dependencies.md
	sed '/^| module/,$$d' docs/dependencies.md | cat - $(BIN)/dependencies.md >$(BIN)/dependencies.new
	mv $(BIN)/dependencies.new docs/dependencies.md

# Two clones in folders of different names, and nothing taken from a cache of one in the other.
reproducible: ## build what is committed twice, in different places: the programs are the same to the bit
	@set -eu; tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; \
	for place in one another/place; do \
		git clone -q . "$$tmp/$$place"; \
		GOCACHE="$$tmp/cache" $(MAKE) -s -C "$$tmp/$$place" build VERSION=$(VERSION) >/dev/null; \
		rm -rf "$$tmp/cache"; \
	done; \
	for program in logd logproxy; do \
		cmp "$$tmp/one/bin/$$program" "$$tmp/another/place/bin/$$program"; \
		sha256sum "$$tmp/one/bin/$$program" | sed "s| .*|  $$program|"; \
	done

supply-check: $(TOOLS)/supply.stamp sbom ## modules are what go.sum says, licences what docs/dependencies.md says
	@set -eu; for module in $(MODULES); do \
		printf '%s: ' "$$module"; (cd "$$module" && GOWORK=off $(GO) mod verify); \
	done
	$(TOOLS)/licenses test/nomad . >/dev/null
	$(TOOLS)/licenses . ./cmd/... >$(BIN)/dependencies.md
	@if ! sed -n '/^| module/,$$p' docs/dependencies.md | diff -u - $(BIN)/dependencies.md; then \
		echo "docs/dependencies.md is not what the modules say: run make licenses" >&2; exit 1; \
	fi

ci: ## what .ci/run runs, without installing anything
	.ci/run --no-install

clean: ## remove bin
	rm -rf $(BIN)

$(LINT): tools/lint/go.mod tools/lint/go.sum
	cd tools/lint && CGO_ENABLED=0 GOWORK=off $(GO) build -buildvcs=false -o $(TOOLS)/ tool
	@touch $@

# Newer ones need modules that the module proxy does not hand out.
$(TOOLS)/deb.stamp: tools/deb/go.mod tools/deb/go.sum
	cd tools/deb && CGO_ENABLED=0 GOWORK=off $(GO) build -buildvcs=false -o $(TOOLS)/ tool
	@touch $@

$(TOOLS)/test.stamp: tools/test/go.mod tools/test/go.sum
	cd tools/test && CGO_ENABLED=0 GOWORK=off $(GO) build -buildvcs=false -o $(TOOLS)/ tool
	@touch $@

$(TOOLS)/supply.stamp: tools/supply/go.mod tools/supply/go.sum $(wildcard tools/supply/licenses/*.go)
	cd tools/supply && CGO_ENABLED=0 GOWORK=off $(GO) build -buildvcs=false -o $(TOOLS)/ tool
	@touch $@

$(TOOLS)/gen.stamp: tools/gen/go.mod tools/gen/go.sum
	cd tools/gen && CGO_ENABLED=0 GOWORK=off $(GO) build -buildvcs=false -o $(TOOLS)/ tool
	@touch $@
