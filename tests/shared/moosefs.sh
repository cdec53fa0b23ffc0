#!/usr/bin/env bash
# MooseFS with two copies, mounted twice: a chunk server is killed and comes back.  By run.sh.
set -euo pipefail
. tests/shared/start.sh

mkdir "$home"/{meta,server1,server2}
cp /var/lib/mfs/metadata.mfs.empty "$home/meta/metadata.mfs"
echo "10.99.0.0/24 / rw,alldirs,maproot=0:0" >"$home/exports.cfg"
cat >"$home/master.cfg" <<END
DATA_PATH=$home/meta
EXPORTS_FILENAME=$home/exports.cfg
CHANGELOG_SAVE_MODE=2
WORKING_USER=root
WORKING_GROUP=root
END
mfsmaster -c "$home/master.cfg" start >/dev/null 2>&1
for n in 1 2; do
  disk "disk$n" 3G
  echo "$home/disk$n" >"$home/disks$n.cfg"
  cat >"$home/server$n.cfg" <<END
DATA_PATH=$home/server$n
HDD_CONF_FILENAME=$home/disks$n.cfg
HDD_FSYNC_BEFORE_CLOSE=1
HDD_LEAVE_SPACE_DEFAULT=100MiB
MASTER_HOST=$address
BIND_HOST=$address
CSSERV_LISTEN_PORT=943$n
WORKING_USER=root
WORKING_GROUP=root
END
  mfschunkserver -c "$home/server$n.cfg" start >/dev/null 2>&1
done
mfsmount --version 2>&1 | head -n 1
for point in a b; do within 30 mfsmount "$home/$point" -H "$address"; done
mfsgetsclass "$home/a" 2>/dev/null || true

kill_one() {
  local server
  server=$(cat "$home/server2/.mfschunkserver.lock")
  kill -9 "$server"
  echo "chunk server 2, process $server, killed"
  sleep 6
  mfschunkserver -c "$home/server2.cfg" start >/dev/null 2>&1
}
try kill_one
