#!/bin/busybox sh
# The first process of the machine that bench/cost boots: as the lab's, but what
# it goes on with is not systemd.
b=/bin/busybox
$b mount -t devtmpfs dev /dev
$b mount -t sysfs sys /sys
$b mount -t proc proc /proc
for module in /modules/*; do $b insmod "$module"; done
while ! [ -b /dev/vda ]; do $b usleep 10000; done
$b mount -t ext4 -o ro /dev/vda /root
$b mount -t tmpfs run /root/run
$b mount -t tmpfs tmp /root/tmp
$b cp /bench/guest /bench/only /root/run/
$b cp /bench/raid-engine /root/run/raid-engine.bin
for dir in dev sys proc; do $b mount -o move /$dir /root/$dir; done
exec $b switch_root /root /run/guest
