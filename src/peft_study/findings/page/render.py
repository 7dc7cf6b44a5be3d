"""The study as one page: findings in words, every table and figure, and what they came from."""

import base64
import hashlib
import shutil
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import vl_convert
from jinja2 import StrictUndefined, Template
from markupsafe import Markup

from peft_study.files import replacing
from peft_study.findings.page import words
from peft_study.findings.page.papers import papers_tables
from peft_study.findings.page.tables import tables
from peft_study.findings.results import Claim, FigureInfo, PublishedRow, Results
from peft_study.findings.wording import marked

HERE = Path(__file__).parent
# With a word beside it: a verdict must not hang on a sign or a colour alone.
SYMBOLS = {"supported": "✔", "contradicted": "✘", "inconclusive": "?", "not measured": "○"}


def render(
    results: Results,
    claims: Sequence[Claim],
    published: Sequence[PublishedRow],
    figures: Sequence[FigureInfo],
    specs: Mapping[str, Mapping[str, object]],
) -> str:
    """Return the page, which needs no other file and no network, from Vega-Lite specs by figure."""
    source = (HERE / "report.html.jinja").read_text(encoding="utf-8")
    template = Template(
        source, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    script, rank = _script(), list(SYMBOLS).index
    both = results.study.lora and results.study.full
    about = "LoRA and full fine-tuning" if both else "Parameter-efficient fine-tuning"
    title = f"{about}: the study “{results.study.study}”"
    return template.render(
        study=results.study,
        title=marked(title, results.study),
        claims_caption=marked("What each claim says, and what this study found", results.study),
        overview=words.overview(results.study),
        findings=words.findings(results, claims),
        claims=sorted(claims, key=lambda claim: rank(claim.verdict)),
        symbols=SYMBOLS,
        figures=figures,
        specs=specs,
        energy=words.energy_words(results.profile),
        parameters=words.parameters(results.study.params),
        script=Markup(script),
        digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        **tables(results, published),
    )


def write_page(page: str, path: Path) -> None:
    """Write what `render` returned."""
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def write_tables(results: Results, published: Sequence[PublishedRow], folder: Path) -> None:
    """Write the tables in the papers' form as all that `folder` holds."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, table in papers_tables(results, published).items():
        (folder / name).write_text(table, encoding="utf-8")


@cache
def _script() -> str:
    """Return Vega, Vega-Lite and vega-embed with what draws the page's figures."""
    return vl_convert.javascript_bundle((HERE / "draw.js").read_text(encoding="utf-8"))
