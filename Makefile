# Everything that is built, tested and installed. `make help` lists the targets.

GO      ?= go
DESTDIR ?=
PREFIX  ?= /usr
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
CACHE   := $(abspath .cache)
LONG    := TestExhausted|TestUnprotected|TestResident|TestRogueWrites|TestTortureKills|TestTortureRestarts|TestTakeOver|TestWithoutGuardian|TestNoThreads|TestLevels|TestGolden$$|TestCreated|TestCreateDDF|TestCreateIMSM|TestContainerSpareIMSM|TestRecoveryOfMdmon|TestHandOver|TestPowerCuts|TestPowerCutDuringARecord|TestPowerCutTakesAMember|TestPowerCutWhileMaking|TestHostile|TestChoose$$|TestStaleAlone|TestInitramfs|TestConfiguration|TestSpares|TestYanked|TestArrivals|TestDisturbed|TestAdversity|TestStrangers
LINTER  := $(CACHE)/bin/golangci-lint-v2.15.0

export CGO_ENABLED := 0

.PHONY: help setup build install demo test test-beside test-unit test-fuzz test-vm test-long test-kernels race soak fuzz-smoke lint fmt check-clean image clean bench compare
.DEFAULT_GOAL := help

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what building and testing need, saying so
	@tools/setup.sh

build: ## Build static bin/raid-assembler and bin/raid-engine
	@mkdir -p bin
	$(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/ ./cmd/raid-assembler ./cmd/raid-engine

install: build ## Stage the files that a host needs below DESTDIR
	tools/install.sh "$(DESTDIR)" "$(PREFIX)"

image: setup ## Build the guest image of the lab, if it is not there
	$(GO) run ./lab/cmd/labimage

demo: image build ## Show the main job, on real disks in a guest
	$(GO) run ./cmd/demo

test: setup image build ## Pass the tests: linters, unit tests, fuzzing, and a real kernel in a guest
	@$(MAKE) --no-print-directory --jobs 2 test-beside test-vm

# What a guest leaves of the processors is enough for these.
test-beside: $(LINTER)
	@MAKEFLAGS= nice -n 19 $(MAKE) --no-print-directory lint test-unit test-fuzz

test-unit: ## The tests that need no guest
	$(GO) vet ./...
	$(GO) test -json -timeout 40m $$($(GO) list ./... | grep -v /lab) | $(GO) run ./tools/report tools/skips.txt

test-fuzz: ## Fuzz the decoders of what lies on disks
	tools/fuzz.sh 30s pkg/metadata FuzzProbe

test-vm: build ## The tests in the guest
	$(GO) test -json -short -timeout 80m -p 1 ./lab/... | $(GO) run ./tools/report tools/skips.txt

test-long: setup image build ## What takes longer in the guest: more arrays, more power cuts
	$(GO) test -count 1 -v -timeout 120m -run '$(LONG)' ./lab/tests

test-kernels: setup build ## The tests in the guest, on each kernel of the lab
	for kernel in stock backports; do \
		RAID_LAB_KERNEL=$$kernel $(GO) run ./lab/cmd/labimage && \
		RAID_LAB_KERNEL=$$kernel $(GO) test -count 1 -short -timeout 80m -p 1 ./lab/... || exit 1; \
	done

soak: setup build image ## Faults for an hour (MINUTES): in the guest, and power cuts in the simulation beside it, from a new seed on
	seconds=$$(($(or $(MINUTES),60) * 60)); \
	nice -n 19 $(GO) test -timeout 0 ./pkg/engine/core -run TestCrash -v -crash.seed $$(date +%s) -crash.time $${seconds}s & \
	RAID_LAB_SECONDS=$$seconds $(GO) test -count 1 -v -timeout 0 -run '^TestSoak$$' ./lab/tests && wait $$!

race: setup ## The unit tests under the race detector
	CGO_ENABLED=1 $(GO) test -race -timeout 30m $$($(GO) list ./... | grep -v /lab)

fuzz-smoke: setup ## Each fuzz target for a while (FUZZTIME)
	tools/fuzz.sh $(or $(FUZZTIME),30s) pkg

compare: setup image ## Play to mdadm and to us what users complain of, and print what each made of it (ONLY)
	$(GO) run ./bench/compare -only '$(ONLY)'

bench: setup ## Compare parities with ISA-L, requests and the reaction to a spare with md, and size up formats
	tools/setup.sh libisal-dev
	CGO_ENABLED=1 $(GO) run -tags isal ./bench/parity
	$(GO) run ./bench/cost
	$(GO) run ./bench/size
	$(GO) run ./bench/compare -only 'reaction time'

lint: $(LINTER) ## Run the linters
	$(LINTER) run ./...

$(LINTER):
	@echo "installing golangci-lint v2.15.0 into $(CACHE)/bin"
	@GOBIN=$(CACHE)/bin $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
	@mv $(CACHE)/bin/golangci-lint $@

fmt: $(LINTER) ## Format the code
	$(LINTER) fmt ./...

check-clean: fmt ## Fail if formatting or tidying changes anything
	$(GO) mod tidy
	git diff --exit-code

clean: ## Remove what was built
	rm -rf bin .cache
