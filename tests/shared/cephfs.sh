#!/usr/bin/env bash
# CephFS with one of each server, mounted twice: the metadata server, then the disk's, are killed and come back.
# By run.sh.
set -euo pipefail
. tests/shared/start.sh

mkdir "$home"/{mon,mgr,mds,osd,pids,log}
fsid=$(uuidgen)
cat >"$home/ceph.conf" <<END
[global]
fsid = $fsid
mon host = $address
mon initial members = a
auth cluster required = none
auth service required = none
auth client required = none
osd pool default size = 1
osd pool default min size = 1
mon allow pool size one = true
mon data avail crit = 1
public network = 10.99.0.0/24
run dir = $home/pids
pid file = $home/pids/\$name.pid
log file = $home/log/\$name.log
keyring = $home/keyring
mon data = $home/mon
mgr data = $home/mgr
mds data = $home/mds
osd data = $home/osd
osd objectstore = bluestore
osd memory target = 939524096
osd class update on start = false
END
export CEPH_CONF=$home/ceph.conf
ceph-authtool --create-keyring "$home/keyring" --gen-key -n mon. --cap mon 'allow *' >/dev/null
ceph-authtool "$home/keyring" --gen-key -n client.admin --cap mon 'allow *' --cap osd 'allow *' --cap mds 'allow *' --cap mgr 'allow *' >/dev/null
monmaptool --create --add a "$address" --fsid "$fsid" "$home/monmap" >/dev/null
ceph-mon -i a --mkfs --monmap "$home/monmap" --keyring "$home/keyring"
ceph-mon -i a
within 30 ceph mon enable-msgr2
ceph-mgr -i x
osd=$(uuidgen)
ceph osd new "$osd" >/dev/null
truncate -s 4G "$home/osd/block"
ceph-osd -i 0 --mkfs --osd-uuid "$osd" 2>/dev/null
ceph-osd -i 0 2>/dev/null
for pool in meta data; do ceph osd pool create "$pool" 8 2>/dev/null; done
ceph fs new fs meta data 2>/dev/null
ceph-mds -i a >/dev/null
serving() { ceph mds stat | grep -q active; }
within 60 serving
ceph-fuse --version
for point in a b; do ceph-fuse -n client.admin --pid-file "$home/pids/$point.pid" "$home/$point" 2>/dev/null; done

kill_one() {
  local server
  for server in mds.a osd.0; do
    kill -9 "$(cat "$home/pids/$server.pid")"
    echo "$server killed"
    sleep 2
    "ceph-${server%.*}" -i "${server#*.}" >/dev/null 2>&1
    sleep 10
  done
}
try kill_one
