#!/usr/bin/env bash
# go vet, golangci-lint, gofumpt and deadcode. The tools are built from tools/go.mod
# into .tools, once per version.
set -euo pipefail
cd "$(dirname "$0")/.."

stamp=.tools/$(sha256sum tools/go.sum | cut -c1-16)
if [ ! -d "$stamp" ]; then
	echo "lint: building the tools (once)"
	rm -rf .tools && mkdir -p "$stamp.new"
	(cd tools && CGO_ENABLED=0 go build -o "../$stamp.new/" tool)
	mv "$stamp.new" "$stamp"
fi

fail=0
echo "lint: go vet"
go vet ./... || fail=1
echo "lint: gofumpt"
unformatted=$(git ls-files '*.go' | grep -v '_templ\.go$' | xargs "$stamp/gofumpt" -l)
if [ -n "$unformatted" ]; then
	echo "gofumpt would change:" && echo "$unformatted" && fail=1
fi
echo "lint: golangci-lint"
"$stamp/golangci-lint" run ./... || fail=1
echo "lint: deadcode"
# Tests count as callers: what only a test uses is for a test to use. The public
# packages are libraries, called by others.
dead=$("$stamp/deadcode" -test ./... | grep -vE '^(mtasts|dane|tlsrpt|dmarc|spf)/' || true)
if [ -n "$dead" ]; then
	echo "$dead" && fail=1
fi
exit $fail
