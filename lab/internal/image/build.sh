#!/bin/sh
# Builds what the guest boots from: build.sh OUTDIR MIRROR KERNEL
#
# OUTDIR gets root.img (ext4, no partition table), vmlinux and initrd. Nothing of
# this project goes in: tests install what they test into the running guest.
# KERNEL is "stock" or "backports". The text of this script is part of the key
# under which the result is cached.
set -eu

out=$1 mirror=$2 kernel=$3
suite=trixie
root=$out/root

packages=systemd-sysv,udev,kmod,mdadm,fio,e2fsprogs,util-linux,procps,qemu-guest-agent,gdisk,fdisk,parted
packages=$packages,xfsprogs,dmsetup,linux-image-amd64,initramfs-tools,busybox-static,cpio,xz-utils,zstd

sources="deb $mirror $suite main"
if [ "$kernel" = backports ]; then
	sources="$sources
deb $mirror $suite-backports main"
fi

# Modules that no virtual machine can use only make the image slow to build.
excludes=
for dir in gpu media infiniband iio staging bluetooth isdn hwmon leds mmc mtd net video usb power \
	pinctrl platform mfd hid i2c regulator comedi thunderbolt accel edac firewire soundwire spi; do
	excludes="$excludes --dpkgopt=path-exclude=*/lib/modules/*/kernel/drivers/$dir/*"
done
for dir in sound net/mac80211 net/wireless net/bluetooth; do
	excludes="$excludes --dpkgopt=path-exclude=*/lib/modules/*/kernel/$dir/*"
done

# Runs in the empty root, before any package is unpacked. The kernel's scripts
# would spend half a minute on an initramfs that direct boot has no use for.
cat >"$out/setup.sh" <<'SETUP'
set -eu
mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/etc/apt/preferences.d"
printf 'MODULES=list\nCOMPRESS=zstd\nRESUME=none\n' >"$1/etc/initramfs-tools/conf.d/lab"
cat >"$1/etc/apt/preferences.d/kernel" <<END
Package: src:linux src:linux-base src:linux-signed-amd64
Pin: release n=trixie-backports
Pin-Priority: 900
END
SETUP

rm -rf "$root"
# shellcheck disable=SC2086 # excludes is a list of words
echo "$sources" | mmdebstrap --quiet --variant=essential --include="$packages" \
	--aptopt='APT::Install-Recommends "false"' \
	--aptopt='Acquire::Languages "none"' \
	--dpkgopt=force-unsafe-io \
	--dpkgopt=path-exclude='/usr/share/doc/*' \
	--dpkgopt=path-exclude='/usr/share/man/*' \
	--dpkgopt=path-exclude='/usr/share/locale/*' \
	--dpkgopt=path-exclude='/usr/share/info/*' \
	$excludes \
	--setup-hook="sh '$out/setup.sh' \"\$1\"" \
	"$suite" "$root" -

# Nobody logs in, nothing is on the network, and calendar timers would fire
# whenever a test sets the clock forward.
for unit in getty.target getty@tty1.service console-getty.service serial-getty@.service \
	systemd-logind.service systemd-networkd.service systemd-networkd.socket \
	systemd-resolved.service systemd-timesyncd.service e2scrub_reap.service e2scrub_all.timer \
	fstrim.timer dpkg-db-backup.timer systemd-tmpfiles-clean.timer mdcheck_start.timer \
	mdcheck_continue.timer mdmonitor-oneshot.timer systemd-firstboot.service; do
	ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
ln -sf /usr/lib/systemd/system/multi-user.target "$root/etc/systemd/system/default.target"

echo lab >"$root/etc/hostname"
tr -d - </proc/sys/kernel/random/uuid >"$root/etc/machine-id"
mkdir -p "$root/var/log/journal"
: >"$root/etc/fstab"
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/boot/initrd.img-*
# The work of a first boot is done here, once.
chroot "$root" journalctl --update-catalog
touch "$root/etc/.updated" "$root/var/.updated"

# The initramfs only finds the root disk. It has no SCSI driver, so the disks
# under test show up when the real root runs, with whatever rules that has.
version=$(basename "$root"/usr/lib/modules/*)
ram=$root/tmp/initrd
mkdir -p "$ram/bin" "$ram/modules" "$ram/dev" "$ram/sys" "$ram/proc" "$ram/root"
cp "$root/usr/bin/busybox" "$ram/bin/busybox"
n=100
for module in $(for name in virtio_pci virtio_blk ext4; do
	chroot "$root" modprobe -S "$version" --show-depends "$name"
done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }'); do
	file=$ram/modules/$n-$(basename "$module")
	cp "$root$module" "$file"
	case $file in
	*.xz) xz -d "$file" ;;
	*.zst) zstd -dq --rm "$file" ;;
	esac
	n=$((n + 1))
done
cat >"$ram/init" <<'INIT'
#!/bin/busybox sh
b=/bin/busybox
$b mount -t devtmpfs dev /dev
$b mount -t sysfs sys /sys
$b mount -t proc proc /proc
for module in /modules/*; do $b insmod "$module"; done
while ! [ -b /dev/vda ]; do $b usleep 10000; done
$b mount -t ext4 /dev/vda /root
for dir in dev sys proc; do $b mount -o move /$dir /root/$dir; done
exec $b switch_root /root /usr/lib/systemd/systemd
INIT
chmod +x "$ram/init"
chroot "$root" sh -c 'cd /tmp/initrd && find . | cpio --quiet -o -H newc' >"$out/initrd"
rm -rf "$ram"

# An emulated CPU takes seconds to unpack a kernel: boot it unpacked.
image=$(echo "$root"/boot/vmlinuz-*)
for format in '\xFD7zXZ\x00 xz' '\x28\xB5\x2F\xFD zstd'; do
	for offset in $(LC_ALL=C grep -aboP "${format% *}" "$image" | cut -d: -f1); do
		tail -c "+$((offset + 1))" "$image" | "${format#* }" -dcq >"$out/vmlinux" 2>/dev/null || :
		[ "$(head -c 4 "$out/vmlinux" | tr -d '\177')" != ELF ] || break 2
	done
done
[ "$(head -c 4 "$out/vmlinux" | tr -d '\177')" = ELF ] || {
	echo "build.sh: no ELF image inside $image" >&2
	exit 1
}
rm -f "$image"

mke2fs -q -F -t ext4 -L labroot -E lazy_itable_init=1,nodiscard -d "$root" "$out/root.img" 3G
rm -rf "$root" "$out/setup.sh"
