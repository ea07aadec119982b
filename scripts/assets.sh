#!/usr/bin/env bash
# Renews the third-party web assets of internal/web/assets/vendor: each is the
# file of the named version's npm package, whole, with its licence.
set -euo pipefail
cd "$(dirname "$0")/../internal/web/assets"

vendor() { # package version file-in-package
	local dir tar
	dir=$(mktemp -d)
	tar=$(cd "$dir" && npm pack --silent "$1@$2")
	tar -xzf "$dir/$tar" -C "$dir"
	mkdir -p "vendor/$1-$2"
	cp "$dir/package/$3" "$dir/package/LICENSE" "vendor/$1-$2/"
	rm -rf "$dir"
	echo "$1 $2: vendor/$1-$2/$(basename "$3")"
}

rm -rf vendor
vendor htmx.org 2.0.11 dist/htmx.min.js
