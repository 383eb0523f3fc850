# Runs one throw-away Incus daemon for as long as standard input stays open; `daemon.rs` starts this and holds the other
# end of the pipe. Needs: $INCUSD (the program). Prints `ready` and its folder once it answers.
set -eu
trap '' HUP INT PIPE TERM # whoever sends these to the tests ends them, and with them the pipe

root=$(mktemp -d "${TMPDIR:-/tmp}/imgsrv-incus.XXXXXX")
chmod 711 "$root" # the users of containers, who are nobody here, pass through
cd "$root"
# Containers are named after the folder, so that the control groups of one that was not stopped are found.
containers=$(basename "$root" | tr . -)
end() {
    status=$?
    find /sys/fs/cgroup -depth -path "*/lxc.*.$containers*" -type d -exec rmdir {} + || :
    # The one that they share goes with the last container of the machine.
    find /sys/fs/cgroup -name lxc.pivot -type d | while read -r pivot; do
        set -- "${pivot%/*}"/lxc.monitor.*
        [ -e "$1" ] || rmdir "$pivot" || :
    done
    cd /
    chmod -R u+rwX "$root" || : # what the root of a namespace may, its user may not
    rm -rf "$root"
    exit $status
}
trap end EXIT
mkdir daemon
export INCUS_DIR="$root/daemon"

# The first process of a PID namespace takes all others with it, those that watch containers included, and what is
# mounted goes with the last one. Incus runs where it is root; whoever is not becomes that in a namespace, and can do
# there what needs no containers. Should this shell itself be killed, all of it ends as well.
set -- unshare --mount --propagation private --pid --fork --kill-child --mount-proc
export networks=
if [ "$(id -u)" != 0 ]; then
    set -- "$@" --user --map-root-user
    # In there, Incus does not find back from a network namespace that it enters to see whether it can. So it cannot.
    networks=/proc/sys/user/max_net_namespaces
fi
setpriv --pdeathsig KILL "$@" sh -euc '
    [ -z "$networks" ] || echo 0 >"$networks"
    mount -t tmpfs tmpfs /run # where LXC keeps a lock of each container that there ever was
    "$INCUSD" --logfile "$0/log" </dev/null >"$0/out" 2>&1 &
    tries=60
    until "$INCUSD" waitready --timeout 1 >/dev/null 2>&1; do
        tries=$((tries - 1))
        if [ "$tries" = 0 ] || ! kill -0 $! 2>/dev/null; then
            cat "$0/out" >&2
            exit 1
        fi
        sleep 0.05
    done
    echo "ready $0" || :
    exec cat >/dev/null 2>&1
' "$root"
