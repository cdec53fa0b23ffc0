#!/usr/bin/env bash
# GlusterFS with three replicas, mounted twice: a brick is killed and comes back.  By run.sh.
set -euo pipefail
. tests/shared/start.sh

mount -t tmpfs tmpfs /var/lib/glusterd
mount -t tmpfs tmpfs /var/log/glusterfs
mount -t tmpfs tmpfs /run
mkdir -p /run/gluster /var/log/glusterfs/bricks
disk bricks 2G
mkdir "$home"/bricks/{1,2,3}
glusterfs --version | head -n 1
glusterd --log-level ERROR
within 30 gluster --mode=script volume list
gluster --mode=script volume create q replica 3 "$address":"$home"/bricks/{1,2,3} force
gluster --mode=script volume start q
for point in a b; do glusterfs --volfile-server="$address" --volfile-id=q "$home/$point"; done

kill_one() {
  local brick
  brick=$(cat /run/gluster/vols/q/*-2.pid)
  kill -9 "$brick"
  echo "brick 2, process $brick, killed"
  sleep 6
  gluster --mode=script volume start q force
}
try kill_one
