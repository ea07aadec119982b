# pawl: run, test, measure. `make help` lists the targets.

SHELL      := /bin/bash
GO         ?= go
TOOLS      := $(CURDIR)/.tools
TOOL        = $(GO) tool -modfile=tools/go.mod
PKGS       ?= ./...
BENCH      ?= .
FUZZTIME   ?= 30s
TESTFLAGS  ?=

export CGO_ENABLED ?= 0

.PHONY: help build run test soak bench lint fuzz generate deps clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

build: ## build bin/pawl
	$(GO) build -trimpath -o bin/pawl ./cmd/pawl

run: build ## build, then `pawl demo`: a running server with the lab's small Internet around it
	@./bin/pawl demo

deps: ## install what the real-server tests need (Debian, as root); elsewhere say what is missing
	@scripts/deps.sh

test: deps ## every test, race detector on
	CGO_ENABLED=1 $(GO) test -race -timeout 15m $(TESTFLAGS) $(PKGS)
	$(GO) test -run TestNoNetwork ./internal/lab # 1,000 random networks, of which the line above runs every tenth

soak: deps ## the long runs: kills, random networks, a million rows
	PAWL_SOAK=1 CGO_ENABLED=1 $(GO) test -race -timeout 4h -run Soak $(TESTFLAGS) $(PKGS)

bench: build ## the measurements; BENCH=name for one
	$(GO) run ./internal/bench -run '$(BENCH)'

lint: ## vet, golangci-lint, gofumpt, deadcode
	@scripts/lint.sh

fuzz: ## every fuzz target for FUZZTIME each
	@scripts/fuzz.sh $(FUZZTIME)

generate: ## the pages' Go code from their templates
	$(TOOL) templ generate -path internal/web

clean: ## remove what was built
	rm -rf bin
