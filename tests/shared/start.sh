# Sourced by the scripts that bring up a filesystem in $1, an empty directory: an address, and what they share.
[ $$ -eq 1 ] || { echo "started by tests/shared/run.sh only" >&2; exit 2; }
export PATH=/usr/sbin:/sbin:$PATH
home=$1
address=10.99.0.1
ip link set lo up
ip addr add "$address/32" dev lo
mount --make-rprivate /
mkdir "$home/a" "$home/b"

# $1: a name, $2: a size.  A disk of its own for a server.
disk() {
  mkdir "$home/$1"
  truncate -s "$2" "$home/$1.image"
  mkfs.ext4 -q -F "$home/$1.image"
  mount -o loop "$home/$1.image" "$home/$1"
}

# $1: seconds, then a command: until it is well.
within() {
  local last=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $last ] || { echo "not in time: $*" >&2; exit 1; }
    sleep 0.5
  done
}

# $1: a command that kills a server and starts it anew, while the pools are at work.
try() {
  { sleep 12; "$1"; } &
  timeout 300 .venv/bin/python -m tests.shared "$home/a" "$home/b"
}
