#!/usr/bin/env bash
# Installs what the tests with real servers need. On Debian, as root, it uses
# apt-get; elsewhere it says what is missing, and the tests that need it are skipped.
set -euo pipefail

# command or path : Debian package
needs=(
	"gcc:gcc" # the race detector
	"/usr/sbin/postfix:postfix"
	"/usr/sbin/unbound:unbound"
	"/usr/sbin/named:bind9"
	"/usr/bin/dnssec-signzone:bind9-utils"
	"/usr/sbin/knotd:knot"
	"/usr/lib/postgresql:postgresql"
	"strace:strace"
	"swaks:swaks"
	"msmtp:msmtp"
	"python3:python3"
	"debootstrap:debootstrap"
	"ip:iproute2"
	"chromium:chromium"
	"/usr/bin/pebble:pebble"
)

missing=() packages=()
for need in "${needs[@]}"; do
	what=${need%%:*}
	if [[ $what == /* ]]; then
		[ -e "$what" ] && continue
	elif command -v "$what" >/dev/null 2>&1; then
		continue
	fi
	missing+=("$what") packages+=("${need##*:}")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
	echo "deps: not installed here: ${missing[*]}" >&2
	echo "deps: the tests that need them are skipped; on Debian, run 'make deps' as root to have them all" >&2
	exit 0
fi

# A package's service must not start: the tests start servers of their own.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod +x "$policy"
	trap 'rm -f "$policy"' EXIT
fi
echo "deps: installing ${packages[*]}"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
if ! { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${packages[@]}"; } >"$log" 2>&1; then
	tail -20 "$log" >&2
	echo "deps: apt-get failed; its last lines are above" >&2
	exit 1
fi
