# Plenary's image: one for every role, `docker run plenary gateway --help`.
#
#   base ─┬─▶ tools ─┬─▶ engine ─┐       mediasoup-worker; minutes, unless `.engine/` has one that starts here
#         │          ├─▶ page ───┤       the call page
#         │          └─▶ python ─┤       the virtual environment
#         └──────────────────────┴─▶ the image
#
# The classic builder can build it, too: docker-compose 1.29 knows no other.

FROM debian:bookworm-20260421-slim AS base
# Python and what the engine is linked with.
RUN apt-get update \
 && apt-get install -y --no-install-recommends \
      ca-certificates python3 libabsl20220623 libsrtp2-1 libssl3 libuv1 \
 && rm -rf /var/lib/apt/lists/*


FROM base AS tools
RUN apt-get update \
 && apt-get install -y --no-install-recommends nodejs npm python3-rich python3-venv \
 && rm -rf /var/lib/apt/lists/*


FROM tools AS engine
# mediasoup's prebuilt engine lacks the patches against packets of hostile clients.
ENV PLENARY_CACHE=/engine \
    PLENARY_ENGINE_FROM_SOURCE=1
WORKDIR /src
# Nothing but what decides how the engine is made, so that no other change makes it anew. The last pattern is
# `.engine/`, which need not be there: `make image` puts this machine's engine into it.
COPY medianode/__init__.py medianode/
COPY medianode/engines/__init__.py medianode/engines/
COPY medianode/engines/mediasoup/__init__.py medianode/engines/mediasoup/flatbuffers_*.py \
     medianode/engines/mediasoup/spawn.py medianode/engines/mediasoup/version.py medianode/engines/mediasoup/
COPY medianode/toolchain medianode/toolchain
COPY medianode/__init__.py .engin[e] /engine/
RUN python3 -m medianode.toolchain.install \
 && mv "$(dirname "$(python3 -m medianode.toolchain.install)")" /mediasoup-worker


FROM tools AS page
WORKDIR /src
COPY web/package.json web/package-lock.json ./
RUN npm ci --no-fund --no-audit
COPY web ./
RUN npm run build


FROM tools AS python
# The Makefile has the same version.
ARG UV_VERSION=0.13.9
ENV UV_PROJECT_ENVIRONMENT=/opt/plenary \
    UV_PYTHON=/usr/bin/python3 \
    UV_PYTHON_DOWNLOADS=never \
    UV_SYSTEM_CERTS=true \
    UV_NO_CACHE=true \
    UV_COMPILE_BYTECODE=true
RUN python3 -m venv /build \
 && /build/bin/pip install --no-cache-dir --disable-pip-version-check uv==$UV_VERSION
WORKDIR /src
# What Plenary needs changes less often than Plenary.
COPY pyproject.toml uv.lock ./
RUN /build/bin/uv sync --locked --no-install-project --no-build
COPY . .
COPY --from=page /src/dist web/dist
RUN /build/bin/uv sync --locked --no-editable


FROM base
LABEL org.opencontainers.image.title="Plenary" \
      org.opencontainers.image.description="Signaling backend for multi-party WebRTC, speaking the mediasoup v2 protocol" \
      org.opencontainers.image.licenses="MIT"
RUN groupadd --system --gid 10001 plenary \
 && useradd --system --uid 10001 --gid plenary --no-create-home --home-dir /nonexistent plenary
COPY deploy/http-ok /usr/local/bin/
COPY LICENSE THIRD_PARTY_NOTICES /usr/share/doc/plenary/
# The engine with the schemas of its channel and the licences of its sources.
COPY --from=engine /mediasoup-worker /opt/mediasoup-worker
COPY --from=python /opt/plenary /opt/plenary
ENV PATH=/opt/plenary/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PLENARY_MEDIASOUP_WORKER=/opt/mediasoup-worker/mediasoup-worker
# By number: Kubernetes can check only a number against `runAsNonRoot`.
USER 10001:10001
# An engine that does not start here is to be noticed here.
RUN ["/opt/plenary/bin/python", "-m", "medianode.toolchain.install"]
EXPOSE 8080
ENTRYPOINT ["plenary"]
CMD ["--help"]
