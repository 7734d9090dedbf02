# syntax=docker/dockerfile:1
# Targets: order-service and activity-service. Each brings its own migrations: the command migrate.

FROM rust:1.95-bookworm AS build
WORKDIR /src
ENV SQLX_OFFLINE=true
# amd64 or arm64: each has a cache of its own.
ARG TARGETARCH
COPY . .
# On arm64 a kernel's pages have 4, 16 or 64 kB, and jemalloc has to know the largest.
# The caches outlive the layer, so the binaries leave them in the same step, without symbols: four fifths of their size.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,id=summarisation-$TARGETARCH,target=/src/target,sharing=locked \
    { [ "$TARGETARCH" != arm64 ] || export JEMALLOC_SYS_WITH_LG_PAGE=16; } && \
    cargo build --locked --release -p order-service -p activity-service && \
    install --strip -D -t /out target/release/order-service target/release/activity-service

FROM debian:bookworm-slim AS runtime
RUN apt-get update && \
    apt-get install -y --no-install-recommends ca-certificates libssl3 && \
    rm -rf /var/lib/apt/lists/*
# A number, so that Kubernetes can see that it is not root.
USER 10001:10001

FROM runtime AS order-service
COPY --from=build /out/order-service /usr/local/bin/
EXPOSE 8080 9080
ENTRYPOINT ["order-service"]

FROM runtime AS activity-service
COPY --from=build /out/activity-service /usr/local/bin/
EXPOSE 8081 9081
ENTRYPOINT ["activity-service"]
