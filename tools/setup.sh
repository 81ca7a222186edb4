#!/bin/sh
# Installs what building and testing need and the machine lacks, and says so.
# Debian 12 and 13; as root, or with sudo. Arguments are packages that are needed
# as well.
set -eu

need() { # need COMMAND PACKAGE
	command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}

PATH=$PATH:/usr/sbin:/sbin:/usr/local/go/bin
missing=
need go golang-go
need git git
need gcc gcc
need mdadm mdadm
need zstd zstd
need udevadm udev
need systemd-analyze systemd
need journalctl systemd
need qemu-system-x86_64 qemu-system-x86
need qemu-img qemu-utils
need mmdebstrap mmdebstrap
need mkfs.ext4 e2fsprogs

# The judge of Adaptec's metadata; Debian 13 has no package of it any more.
if grep -q '^VERSION_ID="12"' /etc/os-release; then
	need dmraid dmraid
fi

for package; do
	dpkg -s "$package" >/dev/null 2>&1 || missing="$missing $package"
done

if [ -n "$missing" ]; then
	sudo=
	[ "$(id -u)" = 0 ] || sudo=sudo
	echo "installing packages:$missing"
	export DEBIAN_FRONTEND=noninteractive
	$sudo apt-get update -qq
	# shellcheck disable=SC2086 # a list of packages
	$sudo apt-get install -y -qq --no-install-recommends $missing ca-certificates
fi

# Any Go from 1.21 on fetches the toolchain that go.mod names.
go version
