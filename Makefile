# goiscsi: build, test and show. "make help" lists the targets.

# Go is often installed where a bare PATH does not look.
export PATH := $(PATH):/usr/local/go/bin
GO ?= go

# The release number stands in internal/version; a release build replaces it.
VERSION ?=
LDFLAGS := -s -w $(if $(VERSION),-X github.com/goiscsi/goiscsi/internal/version.Version=$(VERSION))
COMMANDS := iscsiadm iscsid iscsi-iname iscsi-target

# Tools of the tests, out of the way of what is to be installed.
TOOLS := dist/tools

FUZZTIME ?= 3s
# How long random faults go on.
SOAKTIME ?= 30s
# The parts of the suite that "make test" runs; empty means all.
PARTS ?=
PKG ?= ./test/kernel
RUN ?=
# The kind of guest: uml (2 s), systemd (a minute), qemu (15 s, two processors,
# Debian's newest kernel; wants test/deps qemu).
KIND ?= uml
# Settings for a test in a guest, as NAME=value.
ENV ?=
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOLANGCI := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

.DEFAULT_GOAL := build

## build: iscsiadm, iscsid, iscsi-iname and iscsi-target as static binaries in bin/
.PHONY: build
build:
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ $(COMMANDS:%=./cmd/%)

## test: everything (unit, real targets, guests, fuzzing for a short time); PARTS="unit guest" for some of it
.PHONY: test
test:
	@mkdir -p $(TOOLS)
	@$(GO) build -o $(TOOLS)/suite ./test/suite
	@$(TOOLS)/suite -fuzztime $(FUZZTIME) -soaktime $(SOAKTIME) $(if $(V),-v) $(PARTS)

## unit: go test ./... alone: no root, no network, no packages
.PHONY: unit
unit:
	$(GO) test ./...

## demo: the tutorial from discovery to a checksum verified across logout and login
.PHONY: demo
demo: build
	@test/demo/demo

## bench: measure against qemu-nbd, libiscsi and the kernel's initiator
.PHONY: bench
bench: build
	@test/deps bench
	@test/bench/run

## bench-records: 10,000 records, beside open-iscsi's iscsiadm, into docs/benchmarks-records.md; as root
.PHONY: bench-records
bench-records: build
	@test/deps bench
	@mkdir -p $(TOOLS)
	@$(GO) build -o $(TOOLS)/records ./test/bench/records
	@$(TOOLS)/records -report docs/benchmarks-records.md

## guest: run SCRIPT=file as root in a guest with its own kernel; KIND=uml, systemd or qemu
.PHONY: guest
guest: $(TOOLS)/guest
	@$(TOOLS)/guest -kind $(KIND) $(SCRIPT) $(TIMEOUT)

## guest-test: run the guest tests of PKG=./package, RUN=regexp, V=1 to name each, ENV="NAME=value …" for the guest
.PHONY: guest-test
guest-test: build $(TOOLS)/guest
	@$(TOOLS)/guest -kind $(KIND) $(foreach e,$(ENV),-env $(e)) $(if $(V),-v) -test $(PKG) -run '$(RUN)' $(TIMEOUT)

# The go command knows better than make what is up to date.
.PHONY: $(TOOLS)/guest
$(TOOLS)/guest:
	@test/deps demo $(filter qemu,$(KIND))
	@mkdir -p $(TOOLS)
	@$(GO) build -o $@ ./test/guest/run

## deb: the Debian package, in dist/
.PHONY: deb
deb: build
	@VERSION=$(VERSION) internal/packaging/debian/build bin dist

## tarball: static binaries, units, rules and man pages for other systems, in dist/; GOARCH=arm64 VERSION=1.0 for another machine
.PHONY: tarball
tarball: build
	@VERSION=$(VERSION) ARCH=$(GOARCH) internal/packaging/tarball bin dist

## fuzz: every fuzz target for FUZZTIME (default 3s)
.PHONY: fuzz
fuzz:
	@$(MAKE) --no-print-directory test PARTS=fuzz V=1

## cover: coverage of the unit tests, in dist/cover.html
.PHONY: cover
cover:
	@mkdir -p dist
	$(GO) test -coverpkg=./... -coverprofile=dist/cover.out ./...
	$(GO) tool cover -html=dist/cover.out -o dist/cover.html
	@$(GO) tool cover -func=dist/cover.out | tail -n 1

## lint: go vet, staticcheck, and golangci-lint with .golangci.yml
.PHONY: lint
lint:
	$(GO) vet -tags integration,guest ./...
	$(GO) run $(STATICCHECK) -tags integration,guest ./...
	$(GO) run $(GOLANGCI) run ./...

## api: note a change of the library's exported names that is meant (docs/library.md)
.PHONY: api
api:
	$(GO) test ./test/api -run TestExportedNames -count=1 -args -update

## fmt: gofmt, in place
.PHONY: fmt
fmt:
	gofmt -w .

## clean: remove what the other targets made
.PHONY: clean
clean:
	rm -rf bin dist

## help: this list
.PHONY: help
help:
	@sed -n 's/^## //p' $(MAKEFILE_LIST) | awk -F': ' '{ printf "  %-12s %s\n", $$1, $$2 }'
