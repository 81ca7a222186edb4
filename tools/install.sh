#!/bin/sh
# Stages the files that a host needs: install.sh DESTDIR PREFIX.
set -eu
cd "$(dirname "$0")/.."
dest=$1$2

put() { # put MODE DIRECTORY FILE...
	mode=$1 dir=$dest/$2
	shift 2
	install -d -m 755 "$dir"
	install -m "$mode" "$@" "$dir"
}

put 755 sbin bin/raid-assembler bin/raid-engine
put 644 lib/systemd/system systemd/*.service systemd/*.socket
put 755 lib/systemd/system-generators systemd/raid-assembler-generator
put 644 lib/systemd/catalog systemd/*.catalog
put 644 lib/udev/rules.d udev/*.rules
put 755 share/initramfs-tools/hooks initramfs/hooks/raid-assembler
put 755 share/initramfs-tools/scripts/init-bottom initramfs/scripts/init-bottom/raid-assembler

put 644 share/man/man8 man/raid-engine.8
put 644 share/man/man5 man/raid-assembler.conf.5
bin/raid-assembler man "$dest/share/man/man8"
for shell in bash zsh fish; do
	case $shell in
	bash) file=$dest/share/bash-completion/completions/raid-assembler ;;
	zsh) file=$dest/share/zsh/vendor-completions/_raid-assembler ;;
	fish) file=$dest/share/fish/vendor_completions.d/raid-assembler.fish ;;
	esac
	install -d -m 755 "$(dirname "$file")"
	bin/raid-assembler completion $shell >"$file"
	chmod 644 "$file"
done

# What is known of members that may be gone is kept there.
install -d -m 755 "$1/var/lib/raid-assembler"

# So that it starts at boot without a step that can be forgotten.
install -d -m 755 "$dest/lib/systemd/system/sysinit.target.wants" "$dest/lib/systemd/system/sockets.target.wants"
ln -sf ../raid-assembler.service "$dest/lib/systemd/system/sysinit.target.wants/"
ln -sf ../raid-engine.socket "$dest/lib/systemd/system/sockets.target.wants/"
