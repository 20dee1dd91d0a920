# The image of skmem-exporter: one static binary and its licence, on nothing. docs/image.md says how to run it.
#   docker build -t skmem-exporter .
# It needs nothing beyond the classic builder; `docker buildx build --platform linux/amd64,linux/arm64` works as well.

# Any image with the Rust of rust-toolchain.toml, a C compiler (for ring) and glibc's static libraries.
ARG BUILDER=rust:1.95.0-slim-bookworm
# What the binary is put on. It needs nothing; a distroless "static" image works for those whose scanners want to see one.
ARG BASE=scratch

FROM ${BUILDER} AS build
WORKDIR /src
# glibc, as in the measurements of docs/benchmark.md, but inside the binary. Only with a target named, or it would hold for
# procedural macros, too, which are shared libraries.
ENV RUSTFLAGS="-C target-feature=+crt-static" \
    CARGO_PROFILE_RELEASE_STRIP=symbols

# The dependencies alone: a layer of their own, that only a change of Cargo.lock makes anew.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src benches/sample \
    && echo 'fn main() {}' > build.rs \
    && cp build.rs src/main.rs \
    && cp build.rs benches/sample/main.rs \
    && touch src/lib.rs \
    && cargo build --release --locked --target "$(rustc --print host-tuple)" \
    && rm -r src benches build.rs

COPY build.rs LICENSE ./
COPY src src
# The commit, which is not in the context; it is shown by skmem_exporter_build_info.
ARG REVISION=""
# What was built above is newer than the files of the context.
RUN touch build.rs src/lib.rs src/main.rs \
    && SKMEM_REVISION="${REVISION}" cargo build --release --locked --target "$(rustc --print host-tuple)" \
    && mv "target/$(rustc --print host-tuple)/release/skmem-exporter" /skmem-exporter

# hadolint ignore=DL3006
FROM ${BASE}
ARG REVISION=""
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="skmem-exporter" \
      org.opencontainers.image.description="Prometheus exporter that says which process holds the host's TCP memory" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.url="https://example.com/skmem-exporter" \
      org.opencontainers.image.source="https://example.com/skmem-exporter" \
      org.opencontainers.image.documentation="https://example.com/skmem-exporter/docs/image.md"
COPY --from=build /src/LICENSE /LICENSE
COPY --from=build /skmem-exporter /skmem-exporter
EXPOSE 10477

# uid 0, to be run with all capabilities dropped but two or three. Capabilities given to a container reach only uid 0: engines put
# them into other users' bounding sets, where they do nothing, and on a file they would not work with no-new-privileges. uid 0
# with those alone is worth what they are worth. Who needs only the host's totals may say --user 65534.
# hadolint ignore=DL3002
USER 0:0

# The health check gives up after 3 s itself.
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s --retries=3 CMD ["/skmem-exporter", "healthcheck"]
ENTRYPOINT ["/skmem-exporter"]
