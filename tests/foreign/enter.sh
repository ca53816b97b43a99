# Runs inside fresh user, mount and process namespaces: enter ROOT PROGRAM ARGUMENT...
set -e
mount --make-rprivate /
mount -t proc proc /proc
if [ "$(uname -m)" != aarch64 ]; then
	mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
	printf '%s' "$FOREIGN_ELF" >/proc/sys/fs/binfmt_misc/register
fi
root=$1
shift
if [ -n "$root" ]; then
	# A mount of its own, which the root's mounts hang from.
	mount --bind "$root" "$root"
	mount --rbind /dev "$root/dev"
	mount --rbind /sys "$root/sys"
	mount -t proc proc "$root/proc"
	mount -t tmpfs -o mode=755 tmpfs "$root/run"
	if [ "$(uname -m)" != aarch64 ]; then
		printf '%s\n' "$FOREIGN_CPUINFO" >"$root/run/cpuinfo"
		mount --bind "$root/run/cpuinfo" "$root/proc/cpuinfo"
	fi
	set -- chroot "$root" "$@"
fi
unset FOREIGN_ELF FOREIGN_CPUINFO
exec "$@"
