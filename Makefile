# `make run` and `make test` are all that a newcomer types; `make help` lists the rest.

PYTHON ?= python3
VENV ?= .venv
CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/plenary
BIN := $(VENV)/bin

# uv installs exactly what uv.lock lists. uv itself comes from PyPI by pip, in this version (the Dockerfile has the same).
UV_VERSION := 0.13.9
UV := UV_PROJECT_ENVIRONMENT=$(abspath $(VENV)) UV_PYTHON_DOWNLOADS=never UV_SYSTEM_CERTS=true $(BIN)/uv
SYNC := $(UV) sync --quiet --locked --inexact --python $(BIN)/python

# make run REDIS_URL=… AMQP_URL=… PORT=… TLS=1
RUN_OPTIONS := $(if $(REDIS_URL),--redis-url $(REDIS_URL)) $(if $(AMQP_URL),--amqp-url $(AMQP_URL)) \
	$(if $(PORT),--port $(PORT)) $(if $(TLS),--tls-cert $(CACHE)/tls/cert.pem --tls-key $(CACHE)/tls/key.pem)

# Many processes are started: with compiled modules they start three times as fast.
unexport PYTHONDONTWRITEBYTECODE

WEB_SOURCES := $(shell find web -path web/node_modules -prune -o -path web/dist -prune -o -type f -print)

# make test WORKERS=4 SEED=123 PYTEST_OPTIONS=…; servers given by their addresses are one for all tests
WORKERS ?= $(if $(PLENARY_TEST_REDIS_URL)$(PLENARY_TEST_AMQP_URL),0,3)
PYTEST := $(BIN)/pytest -n $(WORKERS) --dist loadgroup $(if $(SEED),--seed $(SEED))

.PHONY: help run test test-all check docs unit fault hostile bench image compose-test engine page lock coverage hooks clean

help: ## these lines
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

run: $(VENV)/.ready page engine $(if $(TLS),certificate) ## everything in one process, with a page to call each other
	@$(BIN)/plenary run $(RUN_OPTIONS)

test: test-needs check ## the tests, with a sample of each long suite, against real RabbitMQ, Redis, engine and browser
	$(PYTEST) $(PYTEST_OPTIONS)
	@if docker info >/dev/null 2>&1; then $(MAKE) compose-test; \
		else echo "tests/compose is skipped: no Docker engine answers"; fi

test-all: test-needs check ## all tests, with the whole of each long suite
	$(PYTEST) --whole --timeout 3600 $(PYTEST_OPTIONS)
	@if docker info >/dev/null 2>&1; then $(MAKE) compose-test; \
		else echo "tests/compose is skipped: no Docker engine answers"; fi

check: $(VENV)/.ready ## lint, types, which folder imports which, and the documentation's links
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

docs: $(VENV)/.ready ## the documentation as pages in .site/, its generated tables renewed
	$(BIN)/python -m devtools.reference_pages
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

unit: $(VENV)/.ready ## the tests that need nothing installed
	$(PYTEST) tests/unit $(PYTEST_OPTIONS)

fault: $(VENV)/.ready ## processes and servers die under load for long: make fault SEEDS=20 SECONDS=60 QUEUES=quorum
	@scripts/need redis-server rabbitmq-server
	$(BIN)/python -m tests.fault --seeds $(or $(SEEDS),5) --seconds $(or $(SECONDS),60) \
		--queue-type $(or $(QUEUES),classic) $(FAULT_OPTIONS)

hostile: $(VENV)/.ready page engine ## attacks on a cluster under the compose file's memory limits (40 minutes): make hostile ATTACKS="pings fan-out" JSON=…
	@scripts/need redis-server rabbitmq-server
	$(BIN)/python -m tests.hostile $(foreach it,$(ATTACKS),--attack $(it)) $(if $(JSON),--json $(JSON)) $(HOSTILE_OPTIONS)

bench: $(VENV)/.bench benchmarks/compare/node/node_modules ## Plenary beside other servers, as ratios (16 minutes): make bench ROUNDS=3 SECONDS=4
	@scripts/need redis-server rabbitmq-server
	$(BIN)/python -m benchmarks.compare --rounds $(or $(ROUNDS),3) --seconds $(or $(SECONDS),4) \
		--json benchmarks/results/$$(date +%F)-compare.json $(BENCH_OPTIONS)

image: .engine ## the image `plenary` for Docker, with the engine of this machine if it starts there
	docker build --tag plenary .

compose-test: $(VENV)/.ready .engine ## docker-compose.yml under load, while gateways and room workers come and go
	$(BIN)/pytest -m compose tests/compose --timeout 3600 $(PYTEST_OPTIONS)

engine: $(VENV)/.ready ## the media engine, found or built
	@$(BIN)/python -m medianode.toolchain.install $(if $(filter run,$(MAKECMDGOALS)),|| true)

page: web/dist/index.html ## the demo page

lock: $(VENV)/.uv-$(UV_VERSION) ## uv.lock anew from pyproject.toml; UPGRADE=1 takes the newest versions
	$(UV) lock $(if $(UPGRADE),--upgrade)

coverage: $(VENV)/.ready ## the unit and conformance tests with coverage, as a table and in htmlcov/ (slower than without)
	$(BIN)/pytest tests/unit tests/conformance --cov --cov-report=term --cov-report=html $(PYTEST_OPTIONS)

hooks: $(VENV)/.ready ## the checks of `make check` before every commit, by pre-commit
	$(BIN)/pre-commit install

clean: ## everything made here (the engine stays in its cache)
	rm -rf $(VENV) .engine web/dist web/node_modules benchmarks/compare/node/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage htmlcov

.PHONY: servers certificate test-needs
test-needs: $(VENV)/.ready page engine servers

servers:
	@scripts/need redis-server rabbitmq-server chromium
	@scripts/promtool $(CACHE) || echo "the tests with promtool will be skipped" >&2
	@scripts/need haproxy || echo "the tests with HAProxy will be skipped" >&2
	@scripts/need flatbuffers-compiler || echo "the tests with Google's FlatBuffers will be skipped" >&2
	@test "$$(id -u)" != 0 || scripts/need firefox-esr iproute2 || echo "the test with Firefox will be skipped" >&2

certificate:
	@scripts/need openssl
	@scripts/certificate $(CACHE)/tls

.PHONY: .engine
.engine: $(VENV)/.ready
	@rm -rf $@ && mkdir -p $@
	@engine=$$(env -u PLENARY_MEDIASOUP_WORKER $(BIN)/python -m medianode.toolchain.install) \
		&& cp -r "$$(dirname "$$engine")" $@ || echo "the image will make its own engine"

web/dist/index.html: $(WEB_SOURCES)
	@scripts/need nodejs npm
	cd web && npm ci --silent --no-fund --no-audit && npm run --silent build
	@touch $@

benchmarks/compare/node/node_modules: benchmarks/compare/node/package-lock.json
	@scripts/need nodejs npm
	cd benchmarks/compare/node && npm ci --silent --no-fund --no-audit --ignore-scripts --omit=optional
	@touch $@

$(VENV)/.bench: $(VENV)/.ready uv.lock
	@$(SYNC) --extra tests --extra bench
	@touch $@

$(VENV)/.ready: pyproject.toml uv.lock $(VENV)/.uv-$(UV_VERSION)
	@echo "installing what uv.lock lists into $(VENV) (about a minute)"
	@$(SYNC) --extra tests
	@touch $@

$(VENV)/.uv-$(UV_VERSION):
	@scripts/need python3-venv
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@
