#!/bin/sh
# Runs in the new root.
set -eu
mkdir -p /var/lib/vz /mnt/xfs /mnt/btrfs
systemctl enable systemd-networkd.service systemd-resolved.service ssh.service
# Nobody logs in on a screen, and the serial line is the log.
systemctl mask getty@tty1.service serial-getty@ttyS0.service
# Nothing of its own accord in the middle of a test.
systemctl disable apt-daily.timer apt-daily-upgrade.timer man-db.timer e2scrub_all.timer e2scrub_reap.service \
    fstrim.timer dpkg-db-backup.timer
systemctl mask apt-daily.service apt-daily-upgrade.service
ssh-keygen -q -A
update-initramfs -u
