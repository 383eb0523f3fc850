# `just` lists the recipes; CI needs none of them.

_list:
    @just --list --unsorted

# Start the server on SQLite and ./imgsrv-data
run *flags:
    cargo run --release -- {{ flags }}

# Run every test
test *filter:
    cargo test --workspace {{ filter }}

# Format, then lint
lint:
    cargo fmt --all
    cargo clippy --workspace --all-targets --all-features -- -D warnings

# Build the documentation of the crates
docs *flags:
    RUSTDOCFLAGS='-D warnings' cargo doc --workspace --all-features --no-deps {{ flags }}

# Rewrite the golden files from what the code makes now; review the diff
golden:
    UPDATE_GOLDEN=1 INSTA_UPDATE=always cargo test --workspace

# Build the container image and take it through the tutorial
container:
    .ci/container

# Check licences, sources and known vulnerabilities of the dependencies (needs the network)
deny:
    cargo deny check

# Measure Simple Streams of a large catalogue
bench-streams artifacts="50000":
    cargo bench --package imgsrv-server --bench streams -- {{ artifacts }}

# Measure memory and answers while many clients upload and download slowly
bench-crowd transfers="500":
    cargo bench --package imgsrv-server --bench crowd -- {{ transfers }}

# Measure imgsrv beside nginx, docker-registry and Garage (docs/performance.md): all, or `just compare downloads --rounds 3`
compare *arguments:
    bench/compare {{ arguments }}

# Give parsers what nobody would think of: all of them, or `just fuzz 600 range`
fuzz seconds="10" *targets:
    FUZZ_SECONDS={{ seconds }} .ci/fuzz-parsers {{ targets }}

# Random operations, a thousand kills, the fuzz targets for longer, outages, very large uploads (40 GiB of disk, five hours)
soak:
    .ci/soak

# Every check of CI, in its order
ci:
    .ci/run
