"""The page in a browser: it draws its figures, alone, at every width, for everyone."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import made_up
from conftest import ROOT
from peft_study.files import read_json
from peft_study.findings.page.render import render

pytestmark = pytest.mark.slow

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
EVIL = '</script><script>window.evil = 1</script><img src=x onerror="window.evil = 1">'


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module", params=["made up", "committed"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the default study's page, or write one whose every kind of text tries to run."""
    if request.param == "committed":
        return (ROOT / "plots/report.html").as_uri()
    claims = [replace(claim, finding=EVIL) for claim in made_up.CLAIMS]
    figures = [replace(figure, title=f"{figure.title} {EVIL}") for figure in made_up.FIGURES]
    specs = {name: spec | {"description": EVIL} for name, spec in made_up.SPECS.items()}
    results = made_up.results(study=made_up.study(study=EVIL))
    html = render(results, claims, made_up.PUBLISHED, figures, specs)
    path: Path = tmp_path_factory.mktemp("plots") / "report.html"
    path.write_text(html, encoding="utf-8")
    return path.as_uri()


@pytest.fixture(params=[360, 1200])
def page(request: pytest.FixtureRequest, browser: Any, url: str) -> Iterator[Any]:
    """Open the page, its figures drawn, at a width in pixels; `said` and `asked` are its log."""
    page = browser.new_page(viewport={"width": request.param, "height": 800})
    page.said, page.asked = [], []
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.on("request", lambda asked: page.asked.append(asked.url))
    page.goto(url)
    drawn = "document.querySelectorAll('[data-figure]:not([data-drawn])').length === 0"
    page.wait_for_function(drawn)
    yield page
    page.close()


def test_it_prints_asks_for_nothing_and_complains_of_nothing(page: Any, url: str) -> None:
    assert page.pdf(format="A4").startswith(b"%PDF")
    assert page.said == []
    assert [asked for asked in page.asked if not asked.startswith("data:")] == [url]
    assert page.evaluate("window.evil") is None


def test_every_figure_is_drawn(page: Any) -> None:
    counts = {
        place.get_attribute("data-figure"): place.locator("svg .mark-symbol path").count()
        + place.locator("svg .mark-line path").count()
        for place in page.locator("[data-figure]").all()
    }
    if page.url == (ROOT / "plots/report.html").as_uri():
        listed = read_json(ROOT / "plots/figures.json")
        assert list(counts) == [figure["name"] for figure in listed]
        for name in counts:
            assert page.locator(f"[data-figure={name}] svg [class^=mark-] path").count() > 3
    else:
        # A point a row and two of the legend; a line a method, and two of the legend.
        assert counts == {"scores": 6 + 2, "curves": 2 + 2}


def test_only_tables_and_figures_scroll_sideways(page: Any) -> None:
    width = page.viewport_size["width"]
    assert page.evaluate("document.documentElement.scrollWidth") == width
    wide = "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth)"
    assert page.evaluate(f"{wide}.length") > 0 or width > 360


def test_it_is_accessible(page: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = axe.Axe().run(page).response["violations"]
    assert [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found] == []
    assert page.evaluate("document.querySelectorAll('h1').length") == 1


def test_the_first_key_skips_to_the_findings(page: Any) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
