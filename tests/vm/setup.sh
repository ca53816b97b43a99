# Makes a debootstrapped root boot as a machine of the harness:
#   setup ROOT ARCH SUITE KERNELSUITE
set -eu
root=$1 arch=$2 suite=$3 kernelsuite=$4

# The kernel, from the mirror that the root itself was made from. It is unpacked only:
# there is no boot loader and no initrd to make. apt's own folders of this root are used,
# and left as they were.
apt=$(mktemp -d "$root/.kernel.XXXXXX")
trap 'rm -rf "$apt"' EXIT
mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/etc"
: >"$apt/status"
sed "s/ $suite\([ -]\)/ $kernelsuite\1/" "$root/etc/apt/sources.list" | grep "^deb .* $kernelsuite " >"$apt/etc/sources.list"
cat >"$apt/conf" <<EOF
APT::Architecture "$arch"; APT::Architectures { "$arch"; };
Dir::State "$apt"; Dir::State::lists "$apt/lists"; Dir::State::status "$apt/status";
Dir::Cache "$apt/cache"; Dir::Etc::sourcelist "$apt/etc/sources.list"; Dir::Etc::sourceparts "-";
Acquire::Languages "none"; APT::Sandbox::User "root";
EOF
export APT_CONFIG="$apt/conf"
apt-get update -qq
name=$(apt-cache depends "linux-image-cloud-$arch" | sed -n 's/.*Depends: \(linux-image-[0-9][^ ]*\)$/\1/p' | head -n 1)
(cd "$apt" && apt-get download -qq "$name")
dpkg-deb -x "$apt"/linux-image-*.deb "$apt/x"
mkdir -p "$root/usr/lib/modules"
cp -a "$apt"/x/lib/modules/* "$root/usr/lib/modules/"
[ -e "$root/lib/modules" ] || ln -s ../usr/lib/modules "$root/lib/modules"
cp "$apt"/x/boot/vmlinuz-* "$root/boot/vmlinuz"
/sbin/depmod -b "$root" "$(ls "$root/usr/lib/modules")"

echo machine >"$root/etc/hostname"
printf '127.0.0.1 localhost machine\n::1 localhost\n' >"$root/etc/hosts"
echo '/dev/nvme0n1 / ext4 defaults 0 0' >"$root/etc/fstab"
: >"$root/etc/machine-id"
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
# What was mounted here while it was made.
find "$root/dev" -mindepth 1 -maxdepth 1 -exec rm -rf {} +

mkdir -p "$root/etc/systemd/network"
printf '[Match]\nName=en* eth*\n[Network]\nAddress=10.0.2.15/24\n' >"$root/etc/systemd/network/80-machine.network"
cat >"$root/etc/systemd/system/machine-agent.service" <<'EOF'
[Unit]
Description=the hand of the test harness
DefaultDependencies=no
After=local-fs.target systemd-modules-load.service
[Service]
ExecStart=/usr/lib/machine-agent agent
Restart=on-failure
KillMode=process
Environment=PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
[Install]
WantedBy=sysinit.target
EOF
printf 'virtio_pci\nvirtio_console\nvirtio_net\n' >"$root/etc/modules-load.d/machine.conf"
wants=$root/etc/systemd/system
mkdir -p "$wants/sysinit.target.wants" "$wants/multi-user.target.wants"
ln -sf ../machine-agent.service "$wants/sysinit.target.wants/"
ln -sf /lib/systemd/system/systemd-networkd.service "$wants/multi-user.target.wants/"
# Nobody logs in, and nothing of Debian's own housekeeping may run into a measurement.
for u in getty@tty1.service serial-getty@ttyS0.service serial-getty@ttyAMA0.service apt-daily.timer apt-daily-upgrade.timer \
	e2scrub_all.timer e2scrub_reap.service fstrim.timer dpkg-db-backup.timer systemd-networkd-wait-online.service \
	systemd-firstboot.service; do
	ln -sf /dev/null "$wants/$u"
done
