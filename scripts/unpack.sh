#!/usr/bin/env bash
# Unpacks, once, a package of this Debian and what it depends on into a folder, and
# prints the folder's path: for servers that cannot be installed beside Postfix, or
# that would start by themselves. The tests lay its usr over /usr in a namespace of
# their own. Needs root and apt-get. Exit code 3: this machine cannot do it, for the
# reason on standard error.
set -euo pipefail

package=${1:?which package}
cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/pawl
dir=$cache/unpacked/$package

cannot() {
	echo "unpack: $1" >&2
	exit 3
}

if [ -d "$dir" ]; then
	echo "$dir"
	exit 0
fi
[ "$(id -u)" = 0 ] || cannot "only root can have apt-get fetch $package"
command -v apt-get >/dev/null 2>&1 || cannot "apt-get is not here"

mkdir -p "$cache/unpacked"
exec 9>"$cache/unpacked.lock" # apt-get has locks of its own, for which it does not wait
flock 9
if [ -d "$dir" ]; then # another made it meanwhile
	echo "$dir"
	exit 0
fi
echo "unpack: fetching $package (once)" >&2
new=$dir.new
rm -rf "$new" && mkdir -p "$new/packages"
log=$dir.log
fetch() {
	apt-get -qq update || return
	# What an installation would add; what it would remove stays.
	local names
	names=$(apt-get -qq --simulate --no-install-recommends install "$package" | awk '$1 == "Inst" { print $2 }') || return
	[ -n "$names" ] || names=$package
	(cd "$new/packages" && apt-get -qq -o APT::Sandbox::User=root download $names) || return
	for file in "$new"/packages/*.deb; do
		dpkg-deb -x "$file" "$new" || return
	done
	rm -r "$new/packages"
	if [ -d "$new/lib" ]; then # which is /usr/lib
		cp -a "$new/lib" "$new/usr/" && rm -r "$new/lib"
	fi
}
if ! fetch >"$log" 2>&1; then
	tail -20 "$log" >&2
	echo "unpack: $package could not be fetched; the last lines are above, all of them in $log" >&2
	exit 1
fi
mv "$new" "$dir"
echo "$dir"
