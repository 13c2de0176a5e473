"""Computes the figures of a run, for tables, plots and `--json`. Durations are in seconds, rates per second."""

import platform
from typing import Any, Final

import psutil

from loadtest.coordinator.run import Run, overall, since
from loadtest.model.failures import GENERATOR_KINDS, KINDS, SERVER_KINDS
from loadtest.model.histogram import Histogram
from loadtest.model.measurements import total
from loadtest.report.slo import METHODS, Verdict

_PERCENTILES: Final = {"p50": 50, "p90": 90, "p95": 95, "p99": 99, "p999": 99.9}


def summary(run: Run) -> dict[str, Any]:
    """Returns all figures; `loadtest.report.slo.Slo.judge` reads `methods`, `steps`, `failures` and `failed`.

    `failed` counts the failures of the server, `generator_failed` those of the load generator.
    """
    whole = run.whole
    took = max(since(run), 1e-9)
    loaded = _loaded(run)
    names = [*METHODS, *sorted((whole.methods.keys() | whole.errors.keys()) - set(METHODS))]
    methods = {
        name: row(whole.methods.get(name, Histogram()), whole.errors[name], took)
        for name in names
        if name in whole.methods or whole.errors[name]
    }
    fanout = {name: row(it, 0, took) for name, it in sorted(whole.fanout.items())}
    steps = {name: row(it, 0, took) for name, it in whole.steps.items()}
    steps["requests"] = row(total(whole.methods), sum(whole.errors.values()), took)
    steps["fanout"] = row(total(whole.fanout), 0, took)
    failures = {kind: whole.failures[kind] for kind in KINDS if whole.failures[kind]}
    return {
        "task": overall(run),
        "machine": {"cores": psutil.cpu_count(), "system": platform.platform(), "python": platform.python_version()},
        "seconds": round(took, 1),
        "interrupted": run.interrupted,
        "peak": {gauge: max((it.sum(gauge) for it in run.seconds.values()), default=0) for gauge in _GAUGES},
        "load": loaded,
        "methods": methods,
        "fanout": fanout,
        "steps": steps,
        "counts": dict(sorted(whole.counts.items())),
        "failures": failures,
        "failed": sum(failures.get(kind, 0) for kind in SERVER_KINDS),
        "generator_failed": sum(failures.get(kind, 0) for kind in GENERATOR_KINDS),
        "examples": {kind: [{"at": at, "text": text} for at, text in it] for kind, it in whole.examples.items()},
        "timeline": _timeline(run),
        "histograms": {
            "requests": [list(step) for step in total(whole.methods).steps()],
            "fanout": [list(step) for step in total(whole.fanout).steps()],
        },
        "processes": [
            {"at": it.at, "cpu": it.cpu, "memory": it.memory, "queued": it.queued, "machine": it.machine}
            for it in run.samples
        ],
    }


_GAUGES: Final = ("connected", "joined", "in_flight")


def row(histogram: Histogram, errors: int, took: float) -> dict[str, Any]:
    """Returns one row of a table."""
    percentiles = {name: histogram.percentile(percent) for name, percent in _PERCENTILES.items()}
    return {
        "count": histogram.count,
        "rate": round(histogram.count / took, 2),
        "errors": errors,
        "mean": round(histogram.mean, 6),
        **percentiles,
        "max": histogram.maximum,
    }


def _loaded(run: Run) -> dict[str, Any]:
    """Returns the rates under load: after the ramp, before the end."""
    task = run.task
    seconds = [it for at, it in run.seconds.items() if task.ramp <= at < task.ramp + task.duration]
    if not seconds:
        return {"seconds": 0, "requests": 0.0, "notifications": 0.0}
    requests = sum(total(it.measured.methods).count for it in seconds)
    notified = sum(total(it.measured.fanout).count for it in seconds)
    return {
        "seconds": len(seconds),
        "requests": round(requests / len(seconds), 1),
        "notifications": round(notified / len(seconds), 1),
    }


def _timeline(run: Run) -> list[dict[str, Any]]:
    """Returns one entry per second."""
    entries = []
    for at, second in sorted(run.seconds.items()):
        requests, notified = total(second.measured.methods), total(second.measured.fanout)
        entries.append(
            {
                "at": at,
                **{gauge: second.sum(gauge) for gauge in _GAUGES},
                "requests": requests.count,
                "notifications": notified.count,
                "failures": sum(second.measured.failures.values()),
                **{name: requests.percentile(_PERCENTILES[name]) for name in ("p50", "p95", "p99")},
                "fanout_p50": notified.percentile(50),
                "fanout_p99": notified.percentile(99),
            }
        )
    return entries


def verdicts_json(verdicts: list[Verdict]) -> list[dict[str, Any]]:
    return [{"expression": it.text, "held": it.held, "actual": it.actual} for it in verdicts]
