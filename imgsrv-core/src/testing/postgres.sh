# Runs one throw-away PostgreSQL server for as long as standard input stays open. `postgres.rs` starts this and holds
# the other end of the pipe; however the tests end (return, panic, SIGKILL), the pipe closes, the server stops and its
# folder goes. Needs: $BIN (the folder of the server's programs) and $PORT. Prints `ready` and
# its folder once it takes connections; then it reads `stop` and `start`, and prints `done` after each.
set -eu
trap '' HUP INT PIPE TERM # whoever sends these to the tests ends them, and with them the pipe

root=$(mktemp -d "${TMPDIR:-/tmp}/imgsrv-postgres.XXXXXX")
cd "$root"
trap 'status=$?; cd /; rm -rf "$root"; exit $status' EXIT

# PostgreSQL refuses to run as root: become a user that owns nothing else here.
set --
if [ "$(id -u)" = 0 ]; then
    for user in postgres nobody; do id "$user" >/dev/null 2>&1 && break; done
    chown "$user" "$root"
    # Should this shell itself be killed, the server still shuts down.
    set -- setpriv --reuid="$(id -u "$user")" --regid="$(id -g "$user")" --clear-groups --pdeathsig INT
fi

init() {
    "$@" "$BIN/initdb" -D "$root/data" -A trust -U imgsrv --no-sync -E UTF8 --locale C $order >"$root/log" 2>&1 </dev/null
}
# Names sort as people sort them where PostgreSQL can do that by itself (from version 15 on), as on most servers out
# there: what needs another order has to ask for it.
order='--locale-provider=icu --icu-locale=en-US'
init "$@" || { order='' && init "$@"; } || {
    cat "$root/log" >&2
    exit 1
}

# No waiting for a disk, unless somebody wants to know what that takes and says `alter system`.
echo 'fsync = off' >>"$root/data/postgresql.conf"

# No socket file, no shared memory that outlives the server.
start() {
    rm -f "$root/data/postmaster.pid" # of a server that was killed: it would be found ready
    "$@" "$BIN/postgres" -D "$root/data" -p "$PORT" \
        -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c dynamic_shared_memory_type=mmap \
        -c max_connections=200 >>"$root/log" 2>&1 </dev/null &
    server=$!

    # The eighth line of postmaster.pid is where PostgreSQL tells pg_ctl how far it is.
    tries=600
    until [ "$(sed -n '8s/ *$//p' "$root/data/postmaster.pid" 2>/dev/null)" = ready ]; do
        tries=$((tries - 1))
        if [ "$tries" = 0 ] || ! kill -0 "$server" 2>/dev/null; then
            kill -QUIT "$server" 2>/dev/null || :
            wait "$server" || :
            cat "$root/log" >&2
            exit 1
        fi
        sleep 0.05
    done
}

# Fast shutdown, which cuts open connections.
stop() {
    if [ -n "$server" ]; then
        kill -INT "$server" || :
        wait "$server" || :
    fi
    server=
}

start "$@"
echo "ready $root" || :
exec 2>/dev/null
while read -r word; do
    case $word in
    stop) stop ;;
    start)
        stop
        start "$@"
        ;;
    esac
    echo 'done' || :
done
stop
