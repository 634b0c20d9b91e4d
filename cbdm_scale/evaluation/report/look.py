"""The style sheet of the page: light and dark, desktop and phone, nothing loaded."""

from cbdm_scale.evaluation.report.canvas import (
    BEST,
    GROUP_COLOURS,
    INK,
    MUTED,
    OTHER,
    PAPER,
    RULE,
    RUN,
)

LIGHT = {
    "page": "#f4f5f8",
    "card": PAPER,
    "ink": INK,
    "muted": MUTED,
    "rule": RULE,
    "other": OTHER,
    "best": BEST,
    "run": RUN,
    "bad": "#b3362b",
    "all": GROUP_COLOURS[None],
    "many": GROUP_COLOURS["many"],
    "medium": GROUP_COLOURS["medium"],
    "few": GROUP_COLOURS["few"],
}
DARK = {
    "page": "#0e1218",
    "card": "#171d26",
    "ink": "#e8ecf2",
    "muted": "#9ca7b6",
    "rule": "#2b3442",
    "other": "#8e99a9",
    "best": "#3fc7a3",
    "run": "#a599ff",
    "bad": "#ff8a7a",
    "all": "#a9b6c8",
    "many": "#62aaf5",
    "medium": "#e9b949",
    "few": "#f7799c",
}

RULES = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,-apple-system,
"Segoe UI",Roboto,"Helvetica Neue",Arial,"Noto Sans",sans-serif;
font-variant-numeric:tabular-nums}
main,header,footer{max-width:1216px;margin:0 auto;padding:0 28px}
header{padding-top:40px}
.eyebrow{margin:0;color:var(--muted);font-size:.86rem;overflow-wrap:anywhere}
.eyebrow b{color:var(--ink)}
h1{font-size:clamp(1.4rem,1rem + 1.6vw,2.05rem);line-height:1.22;letter-spacing:-.018em;
font-weight:680;margin:.5rem 0 1rem;max-width:34em;text-wrap:pretty}
h2{font-size:1.3rem;letter-spacing:-.01em;margin:2.9rem 0 .25rem;font-weight:660}
h3{font-size:.95rem;margin:0;font-weight:640}
p{margin:.35rem 0;max-width:66em}
.sub{color:var(--muted);font-size:.92rem;margin:.15rem 0 .9rem}
.claims{list-style:none;margin:1rem 0 0;padding:0;display:grid;gap:.45rem}
.claims li{display:grid;grid-template-columns:1.5rem 1fr;gap:.45rem;max-width:66em;
overflow-wrap:anywhere}
.claims+.sub{margin:1rem 0 0}
.claims i{font-style:normal;font-weight:700;text-align:center;color:var(--muted)}
.claims .good i{color:var(--best)}.claims .bad i{color:var(--bad)}
.card{background:var(--card);border:1px solid var(--rule);border-radius:14px;padding:16px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,210px),1fr));gap:12px;
margin-top:1.7rem}
.tiles.rest{grid-template-columns:repeat(auto-fit,minmax(min(100%,124px),1fr));margin-top:12px}
.tile{padding:14px 16px;display:flex;flex-direction:column}
.tile .name{font-size:.86rem;font-weight:640}
.tile .big{font-size:2.1rem;line-height:1.2;font-weight:680;letter-spacing:-.02em}
.rest .tile{padding:11px 13px}
.rest .tile .big{font-size:1.3rem}
.tile .ends{font-size:.84rem;color:var(--ink)}
.tile .about{font-size:.78rem;color:var(--muted);margin-top:auto;padding-top:.35rem}
.tile .beside{font-size:.8rem;color:var(--muted);margin-top:.3rem}
.strip{position:relative;display:block;height:16px;margin:.4rem 0 0;border-left:1px solid
var(--rule);border-right:1px solid var(--rule)}
.strip u{position:absolute;height:5px;border-radius:3px;background:var(--run);top:2px;
min-width:3px}
.strip u+u{background:var(--other);top:9px}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,330px),1fr));gap:14px}
.charts.small{grid-template-columns:repeat(auto-fit,minmax(min(100%,260px),1fr))}
.charts.pair{grid-template-columns:repeat(auto-fit,minmax(min(100%,430px),1fr))}
figure{margin:0}
figcaption{margin-bottom:.5rem}
figcaption small{display:block;color:var(--muted);font-size:.8rem;font-weight:400}
svg{display:block;width:100%;height:auto;overflow:visible;font-family:inherit}
.classes{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,345px),1fr));gap:14px}
.name{overflow-wrap:anywhere}
.clamp{display:-webkit-box;-webkit-box-orient:vertical;-webkit-line-clamp:2;overflow:hidden}
.badge{display:inline-block;font-size:.74rem;line-height:1.5;padding:0 .5em;border-radius:99px;
border:1px solid currentColor;white-space:nowrap;font-weight:600}
.many{color:var(--many)}.medium{color:var(--medium)}.few{color:var(--few)}.all{color:var(--all)}
.row{display:grid;grid-template-columns:repeat(var(--n),1fr);gap:3px;margin:.1rem 0 .5rem}
.row img{width:100%;display:block;border-radius:3px;background:var(--rule)}
.row.pixels img{image-rendering:pixelated}
.rowname{font-size:.76rem;color:var(--muted);margin:.35rem 0 .1rem}
.scroll{overflow-x:auto;border:1px solid var(--rule);border-radius:14px;background:var(--card)}
table{border-collapse:collapse;width:100%;font-size:.88rem}
th,td{padding:.42rem .8rem;text-align:right;white-space:nowrap;vertical-align:top;
border-bottom:1px solid var(--rule)}
tr:last-child td{border-bottom:0}
thead th{font-size:.78rem;color:var(--muted);font-weight:600;vertical-align:bottom}
th:first-child,td:first-child{text-align:left;white-space:normal;min-width:9.5em;max-width:26em;
position:sticky;left:0;background:var(--card)}
.who{display:flex;gap:.6em;align-items:baseline;justify-content:space-between}
td:first-child small{margin:0}
td small{color:var(--muted);font-size:.78rem;margin-left:.35em}
td .bar{display:block;height:4px;border-radius:2px;margin:.18rem 0 .1rem auto;
background:currentColor;width:var(--w);min-width:1px;opacity:.85}
td .track{display:block;min-width:7.5em}
.none{color:var(--muted);font-style:italic}
.tables{display:grid;grid-template-columns:minmax(0,1fr);gap:12px}
.tables h3{margin-top:1rem}
.gap{margin-top:14px}
details{margin-top:14px}
summary{cursor:pointer;font-weight:640;padding:.5rem 0}
details .scroll{max-height:75vh;overflow-y:auto}
details thead th{position:sticky;top:0;background:var(--card);z-index:1}
.heat rect{stroke:var(--card);stroke-width:.8}
.h0{fill:color-mix(in srgb,var(--few) 95%,var(--card))}
.h1{fill:color-mix(in srgb,var(--few) 62%,var(--card))}
.h2{fill:color-mix(in srgb,var(--few) 30%,var(--card))}
.h3{fill:color-mix(in srgb,var(--many) 26%,var(--card))}
.h4{fill:color-mix(in srgb,var(--many) 58%,var(--card))}
.h5{fill:color-mix(in srgb,var(--many) 95%,var(--card))}
.hx{fill:var(--rule)}
.key{display:flex;flex-wrap:wrap;gap:.3rem 1rem;font-size:.8rem;color:var(--muted);
margin:.5rem 0 0}
.key svg{width:12px;height:12px;display:inline-block;vertical-align:-1px;margin-right:.3em}
dl{display:grid;grid-template-columns:minmax(9em,max-content) minmax(0,1fr);gap:.3rem 1.2rem;
margin:0;font-size:.88rem}
dt{color:var(--muted)}dd{margin:0;overflow-wrap:anywhere}
ul.plain{margin:.4rem 0;padding-left:1.2rem}
ul.plain li{margin:.25rem 0;overflow-wrap:anywhere}
footer{padding:2.4rem 28px 3rem;color:var(--muted);font-size:.82rem}
@media (max-width:560px){main,header,footer{padding-left:14px;padding-right:14px}
header{padding-top:22px}h2{margin-top:2.2rem}.card{padding:12px;border-radius:12px}
.tiles,.tiles.rest{grid-template-columns:1fr 1fr;gap:8px}.tiles.rest{margin-top:8px}
.tile,.rest .tile{padding:10px 12px}.tile .big{font-size:1.55rem}.tile .ends{font-size:.78rem}
th,td{padding:.4rem .55rem}
dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:.5rem}.row{gap:2px}
th:first-child,td:first-child{min-width:7.5em;max-width:10em}.who{display:block}
.tile:last-child:nth-child(odd){grid-column:1/-1}}
@media print{body{background:#fff}.card,.scroll{break-inside:avoid}}
"""


def style_sheet() -> str:
    """The whole text of <style>."""
    return (
        f":root{{color-scheme:light dark;{_variables(LIGHT)}}}"
        f"@media (prefers-color-scheme:dark){{:root{{{_variables(DARK)}}}}}"
        f"{RULES}"
    )


def _variables(colours: dict[str, str]) -> str:
    return ";".join(f"--{name}:{colour}" for name, colour in colours.items())
