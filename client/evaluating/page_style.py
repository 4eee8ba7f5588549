"""How the page of an evaluation looks: one style sheet for light and dark, wide and narrow.

Colours of modes keep 3:1 and more against the ground, of text 7:1, in both schemes; modes differ in
shape as well. Nothing is fetched.
"""

from __future__ import annotations

from typing import Final

STYLE: Final = """
:root{--ground:#fcfcfa;--ink:#1c2126;--quiet:#545d66;--rule:#dcdfe1;--soft:#f1f2ef;
--dense:#1f6fb4;--bm25:#b4570c;--fused:#16805a;--reranked:#8446ad}
@media screen and (prefers-color-scheme:dark){:root{--ground:#15181b;--ink:#e8eaec;--quiet:#a3acb5;
--rule:#343a40;--soft:#1e2226;--dense:#6bb0f2;--bm25:#f0a057;--fused:#58c79a;--reranked:#c99bea}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif}
main{max-width:60rem;margin:0 auto;padding:2.5rem 1.25rem 4rem}
header p:first-child{margin:0;color:var(--quiet)}
h1{margin:0 0 .5rem;font-size:2rem;line-height:1.2;overflow-wrap:anywhere}
h2{margin:0 0 .75rem;font-size:1.25rem}h3{margin:1.5rem 0 .5rem;font-size:1rem}
h4{margin:0 0 .25rem;font-size:.875rem;font-weight:600}
section{margin-top:2.75rem}.queries{margin-top:0}
.lead{font-size:1.125rem;max-width:46rem}
.quiet,figcaption,small,dt{color:var(--quiet)}.quiet,figcaption{font-size:.875rem;max-width:46rem}
.notes{padding-left:1.1rem;font-size:.875rem}
.wide,.plot{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:.9375rem}
th,td{padding:.45rem .7rem;text-align:right;vertical-align:top;border-bottom:1px solid var(--rule)}
th:first-child{text-align:left;padding-left:0}
thead th{font-weight:500;color:var(--quiet);white-space:nowrap;vertical-align:bottom}
tbody th{font-weight:600}th small,td small{display:block}td small{white-space:nowrap}
th small{overflow-wrap:anywhere}
figure{margin:0}figcaption{margin-top:.5rem}
.plot svg:not(.icon){display:block;width:100%;min-width:34rem;height:auto}
svg text{fill:var(--quiet);font-size:13px}svg text.small{font-size:11.5px}
svg text.name{fill:var(--ink);font-weight:600;paint-order:stroke;stroke:var(--ground);
stroke-width:5px;stroke-linejoin:round}
.grid{stroke:var(--rule)}.axis{stroke:var(--quiet)}.bar{stroke-width:2;stroke:var(--of)}
.mark,.fill{fill:var(--of)}
.dense{--of:var(--dense)}.bm25{--of:var(--bm25)}.fused{--of:var(--fused)}
.reranked{--of:var(--reranked)}
.icon{width:.85em;height:.85em;margin-right:.4em;vertical-align:-.05em}
.mode{white-space:nowrap}.legend{margin:0 0 .5rem}.legend .mode{margin-right:1.25rem}
details{border-bottom:1px solid var(--rule);padding:.5rem 0}
details[open]{padding-bottom:1rem}
summary{cursor:pointer}summary:focus-visible{outline:2px solid var(--dense);outline-offset:3px}
summary b{white-space:nowrap;font-variant-numeric:tabular-nums;margin-left:.5rem}
details table{font-size:.875rem;margin-top:.5rem}details tbody th{font-weight:400}
.tops{display:grid;grid-template-columns:repeat(auto-fit,minmax(17rem,1fr));gap:1rem;margin-top:1rem;
background:var(--soft);padding:.9rem 1rem;border-radius:.4rem;font-size:.875rem}
.tops ol{margin:0;padding-left:1.2rem}.tops b{color:var(--fused)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.3rem 1.25rem;font-size:.875rem;margin:0}
dd{margin:0;overflow-wrap:anywhere}
@media (max-width:36rem){dl{display:block}dd{margin-bottom:.5rem}}
@media print{:root,body{font-size:12px}main{max-width:none;padding:0}section{margin-top:1.5rem}
.wide,.plot{overflow:visible}.plot svg:not(.icon){min-width:0}
details::details-content{content-visibility:visible}
h2,h3,summary{break-after:avoid}figure,tr,.tops{break-inside:avoid}thead th{white-space:normal}}
"""
