"""The report's CSS, light and dark."""

from typing import Final

STYLE: Final = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --ink: #16191d; --soft: #5c6570; --line: #e3e6ea;
  --good: #0a7a3d; --good-soft: #e2f4e9; --bad: #b3261e; --bad-soft: #fce8e6;
  --own: #8a5a00; --own-soft: #fdf0d5; --band: #eef1f5;
  --s0: #2a6fdb; --s1: #0f9d76; --s2: #d98a00; --s3: #7a4fd0; --s4: #d6453d; --s5: #0a93b5; --s6: #c14a93;
  --s7: #7a828c; --q0: #8fb8f2; --q1: #3f83e0; --q2: #12448f; }
@media (prefers-color-scheme: dark) { :root { --page: #121417; --card: #1b1e23; --ink: #e8eaed; --soft: #a0a8b2;
  --line: #30353c; --good: #58d08b; --good-soft: #14331f; --bad: #ff8a80; --bad-soft: #3d1a18;
  --own: #f0b04a; --own-soft: #3a2a0d; --band: #22262c;
  --s0: #6ba3f7; --s1: #3ecfa3; --s2: #f0b04a; --s3: #b294f0; --s4: #f2837c; --s5: #4fc3dd; --s6: #e58ac0;
  --s7: #9aa2ad; --q0: #3d6dad; --q1: #6ba3f7; --q2: #c3dcff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 28px 20px 40px; }
header { display: flex; gap: 24px; justify-content: space-between; align-items: flex-start; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 16px; margin: 28px 0 10px; }
h3 { font-size: 14px; margin: 14px 0 4px; color: var(--bad); }
.about { margin: 0; color: var(--soft); max-width: 85ch; } .about b { color: var(--ink); }
.verdict { font-weight: 700; padding: 8px 18px; border-radius: 8px; font-size: 18px; white-space: nowrap; }
.passed { color: var(--good); background: var(--good-soft); }
.failed { color: var(--bad); background: var(--bad-soft); }
.invalid { color: var(--own); background: var(--own-soft); }
.tiles { display: grid;
  grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin-top: 20px; }
.tile, figure, .wide, .slos, .examples { background: var(--card);
  border: 1px solid var(--line); border-radius: 10px; }
.tile { padding: 12px 14px; display: flex; flex-direction: column; }
.tile b { font-size: 24px; line-height: 1.2; font-variant-numeric: tabular-nums; }
.tile small { color: var(--soft); }
.tile.good b { color: var(--good); } .tile.bad b { color: var(--bad); }
.tile.own b { color: var(--own); }
.slos { list-style: none; margin: 0; padding: 10px 14px; display: flex; flex-wrap: wrap; gap: 6px 26px; }
.slos li::before { content: "✓ "; color: var(--good); font-weight: 700; }
.slos li.broken::before { content: "✗ "; color: var(--bad); }
.slos li.broken code { color: var(--bad); } .slos span { color: var(--soft); }
.examples { list-style: none; margin: 0; padding: 8px 14px; font-size: 13px; overflow-wrap: anywhere; }
time { color: var(--soft); margin-right: 8px; font-variant-numeric: tabular-nums; }
.plots { display: grid;
  grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr)); gap: 14px; margin-top: 20px; }
figure { margin: 0; padding: 12px 14px 6px; } figcaption { font-weight: 600; font-size: 14px; }
svg { width: 100%; height: auto; display: block; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 14px; font-size: 12.5px; color: var(--soft); min-height: 20px; }
.legend i { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 5px; }
.grid { stroke: var(--line); stroke-width: 1; } .axis { stroke: var(--soft); stroke-width: 1; }
.tick { fill: var(--soft); font-size: 11px; } .end { text-anchor: end; } .middle { text-anchor: middle; }
.line { fill: none; stroke-width: 1.8; stroke-linejoin: round; stroke-linecap: round; }
.line.all { stroke: var(--soft); stroke-dasharray: 5 4; stroke-width: 1.3; }
i.all { background: var(--soft); }
.band { fill: var(--band); } .hint { fill: transparent; } .hint:hover { fill: var(--soft); fill-opacity: .12; }
.bar { fill-opacity: .55; } .mark { stroke: var(--ink); stroke-width: 1; stroke-dasharray: 3 3; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 12px; text-align: right; white-space: nowrap; font-size: 13.5px; }
thead th { color: var(--soft); font-weight: 500; } tbody tr { border-top: 1px solid var(--line); }
tbody th { text-align: left; font-weight: 500; } td.bad { color: var(--bad); font-weight: 700; }
footer { margin-top: 28px; color: var(--soft); font-size: 13px; }
""" + "".join(
    f".line.{name} {{ stroke: var(--{name}); }} .bar.{name} {{ fill: var(--{name}); }}"
    f" i.{name} {{ background: var(--{name}); }}\n"
    for name in (*(f"s{number}" for number in range(8)), "q0", "q1", "q2")
)
