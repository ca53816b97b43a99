# Runs inside fresh user, mount and process namespaces: enter PROGRAM ARGUMENT...
# What the room is like stands in FOREIGN_*, see foreign.go.
set -e
mount --make-rprivate /
mount -t proc proc /proc
foreign=
if [ "$(uname -m)" != aarch64 ]; then
	foreign=1
	mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
	printf '%s' "$FOREIGN_ELF" >/proc/sys/fs/binfmt_misc/register
fi
root=$FOREIGN_ROOT
if [ -n "$root" ]; then
	if [ -n "$FOREIGN_LAYER" ]; then
		# Over /mnt, which is nobody's.
		mount -t tmpfs -o mode=755 tmpfs /mnt
		mkdir /mnt/upper /mnt/work /mnt/root
		# userxattr: the marks of an overlay are not root's here, and without them no folder moves.
		mount -t overlay -o "userxattr,lowerdir=$root,upperdir=/mnt/upper,workdir=/mnt/work" overlay /mnt/root
		root=/mnt/root
	else
		# A mount of its own, which the mounts below hang from.
		mount --bind "$root" "$root"
	fi
	mount --rbind /dev "$root/dev"
	mount --rbind /sys "$root/sys"
	mount -t proc proc "$root/proc"
	mount -t tmpfs -o mode=755 tmpfs "$root/run"
	mount -t tmpfs tmpfs "$root/tmp"
	if [ -n "$foreign" ]; then
		printf '%s\n' "$FOREIGN_CPUINFO" >"$root/run/cpuinfo"
		mount --bind "$root/run/cpuinfo" "$root/proc/cpuinfo"
	fi
	printf '%s\n' "$FOREIGN_BINDS" | while read -r dir; do
		[ -n "$dir" ] || continue
		mkdir -p "$root$dir"
		mount --rbind "$dir" "$root$dir"
	done
	set -- chroot "$root" "$@"
fi
unset FOREIGN_ELF FOREIGN_CPUINFO FOREIGN_ROOT FOREIGN_BINDS FOREIGN_LAYER
exec "$@"
