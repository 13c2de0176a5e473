"""Writes the report of a run as one self-contained HTML page: verdict, plots, tables."""

from collections.abc import Callable, Iterable, Sequence
from html import escape
from statistics import fmean
from typing import Any, Final

from loadtest.model.failures import GENERATOR_KINDS, KINDS, SERVER_KINDS
from loadtest.report import plots
from loadtest.report.plots import Series
from loadtest.report.slo import seconds
from loadtest.report.style import STYLE

STEPS: Final = {
    "connect": "connect: until the session is on",
    "ready": "ready: joined, sending, receiving all",
    "resume": "resume: from a cut until the session goes on",
    "late": "late: the load generator itself",
    "requests": "all requests",
    "fanout": "all notifications",
}

VERDICTS: Final = {"passed": "passed", "failed": "failed", "invalid": "invalid: load generator at fault"}


def page(result: dict[str, Any]) -> str:
    """Returns the page; `result` is `loadtest.report.summary` with `slos` and `verdict`."""
    title = f"Load test: {result['task']['profile']}, {result['task']['rooms']} × {result['task']['peers']} peers"
    body = "".join(
        [_header(result), _tiles(result), _slos(result), _failures(result), _plots(result), _tables(result)]
    )
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<title>{escape(title)}</title><style>{STYLE}</style></head>'
        f"<body><main>{body}{_footer(result)}</main></body></html>\n"
    )


# --- words ----------------------------------------------------------------------------------------------------


def _header(result: dict[str, Any]) -> str:
    task = result["task"]
    verdict = result["verdict"]
    interrupted = ", interrupted" if result["interrupted"] else ""
    addresses = ", ".join(task["urls"])
    about = (
        f"{task['rooms']} rooms with {task['peers']} peers each, profile <b>{escape(task['profile'])}</b>, "
        f"{task['ramp']:g} s ramp and {task['duration']:g} s load, {task['churn']:g} peers a second leave and come "
        f"again, {_count(task['processes'], 'generator process')}, seed {escape(task['seed'])}, "
        f"at {escape(addresses)}"
    )
    return (
        f'<header><div><h1>Load test</h1><p class="about">{about}</p></div>'
        f'<div class="verdict {verdict}">{VERDICTS[verdict]}{interrupted}</div></header>'
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 'es'}"


def _tiles(result: dict[str, Any]) -> str:
    steps, load = result["steps"], result["load"]
    ready = steps.get("ready")
    tiles = [
        (f"{result['peak']['connected']}", "connections", f"{result['peak']['joined']} peers in rooms"),
        (f"{load['requests']:,.0f}", "requests a second", f"{steps['requests']['count']:,} in all"),
        (f"{load['notifications']:,.0f}", "notifications a second", f"{steps['fanout']['count']:,} in all"),
        (seconds(steps["requests"]["p99"]), "p99 request latency", f"p50 {seconds(steps['requests']['p50'])}"),
        (seconds(steps["fanout"]["p99"]), "p99 notification latency", f"p50 {seconds(steps['fanout']['p50'])}"),
    ]
    if ready and ready["count"]:
        tiles.append((seconds(ready["p99"]), "p99 from join to ready", f"p50 {seconds(ready['p50'])}"))
    cells = [
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span><small>{escape(more)}</small></div>'
        for value, name, more in tiles
    ]
    bad = "bad" if result["failed"] else "good"
    failed = f"<b>{result['failed']:,}</b><span>failures</span><small>of {len(SERVER_KINDS)} kinds</small>"
    cells.append(f'<div class="tile {bad}">{failed}</div>')
    if own := result["generator_failed"]:
        cells.append(f'<div class="tile own"><b>{own:,}</b><span>generator faults</span></div>')
    return f'<section class="tiles">{"".join(cells)}</section>'


def _slos(result: dict[str, Any]) -> str:
    rows = "".join(
        f'<li class="{"held" if it["held"] else "broken"}"><code>{escape(it["expression"])}</code> '
        f"<span>measured {escape(it['actual'])}</span></li>"
        for it in result["slos"]
    )
    return f'<section><h2>Objectives</h2><ul class="slos">{rows}</ul></section>'


def _failures(result: dict[str, Any]) -> str:
    server = _kinds(result, SERVER_KINDS, "Failures")
    return _kinds(result, GENERATOR_KINDS, "Faults of the load generator itself") + server


def _kinds(result: dict[str, Any], kinds: Iterable[str], title: str) -> str:
    rows = []
    for kind in kinds:
        if not (count := result["failures"].get(kind)):
            continue
        examples = "".join(
            f"<li><time>{it['at']:.1f} s</time> {escape(it['text'])}</li>" for it in result["examples"].get(kind, [])
        )
        rows.append(f"<h3>{count:,} {escape(kind)}: {escape(KINDS[kind])}</h3><ul class='examples'>{examples}</ul>")
    return f"<section><h2>{title}</h2>{''.join(rows)}</section>" if rows else ""


# --- plots ----------------------------------------------------------------------------------------------------


def _plots(result: dict[str, Any]) -> str:
    timeline, samples = result["timeline"], result["processes"]
    until = max([it["at"] + 1 for it in timeline] + [it["at"] for it in samples], default=1)
    ramp = (0.0, float(result["task"]["ramp"]))

    def over(words: plots.Words, series: list[Series], *, log: bool = False) -> str:
        return plots.lines(series, words, until=until, log=log, band=ramp)

    def series_of(
        fields: dict[str, tuple[str, str]], pick: Callable[[Sequence[float]], float], none: float | None = 0.0
    ) -> list[Series]:
        """Returns a series for each field; `none` is drawn for seconds without a value."""
        return [
            Series(name, plots.thinned([(it["at"], it[field] or none) for it in timeline], pick), style)
            for field, (name, style) in fields.items()
        ]

    latency = series_of({"p50": ("p50", "q0"), "p95": ("p95", "q1"), "p99": ("p99", "q2")}, max, None)
    fanout = series_of({"fanout_p50": ("p50", "q0"), "fanout_p99": ("p99", "q2")}, max, None)
    rates = series_of({"requests": ("requests", "s0"), "notifications": ("notifications", "s1")}, fmean)
    gauges = {"connected": ("connections", "s0"), "joined": ("in a room", "s1"), "in_flight": ("unanswered", "s2")}
    requests, notifications = result["histograms"]["requests"], result["histograms"]["fanout"]
    row = result["steps"]["requests"]
    marks = [(name, row[name]) for name in ("p50", "p99") if row["count"]]
    both = [("requests", "s0", requests), ("notifications", "s1", notifications)]
    figures = [
        _figure(
            "Request latency, from when it was due",
            latency,
            over(seconds, latency, log=True),
        ),
        _figure("Notification latency", fanout, over(seconds, fanout, log=True)),
        _figure("Per second", rates, over(_number, rates)),
        _figure("Peers", (it := series_of(gauges, max)), over(_number, it)),
        _figure(
            "Latency distribution", [Series(n, [], s) for n, s, _ in both], plots.distribution(both, seconds, marks)
        ),
    ]
    if samples:
        machine = plots.thinned([(it["at"], it["machine"]) for it in samples], fmean)
        cpu = [*_processes(samples, "cpu"), Series("everything on this machine", machine, "all")]
        memory = _processes(samples, "memory", 2**-20)
        figures += [
            _figure("CPU, in cores", cpu, over(lambda value: f"{value:.2g}", cpu), "peak", lambda v: f"{v:.2f}"),
            _figure("Memory", memory, over(_mebibytes, memory), "peak", _mebibytes),
        ]
    if any(it["queued"] is not None for it in samples):
        queued = [Series("waiting", plots.thinned([(it["at"], it["queued"]) for it in samples], max), "s0")]
        figures.append(_figure("Messages waiting in the partitions' queues", queued, over(_number, queued)))
    return f'<section class="plots">{"".join(figures)}</section>'


def _processes(samples: Sequence[dict[str, Any]], field: str, unit: float = 1.0) -> list[Series]:
    """Returns the busiest processes each by itself, and the others together."""
    names = list(dict.fromkeys(name for it in samples for name in it[field]))
    peaks = {name: max(it[field].get(name, 0) for it in samples) for name in names}
    busiest = set(sorted(names, key=lambda name: -peaks[name])[: plots.SERIES - 1])
    if len(names) <= plots.SERIES:
        busiest = set(names)

    def scaled(sample: dict[str, Any], name: str) -> float | None:
        return sample[field][name] * unit if name in sample[field] else None

    series = [
        Series(name, plots.thinned([(it["at"], scaled(it, name)) for it in samples], fmean), f"s{number}")
        for number, name in enumerate(name for name in names if name in busiest)
    ]
    if others := [name for name in names if name not in busiest]:
        points = [(it["at"], sum(scaled(it, name) or 0.0 for name in others)) for it in samples]
        series.append(Series(f"{len(others)} others", plots.thinned(points, fmean), f"s{plots.SERIES - 1}"))
    return series


def _figure(
    title: str, series: Sequence[Series], plot: str, about: str = "", words: plots.Words | None = None
) -> str:
    def legend(one: Series) -> str:
        values = [value for _, value in one.points if value is not None]
        more = f" <small>{about} {escape(words(max(values)))}</small>" if words and values else ""
        return f'<span><i class="{one.style}"></i>{escape(one.name)}{more}</span>'

    names = "".join(legend(one) for one in series)
    return f'<figure><figcaption>{escape(title)}</figcaption><div class="legend">{names}</div>{plot}</figure>'


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


def _mebibytes(value: float) -> str:
    return f"{value:,.0f} MiB"


# --- tables ---------------------------------------------------------------------------------------------------


def _tables(result: dict[str, Any]) -> str:
    steps = {
        words: result["steps"][name] for name, words in STEPS.items() if result["steps"].get(name, {}).get("count")
    }
    return (
        _table("Requests", result["methods"], errors=True)
        + _table("Notification latency", result["fanout"])
        + _table("Steps and totals", steps)
    )


def _table(title: str, rows: dict[str, Any], *, errors: bool = False) -> str:
    if not rows:
        return ""
    durations = ("mean", "p50", "p90", "p95", "p99", "p999", "max")
    headings = ["", "count", "per second", *durations, *(["errors"] if errors else [])]
    head = "".join(f"<th>{heading}</th>" for heading in headings)
    lines = []
    for name, row in rows.items():
        cells = [f"{row['count']:,}", f"{row['rate']:,.1f}", *(seconds(row[it]) for it in durations)]
        line = "".join(f"<td>{cell}</td>" for cell in cells)
        if errors:
            line += f'<td class="{"bad" if row["errors"] else ""}">{row["errors"]}</td>'
        lines.append(f"<tr><th>{escape(name)}</th>{line}</tr>")
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    return f'<section><h2>{escape(title)}</h2><div class="wide">{table}</div></section>'


def _footer(result: dict[str, Any]) -> str:
    machine = result["machine"]
    counts = ", ".join(f"{name} {count:,}" for name, count in result["counts"].items())
    return (
        f"<footer><p>{result['seconds']:g} s on {machine['cores']} cores, {escape(machine['system'])}, "
        f"Python {escape(machine['python'])}. Generators share the machine they run on; what they need is in the "
        "plots, and how late they were in the tables. Percentiles are at most 3 % too high.</p>"
        f"<p>Also counted: {escape(counts or 'nothing')}.</p></footer>"
    )
