"""Pages from templates: one HTML file that loads nothing and runs its own charts alone.

Every template escapes what it is given. A page's policy names its one script by its hash: no
other script runs, whatever a name from a stranger may hold, and nothing is fetched.
"""

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from inspect import isfunction
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from cbdm_scale.data.cache import cache_folder
from cbdm_scale.data.guidance_strength import as_text
from cbdm_scale.evaluation.report import formatting
from cbdm_scale.evaluation.report.charts import PALETTE, Picture
from cbdm_scale.storage.folder import Storage

TEMPLATES = Path(__file__).parent / "templates"


def render_page(
    template: str, pictures: Mapping[str, Picture], folder: Path = TEMPLATES, **context: Any
) -> str:
    """The text of a page with the charts of some pictures.

    template: name of a file in ``folder`` that extends page.html.j2
    context: what the template is told besides
    """
    script = _script()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    )
    specs = {
        f"{name}-{place}": panel.page_spec()
        for name, picture in pictures.items()
        for place, panel in enumerate(picture.panels)
    }
    charts = {"specs": specs, "night": dict(PALETTE.values())}
    return (
        environment(folder)
        .get_template(template)
        .render(
            pictures=pictures,
            charts=charts,
            policy=policy,
            palette=PALETTE,
            script=Markup(script),  # ours, and the library's
            **context,
        )
    )


@cache
def environment(folder: Path) -> Environment:
    """The templates of a folder and those here, with the functions of ``formatting``.

    HTML templates escape what they are given; a name that is not given is an error. What is
    compiled of them is kept for the next page of this process.
    """
    found = Environment(
        loader=FileSystemLoader([folder, TEMPLATES]),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters |= {n: f for n, f in vars(formatting).items() if isfunction(f)}
    found.filters["as_text"] = as_text
    return found


def _script() -> str:
    """Vega, Vega-Lite and Vega-Embed as vl-convert ships them, and what draws our charts.

    Bundling them takes seconds of a processor, so this machine keeps what came of it.
    """
    import vl_convert

    version = vl_convert.__version__  # type: ignore[attr-defined]
    kept, name = Storage(str(cache_folder())), f"vega-{version}.js"
    if not kept.exists(name):
        library = vl_convert.javascript_bundle()  # type: ignore[call-arg]
        kept.write_bytes(name, library.encode())
    return f"{kept.read_text(name)}\n{(TEMPLATES / 'charts.js').read_text('utf-8')}"
