#!/bin/sh
# PID 1 of a guest.  BED, ROLE, ADDRESS and GRACE come from the kernel's command line.  After "ready" each line on the
# serial port names a script in the bed's directory to run; its end, as the bed is gone, ends init and so the guest.
export PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 HOME=/run TMPDIR=/run/tmp
mount -t proc proc /proc && mount -t sysfs sysfs /sys && mkdir -p /dev/shm
for directory in /run /mnt /var/lib/nfs /dev/shm; do mount -t tmpfs tmpfs $directory; done
mkdir -p /run/tmp /run/rpc_pipefs /run/rpcbind /run/lock /mnt/nfs /mnt/export /mnt/bed /mnt/usr /var/lib/nfs/sm
mount -t hostfs -o hostfs="$BED" none /mnt/bed || mount -t hostfs -o "$BED" none /mnt/bed  # the name is Linux 6.11's
echo "$ROLE" > /proc/sys/kernel/hostname  # which tells NFSv4 clients apart
ln -s /usr/lib/uml /mnt/lib && ln -s ../lib /mnt/usr/lib  # so that modprobe finds this kernel's modules
printf '#!/bin/sh\nexec modprobe -d /mnt "$@"\n' > /mnt/modprobe && chmod +x /mnt/modprobe
echo /mnt/modprobe > /proc/sys/kernel/modprobe
ip link set lo up && ip addr add "$ADDRESS/24" dev vec0 && ip link set vec0 up
case "$ROLE" in
server|c[0-9]*)
    modprobe -d /mnt -a nfs nfsv3 nfsv4 nfsd
    mount -t rpc_pipefs rpc_pipefs /run/rpc_pipefs
    rpcbind -w ;;
*)  modprobe -d /mnt -a loop dm-log-writes ;;
esac
if [ "$ROLE" = server ]; then
    mount -t ext4 -o noatime /dev/ubda /mnt/export
    mkdir -p /mnt/export/.state && mount --bind /mnt/export/.state /var/lib/nfs  # so it outlives a crash
    mkdir -p /var/lib/nfs/sm /var/lib/nfs/sm.bak /var/lib/nfs/nfsdcld && touch /var/lib/nfs/etab /var/lib/nfs/rmtab
    mount -t nfsd nfsd /proc/fs/nfsd
    echo "$GRACE" | tee /proc/fs/nfsd/nfsv4leasetime /proc/fs/nfsd/nfsv4gracetime /proc/sys/fs/nfs/nlm_grace_period
    nfsdcld
    exportfs -o rw,sync,no_root_squash,no_subtree_check,insecure,fsid=0 10.77.0.0/24:/mnt/export
    rpc.nfsd 8 && rpc.mountd -p 20048
fi
case "$ROLE" in server|c[0-9]*) rpc.statd --no-notify ;; esac
exec 3<>/dev/ttyS0 && stty -F /dev/ttyS0 raw -echo && echo ready >&3
while read -r number <&3; do
    { setsid sh "/mnt/bed/$number.sh" > "/mnt/bed/$number.out" 2> "/mnt/bed/$number.err" < /dev/null 3>&-
      echo "exit $number $?" >&3; } &
done
