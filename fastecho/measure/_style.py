"""How the page and its charts look: one style sheet, light and dark, wide and narrow.

What lives here: CSS. The colours of lines follow Okabe and Ito's palette, which colour-blind people
can tell apart, made darker on light and lighter on dark paper so that each has a contrast of 3:1 at
least; dashes tell lines apart as well. Nothing is loaded from anywhere, fonts included.
"""

from __future__ import annotations

__all__ = ["CHART", "PAGE"]

_LIGHT = (
    "--paper:#fff;--ink:#1f2328;--soft:#59636e;--grid:#d8dee4;--card:#f6f8fa;--bad:#b3261e;"
    "--c0:#0072b2;--c1:#c44f00;--c2:#00805d;--c3:#a8457f;--c4:#806600;--c5:#57606a"
)
_DARK = (
    "--paper:#0d1117;--ink:#e6edf3;--soft:#9aa4af;--grid:#2f363e;--card:#161b22;--bad:#ff8a80;"
    "--c0:#56b4e9;--c1:#ff9a52;--c2:#34d3a6;--c3:#eaa0cb;--c4:#f0e442;--c5:#c0c8d0"
)
CHART = f"""
:root{{color-scheme:light dark;{_LIGHT}}}
@media (prefers-color-scheme:dark){{:root{{{_DARK}}}}}
svg text{{font:13px system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;
fill:var(--ink)}}
svg .title{{fill:var(--soft)}}svg .end{{text-anchor:end}}svg .middle{{text-anchor:middle}}
svg .paper{{fill:var(--paper)}}
svg .grid{{stroke:var(--grid);stroke-width:1}}
svg .line{{fill:none;stroke:var(--c);stroke-width:2;stroke-linejoin:round}}
svg .dot{{fill:var(--c)}}
.c0{{--c:var(--c0)}}.c1{{--c:var(--c1)}}.c2{{--c:var(--c2)}}
.c3{{--c:var(--c3)}}.c4{{--c:var(--c4)}}.c5{{--c:var(--c5)}}
.d1{{stroke-dasharray:7 4}}.d2{{stroke-dasharray:2 3}}.d3{{stroke-dasharray:9 3 2 3}}
svg .strip{{fill:none;pointer-events:all}}
svg .tip{{visibility:hidden;pointer-events:none}}
svg .at:hover .tip{{visibility:visible}}
svg .guide{{stroke:var(--soft);stroke-width:1}}
svg .box{{fill:var(--card);stroke:var(--soft)}}
"""
"""For a chart, on a page or alone."""

PAGE = (
    CHART
    + """
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem 1.25rem 3rem;max-width:60rem;background:var(--paper);
color:var(--ink);font:1rem/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;
overflow-wrap:anywhere}
h1{font-size:1.5rem;line-height:1.25;margin:.5rem 0}
h2{font-size:1.15rem;margin:2rem 0 .25rem}h3{font-size:1rem;margin:1.25rem 0 .25rem}
p{margin:.35rem 0}.soft{color:var(--soft)}.bad{color:var(--bad)}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(7.4rem,1fr));gap:.6rem;
margin:1rem 0;padding:0}
.cards div{background:var(--card);border:1px solid var(--grid);border-radius:.4rem;
padding:.5rem .7rem}
.cards dt{color:var(--soft);font-size:.85rem}
.cards dd{margin:0;font-size:1.2rem;font-weight:600;font-variant-numeric:tabular-nums}
svg.chart{display:block;width:100%;height:auto}
svg.narrow{display:none}
@media (max-width:40rem){svg.narrow{display:block}svg.wide{display:none}body{padding:.5rem .75rem}}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;margin:.5rem 0}
th,td{padding:.25rem .65rem .25rem 0;text-align:right;border-bottom:1px solid var(--grid);
white-space:nowrap}
th:first-child,td:first-child{text-align:left}
th[scope=row]{font-weight:400;white-space:normal;min-width:9rem}
td small{color:var(--soft);display:block}
.key{display:inline-block;width:.8em;height:.8em;border-radius:.2em;margin-right:.4em;
background:var(--c)}
footer{margin-top:3rem;color:var(--soft);font-size:.85rem}
"""
)
"""For the whole page."""
