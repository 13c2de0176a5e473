"""Exposed metrics are documented, documented ones are exposed, and alerts and dashboards use no others."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakeredis import FakeAsyncRedis
from prometheus_client import CollectorRegistry, Metric, ProcessCollector

from gateway.metrics import GatewayMetrics
from gateway.server import Gateway
from medianode.engines.null import NullEngine
from medianode.metrics import NodeMetrics
from medianode.metrics import process as usage
from medianode.node import MediaNode
from plenary.processes.internal_http import InternalServer
from roomworker.metrics import WorkerMetrics
from roomworker.storage.store import RedisStore
from roomworker.worker import RoomWorker
from shared.broker.memory import MemoryBroker, MemoryHub
from shared.cluster.redis_cluster import RedisCluster
from shared.settings import RunSettings
from shared.telemetry.metrics import MetricDescription

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DASHBOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
ALL = (
    *InternalServer.described,
    *GatewayMetrics.described,
    *WorkerMetrics.described,
    *NodeMetrics.described,
)
OF_OTHERS = re.compile(r"up|ALERTS|process_\w+|rabbitmq_\w+")
PARTS = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",)}


# --- the documents --------------------------------------------------------------------------------------------


def test_every_metric_is_in_the_reference() -> None:
    text = (ROOT / "docs" / "reference" / "metrics.md").read_text()
    assert re.findall(r"^\| `(plenary_\w+)`", text, re.MULTILINE) == [each.name for each in ALL]


@pytest.mark.parametrize("document", sorted((ROOT / "docs").rglob("*.md")), ids=lambda path: path.stem)
def test_every_metric_that_a_document_names_exists(document: Path) -> None:
    known = {each.name for each in ALL}
    assert set(re.findall(r"`(plenary_\w+)`", document.read_text())) <= known


def test_metric_names_follow_the_conventions_of_prometheus() -> None:
    assert len({each.name for each in ALL}) == len(ALL)
    for each in ALL:
        assert re.fullmatch(r"plenary_[a-z_]+", each.name)
        assert each.name.endswith("_total") == (each.kind == "counter")
        assert not re.search(r"_(ms|millis|kb|mb|percent)\b", each.name)
        assert not {"room", "peer", "session_id"} & set(each.labels)


def test_every_alert_is_documented() -> None:
    text = (ROOT / "docs" / "how-to" / "monitor.md").read_text()
    assert {rule["alert"] for rule in rules()} == set(re.findall(r"`(Plenary\w+)`", text))


# --- what is exposed ------------------------------------------------------------------------------------------


def names(metrics: Iterable[Metric]) -> list[str]:
    """The names of metrics in the form that `MetricDescription` uses."""
    return [f"{metric.name}_total" if metric.type == "counter" else metric.name for metric in metrics]


def described(of: tuple[MetricDescription, ...]) -> list[str]:
    return sorted(each.name for each in of)


async def test_every_role_exposes_what_it_describes() -> None:
    broker, redis = MemoryBroker(MemoryHub(4)), FakeAsyncRedis()
    settings = RunSettings(partitions=4, engine="null")
    worker = WorkerMetrics(RoomWorker(settings, broker, RedisCluster(redis), RedisStore(redis)))
    await worker.refresh()
    for role in (
        GatewayMetrics(Gateway(settings, broker, RedisCluster(redis))),
        worker,
        NodeMetrics(MediaNode(settings, broker, RedisCluster(redis), lambda _: NullEngine("127.0.0.1"))),
    ):
        assert sorted(names(role.collect())) == described(role.described)
    await redis.aclose()


def test_every_process_exposes_what_it_describes() -> None:
    assert sorted(names(InternalServer(4).collect())) == described(InternalServer.described)


def test_metrics_of_the_process_itself_are_documented() -> None:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    text = (ROOT / "docs" / "reference" / "metrics.md").read_text()
    assert {f"`{name}`" for name in names(registry.collect())} <= set(re.findall(r"`process_\w+`", text))


async def test_metrics_are_collected_while_redis_is_away() -> None:
    redis = FakeAsyncRedis(connected=False)
    broker = MemoryBroker(MemoryHub(1))
    worker = RoomWorker(RunSettings(partitions=1), broker, RedisCluster(redis), RedisStore(redis))
    metrics = WorkerMetrics(worker)
    await metrics.refresh()
    assert "plenary_roomworker_dead_letters" in names(metrics.collect())


def test_the_usage_of_a_process_is_seconds_and_bytes() -> None:
    used = usage(os.getpid())
    assert used is not None
    assert used.cpu <= sum(os.times()[:2]) + 0.1
    assert 1_000_000 < used.memory < 10_000_000_000
    assert usage(2**22 + 1) is None


# --- alerts and dashboards ------------------------------------------------------------------------------------


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels(dashboard: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(dashboard.read_text())["panels"]
    return found


def queries(dashboard: Path) -> list[str]:
    return [target["expr"] for panel in panels(dashboard) for target in panel.get("targets", ())]


def all_queries() -> list[str]:
    return [query for dashboard in DASHBOARDS for query in queries(dashboard)] + [rule["expr"] for rule in rules()]


@pytest.mark.parametrize("query", all_queries())
def test_query_uses_existing_metrics_and_labels(query: str) -> None:
    labels_of = {each.name + part: each.labels for each in ALL for part in PARTS[each.kind]}
    bare = re.sub(r'"[^"]*"', '""', query)
    spoken = re.findall(r"\b(plenary_\w+|process_\w+|rabbitmq_\w+|up|ALERTS)\b", bare)
    assert spoken
    for name in spoken:
        assert name in labels_of or OF_OTHERS.fullmatch(name), name
    known = {"job", "instance", "le", "queue", "alertstate"}.union(*(labels_of.get(name, ()) for name in spoken))
    used = {label for selector in re.findall(r"{(.*?)}", bare) for label in re.findall(r"(\w+)\s*[=!]", selector)}
    used |= {label for by in re.findall(r"\bby \((.*?)\)", bare) for label in re.split(r",\s*", by)}
    assert used <= known


def test_dashboards_have_distinct_panel_titles_and_ids() -> None:
    assert {dashboard.stem for dashboard in DASHBOARDS} == {"overview", "signaling", "media"}
    for dashboard in DASHBOARDS:
        assert json.loads(dashboard.read_text())["uid"] == f"plenary-{dashboard.stem}"
        titles = [panel["title"] for panel in panels(dashboard)]
        assert len(set(titles)) == len(titles)
        ids = [panel["id"] for panel in panels(dashboard)]
        assert len(set(ids)) == len(ids)


def test_grafana_finds_its_prometheus_and_its_dashboards() -> None:
    provisioning = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "plenary.yml").read_text())["providers"]
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"
    for dashboard in DASHBOARDS:
        for panel in panels(dashboard):
            for asked in (panel, *panel.get("targets", ())):
                if panel["type"] != "row":
                    assert asked["datasource"]["uid"] == source["uid"]


@pytest.fixture(scope="session")
def promtool() -> str:
    cache = os.environ.get("PLENARY_CACHE") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "plenary")
    found = shutil.which("promtool") or shutil.which(Path(cache).expanduser() / "promtool")
    if found is None:
        pytest.skip("no promtool: `make servers` takes it from Debian's package prometheus")
    return found


def accepts(promtool: str, *arguments: str) -> None:
    done = subprocess.run([promtool, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_configuration_and_alerts(promtool: str) -> None:
    accepts(promtool, "check", "config", str(DEPLOY / "prometheus" / "prometheus.yml"))


def test_promtool_accepts_the_queries_of_the_dashboards(promtool: str, tmp_path: Path) -> None:
    asked = sorted({query for dashboard in DASHBOARDS for query in queries(dashboard)})
    recorded = [{"record": f"panel:{n}", "expr": query} for n, query in enumerate(asked)]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": recorded}]}))
    accepts(promtool, "check", "rules", str(file))
