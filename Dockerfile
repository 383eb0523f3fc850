# Both bases can be replaced, by a mirror or another release: the builder needs cargo and a C compiler, the other one
# glibc and libgcc that are no older than the builder's.
ARG BUILDER=docker.io/library/rust:1.94-slim-bookworm
ARG BASE=gcr.io/distroless/cc-debian12:nonroot

FROM ${BUILDER} AS build
WORKDIR /src
COPY . .
# Cargo compares times, and sources may be older than what another checkout left in the cache: hence touch. Names of
# functions stay, for backtraces; line tables are four fifths of the program.
RUN --mount=type=cache,id=imgsrv-registry,target=/usr/local/cargo/registry \
    --mount=type=cache,id=imgsrv-target,target=/src/target \
    find . -path ./target -prune -o -type f -exec touch {} + \
    && cargo build --release --locked --package imgsrv-server \
    && mkdir -p /out/data \
    && strip --strip-debug -o /out/imgsrv target/release/imgsrv

FROM ${BASE}
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="imgsrv" \
      org.opencontainers.image.description="Stores, catalogues, publishes and serves VM and disk images" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.source="https://github.com/imgsrv/imgsrv" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY LICENSE-MIT LICENSE-APACHE /usr/share/doc/imgsrv/
COPY --from=build /out/imgsrv /usr/bin/imgsrv
COPY --from=build --chown=65532:65532 /out/data /data
USER 65532:65532
ENV IMGSRV_DATA_DIR=/data IMGSRV_LOG_FORMAT=json
# Whoever forgets to name a volume finds the data in one without a name, instead of losing it with the container.
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
# Longer than the program itself waits for an answer, so that its line says what is missing.
HEALTHCHECK --interval=10s --timeout=15s --start-period=60s --retries=3 CMD ["/usr/bin/imgsrv", "healthcheck"]
ENTRYPOINT ["/usr/bin/imgsrv"]
