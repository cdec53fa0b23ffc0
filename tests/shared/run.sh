#!/usr/bin/env bash
# Bring up a shared filesystem on this machine and try it: tests/shared/run.sh glusterfs|moosefs|cephfs …
# As root.  Each has network, mounts and process ids of its own, so that all of it ends with the trial.
set -uo pipefail
cd "$(dirname "$0")/../.."
[ "$(id -u)" -eq 0 ] || { echo "as root, please: it mounts filesystems" >&2; exit 1; }
result=0
for name in "$@"; do
  echo "== $name"
  home=$(mktemp -d)
  unshare --net --mount --pid --fork --kill-child --mount-proc "tests/shared/$name.sh" "$home" || result=1
  rm -rf --one-file-system "$home"
done
exit $result
