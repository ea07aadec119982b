#!/usr/bin/env bash
# Unpacks, once, this Debian's Exim into a folder of its own, for the test in which
# it takes mail, and prints its path. It cannot be installed beside Postfix. Needs
# root and apt-get. Exit code 3: this machine cannot do it, for the reason on
# standard error.
set -euo pipefail

recipe=1 # raise it when the packages below change
package=exim4-daemon-light
libraries=(libdb5.3 libgnutls-dane0 libgnutls30 libidn12 libidn2-0 libnsl2 libpcre2-8-0)
cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/pawl
dir=$cache/exim-$recipe

cannot() {
	echo "exim: $1" >&2
	exit 3
}

if [ -d "$dir" ]; then
	echo "$dir"
	exit 0
fi
[ "$(id -u)" = 0 ] || cannot "only root can have apt-get fetch it"
command -v apt-get >/dev/null 2>&1 || cannot "apt-get is not here"

mkdir -p "$cache"
exec 9>"$cache/exim.lock"
flock 9
if [ -d "$dir" ]; then # another made it meanwhile
	echo "$dir"
	exit 0
fi
new=$dir.new
rm -rf "$new" && mkdir -p "$new"
log=$cache/exim.log
if ! {
	cd "$new"
	apt-get -qq update
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${libraries[@]}"
	apt-get download -qq -o APT::Sandbox::User=root "$package"
	dpkg -x "$package"_*.deb .
	rm "$package"_*.deb
} >"$log" 2>&1; then
	tail -20 "$log" >&2
	echo "exim: it could not be fetched; the last lines are above, all of them in $log" >&2
	exit 1
fi
mv "$new" "$dir"
echo "$dir"
