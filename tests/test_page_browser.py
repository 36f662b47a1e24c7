"""A real browser opens the page of `--html`: without a complaint, and it shows what it should.

Where there is no Chromium these tests are skipped. FASTECHO_SCREENSHOTS=FOLDER keeps pictures of
every sample, light and dark, wide and narrow, for somebody to look at.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import NAMES, Browser, find_browser
from page_samples import SAMPLES, model_runs

from fastecho.measure import model_page
from fastecho.measure.page import page, picture

pytestmark = [
    pytest.mark.skipif(find_browser() is None, reason=f"no browser: none of {', '.join(NAMES)}"),
    pytest.mark.timeout(150),
]

HEARD = """(() => {
    const seen = [...document.querySelectorAll('svg.chart')].filter(s => s.clientWidth > 0);
    const clipped = seen.filter(s => [...s.querySelectorAll('text')].some(t => {
        const a = t.getBoundingClientRect(), b = s.getBoundingClientRect();
        return a.right > b.right + 2 || a.left < b.left - 2 || a.bottom > b.bottom + 2;
    })).length;
    return {charts: seen.length, shape: seen.map(s => s.classList[1]).join(' '), clipped,
            paper: getComputedStyle(document.body).backgroundColor,
            beyond: document.documentElement.scrollWidth - innerWidth};
})()"""
"""What is on the page: charts that are seen, and whether anything is cut off."""


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with Browser(tmp_path) as found:
        yield found


def test_pages_open_without_a_complaint_in_light_and_dark_and_on_a_phone(
    browser: Browser, tmp_path: Path
) -> None:
    pictures = os.environ.get("FASTECHO_SCREENSHOTS")
    for name, make in SAMPLES.items():
        path = tmp_path / f"{name}.html"
        path.write_text(page(make()), encoding="utf-8")
        for width, dark in ((1000, False), (1000, True), (360, False)):
            browser.open(path, width=width, dark=dark)
            heard = browser.evaluate(HEARD)
            assert browser.complaints == [], name
            assert {url for url in browser.requests if not url.startswith("data:")} == {
                path.as_uri()
            }
            shape = "narrow" if width == 360 else "wide"
            assert set(heard["shape"].split()) == {shape}, name
            assert heard["clipped"] == 0, (name, width)
            assert heard["beyond"] <= 0, (name, width)
            assert heard["paper"] == ("rgb(13, 17, 23)" if dark else "rgb(255, 255, 255)")
            if pictures:
                look = f"{name}-{width}-{'dark' if dark else 'light'}.png"
                browser.screenshot(Path(pictures) / look, whole=True)


def test_page_of_the_models_opens_without_a_complaint(browser: Browser, tmp_path: Path) -> None:
    pictures = os.environ.get("FASTECHO_SCREENSHOTS")
    path = tmp_path / "models.html"
    path.write_text(model_page.page(model_runs()), encoding="utf-8")
    for width, dark in ((1000, False), (1000, True), (360, False)):
        browser.open(path, width=width, dark=dark)
        heard = browser.evaluate(HEARD)
        assert browser.complaints == []
        assert {url for url in browser.requests if not url.startswith("data:")} == {path.as_uri()}
        assert (heard["charts"], heard["clipped"]) == (4, 0)
        assert heard["beyond"] <= 0
        if pictures:
            look = f"models-{width}-{'dark' if dark else 'light'}.png"
            browser.screenshot(Path(pictures) / look, whole=True)


def test_values_appear_where_the_pointer_is(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(page(SAMPLES["open"]()), encoding="utf-8")
    browser.open(path)
    count = (
        "[...document.querySelectorAll('svg.wide .tip')]"
        ".filter(t => getComputedStyle(t).visibility === 'visible').map(t => t.textContent)"
    )
    assert browser.evaluate(count) == []
    browser.evaluate("document.querySelector('svg.wide').scrollIntoView()")
    x, y = browser.evaluate(
        "(b => [b.left + b.width / 2, b.top + b.height / 2])"
        "(document.querySelector('svg.wide').getBoundingClientRect())"
    )
    browser.point_at(x, y)
    (shown,) = browser.evaluate(count)
    assert "latency: " in shown and "service time: " in shown and shown.strip().startswith("p9")
    assert browser.complaints == []


def test_picture_stands_alone(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "picture.svg"
    path.write_text(picture(SAMPLES["open"]()), encoding="utf-8")
    paper = "getComputedStyle(document.querySelector('.paper')).fill"
    for dark, colour in ((False, "rgb(255, 255, 255)"), (True, "rgb(13, 17, 23)")):
        browser.open(path, dark=dark)
        assert browser.evaluate(paper) == colour
        assert browser.complaints == []


def test_complaint_of_a_page_is_heard(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "bad.html"
    text = page(SAMPLES["open"]()).replace(
        "</main>", "<script>1</script><img src='http://x.example/'/></main>"
    )
    path.write_text(text, encoding="utf-8")
    browser.open(path)
    browser.evaluate("console.error('heard')")
    told = " ".join(browser.complaints)
    assert "script" in told and "x.example" in told and "heard" in told
