#!/usr/bin/env bash
# Makes, once, a folder with a minimal Debian 13, Postfix 3.10 and libtlsrpt in it,
# for the tests that run that Postfix under chroot, and prints its path. Packages
# come from the mirror that apt is configured with. Needs root and debootstrap.
# Exit code 3: this machine cannot do it, for the reason on standard error.
set -euo pipefail

recipe=1 # raise it when the packages below change
packages=postfix,libtlsrpt0
cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/pawl
dir=$cache/trixie-$recipe

cannot() {
	echo "trixie: $1" >&2
	exit 3
}

if [ -d "$dir" ]; then
	echo "$dir"
	exit 0
fi
[ "$(id -u)" = 0 ] || cannot "only root can make a Debian 13 folder"
for tool in debootstrap apt-get flock unshare; do
	command -v "$tool" >/dev/null 2>&1 || cannot "$tool is not installed"
done

# apt's own reading of its configuration: the main archive of the system that runs here.
release=$(. /etc/os-release && echo "${VERSION_CODENAME:-stable}")
mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
	awk -v release="$release" '$2 == release && $3 == "main" { print $1; exit }')
[ -n "$mirror" ] || cannot "apt's configuration names no mirror of Debian $release"
proxy=
eval "$(apt-config shell proxy Acquire::http::Proxy)"
[ -z "$proxy" ] || export http_proxy=$proxy

mkdir -p "$cache"
exec 9>"$cache/trixie.lock"
flock 9
if [ -d "$dir" ]; then # another made it meanwhile
	echo "$dir"
	exit 0
fi
echo "trixie: making $dir (once, a minute or so)" >&2
new=$dir.new
rm -rf --one-file-system "$new"
log=$cache/trixie.log
# In a mount namespace of its own, so that nothing stays mounted whatever happens.
if ! unshare -m debootstrap --variant=minbase --include="$packages" trixie "$new" "$mirror" >"$log" 2>&1; then
	tail -20 "$log" >&2
	echo "trixie: debootstrap did not finish; its last lines are above, all of them in $log" >&2
	exit 1
fi
rm -rf "$new"/var/cache/apt/archives/*.deb "$new"/var/lib/apt/lists/*
: >"$new/etc/resolv.conf" # something to mount the real one on
mv "$new" "$dir"
echo "$dir"
