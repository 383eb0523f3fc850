# Runs one throw-away Garage node for as long as standard input stays open; `garage.rs` starts this, and `postgres.sh`
# says why it is so. Needs: $GARAGE (the program), $PORT, $RPC_PORT and the variables that name the default key. Prints
# `ready` and the path of its configuration once it answers. Then each line `stop` or `start` on standard input does
# that and is answered by `done`.
set -eu
trap '' HUP INT PIPE TERM

root=$(mktemp -d "${TMPDIR:-/tmp}/imgsrv-garage.XXXXXX")
cd "$root"
trap 'status=$?; cd /; rm -rf "$root"; exit $status' EXIT

cat >garage.toml <<EOF
metadata_dir = "$root/meta"
data_dir = "$root/data"
db_engine = "sqlite"
metadata_fsync = false
data_fsync = false
replication_factor = 1
rpc_bind_addr = "127.0.0.1:$RPC_PORT"
rpc_public_addr = "127.0.0.1:$RPC_PORT"
rpc_secret = "$(printf %064d 1)"

[s3_api]
s3_region = "garage"
api_bind_addr = "127.0.0.1:$PORT"
EOF
export GARAGE_CONFIG_FILE="$root/garage.toml" GARAGE_DEFAULT_BUCKET=first

start() {
    "$GARAGE" server --single-node --default-bucket >>log 2>&1 </dev/null &
    server=$!
    tries=600
    until "$GARAGE" bucket info first >/dev/null 2>&1; do
        tries=$((tries - 1))
        if [ "$tries" = 0 ] || ! kill -0 "$server" 2>/dev/null; then
            kill -KILL "$server" 2>/dev/null || :
            wait "$server" || :
            cat log >&2
            exit 1
        fi
        sleep 0.05
    done
}

# In the way of a machine that loses its power: what it has acknowledged it has to keep.
stop() {
    if [ -n "$server" ]; then
        kill -KILL "$server" || :
        wait "$server" || :
    fi
    server=
}

start
echo "ready $GARAGE_CONFIG_FILE" || :
exec 2>/dev/null
while read -r word; do
    case $word in
    stop) stop ;;
    start)
        stop
        start
        ;;
    esac
    echo 'done' || :
done
stop
