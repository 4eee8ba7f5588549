"""The report: a page that stands by itself, says what was found and runs nothing."""

import itertools
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from client.evaluating.charts import WIDTH, quality_by_time, sorted_differences, stage_bars
from client.evaluating.figures import Times
from client.evaluating.page import page
from client.evaluating.page_style import STYLE
from tests.unit.client.evaluating.found_evaluation import NDCG, evaluation

VOID = {"meta", "br"}


class Reader(HTMLParser):
    """Checks that tags are closed in order, and gathers text, tags and attributes."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.tags, self.attributes = [], [], set(), []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(html):
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader


@pytest.fixture
def found(tmp_path):
    return evaluation(tmp_path / "tiny")


def test_the_page_asks_for_nothing_and_runs_nothing(found):
    html = page(found)
    reader = read(html)
    assert "script" not in reader.tags
    assert not {"src", "href", "srcset", "onload", "onclick", "action"} & {
        name for name, _ in reader.attributes
    }
    assert not re.search(r"https?:|url\(|@import", html)
    assert "default-src 'none'" in html
    assert "screen and (prefers-color-scheme:dark)" in html


def test_texts_of_a_data_set_are_only_ever_text(found):
    html = page(found)
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert not set(html) & set("\x1b\x07\x9b")


def test_it_says_figures_settings_and_notes(found):
    text = "".join(read(page(found)).text)
    assert "tiny · Sluice evaluation" in text
    for said in ("0.562", "0.688", "+0.125", "20.0", "80.0", "2026-01-02T03:04:05+00:00"):
        assert said in text
    assert "bm25 ranked the whole corpus by words alone" in text
    assert "fused is neither clearly better nor clearly worse than dense" in text


def test_queries_that_won_and_lost_most_are_told_with_ranks_and_titles(found):
    html = page(found)
    won, lost = html.split("<h3>Lost most</h3>")
    won = won.split("<h3>Won most</h3>")[1]
    assert [text.split("<")[0] for text in re.findall(r"<summary><span>(\w+)", won)] == [
        "why",
        "when",
    ]
    assert re.findall(r"<summary><span>(\w+)", lost) == ["where"]
    assert "who" not in re.findall(r"<span>(\w+)</span>", html)
    # d1 came second with dense and first with fused; d4 is in neither, and not in the corpus.
    first = won.split("</details>")[0]
    rows = re.findall(r"<th scope=row>(.*?)</th><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td>", first)
    assert [row[1:] for row in rows] == [("2", "2", "1"), ("1", "—", "—")]
    assert "not in the corpus" in rows[1][0]
    assert "A text without a title." in first
    assert first.count("<b>relevant</b>") == 2


def test_one_mode_alone_has_no_comparison(tmp_path):
    html = page(evaluation(tmp_path / "tiny", {"dense": NDCG["dense"]}))
    read(html)
    assert "query by query" not in html


def numbers(element, *names):
    return [float(element.get(name)) for name in names]


def drawn(svg):
    """The elements of a plot, which is XML, and says in words what it shows."""
    root = ET.fromstring(svg)  # noqa: S314  # drawn by us
    assert root.get("role") == "img"
    assert root.get("aria-label")
    return list(root)


def marks(svg):
    """Where the points of a plot stand, by mode."""
    placed = {}
    for path in drawn(svg):
        if "mark" in (path.get("class") or ""):
            x, y = re.findall(r"translate\(([\d.]+) ([\d.]+)\)", path.get("transform"))[0]
            placed[path.get("class").split()[1]] = (float(x), float(y))
    return placed


def test_better_stands_above_and_slower_to_the_right(found):
    svg = quality_by_time(found.modes)
    placed = marks(svg)
    assert placed["fused"][0] > placed["dense"][0]
    assert placed["fused"][1] < placed["dense"][1]
    bars = [line for line in drawn(svg) if line.get("class") == "bar fused"]
    upright, level = bars[0], bars[3]
    x, y = placed["fused"]
    x1, y1, x2, y2 = numbers(upright, "x1", "y1", "x2", "y2")
    assert x1 == x2 == x
    assert y2 < y < y1
    x1, y1, x2, y2 = numbers(level, "x1", "y1", "x2", "y2")
    assert y1 == y2 == y
    assert x == x1 < x2


def test_the_axis_of_time_is_labelled_however_alike_the_times(found):
    modes = {
        name: replace(figures, call=Times(21.0, 22.0, 24.0))
        for name, figures in found.modes.items()
    }
    texts = [
        text.text for text in drawn(quality_by_time(modes)) if text.get("text-anchor") == "middle"
    ]
    assert texts == ["20", "30", "40"]


def test_labels_of_points_that_coincide_stand_apart(tmp_path):
    modes = dict.fromkeys(("dense", "bm25", "fused", "reranked"), NDCG["dense"])
    found = evaluation(tmp_path / "tiny", modes)
    same = dict.fromkeys(modes, found.modes["dense"])
    names = [text for text in drawn(quality_by_time(same)) if text.get("class") == "name"]
    levels = sorted(float(text.get("y")) for text in names)
    assert {text.text for text in names} == set(modes)
    assert min(b - a for a, b in itertools.pairwise(levels)) >= 15


@pytest.mark.parametrize("scale", [0.001, 1.0, 5000.0])
@pytest.mark.parametrize("ndcg", [(0.0,) * 4, (1.0,) * 4, NDCG["fused"]])
def test_no_plot_leaves_its_frame(tmp_path, scale, ndcg):
    found = evaluation(tmp_path / "tiny", {"dense": NDCG["dense"], "fused": ndcg})
    modes = {
        name: replace(figures, call=Times(*(time * scale for time in figures.call)))
        for name, figures in found.modes.items()
    }
    gap = modes["fused"].difference
    assert gap is not None
    for svg in (
        quality_by_time(modes),
        stage_bars(modes, found.stages),
        sorted_differences(gap, "fused"),
    ):
        height = float(re.findall(r'viewBox="0 0 720 (\d+)"', svg)[0])
        for element in drawn(svg):
            for name in ("x", "x1", "x2"):
                assert 0 <= float(element.get(name) or 0) <= WIDTH
            for name in ("y", "y1", "y2"):
                assert 0 <= float(element.get(name) or 0) <= height
        assert "nan" not in svg
        assert "inf" not in svg


def test_gains_stand_above_zero_and_losses_below(found):
    gap = found.modes["fused"].difference
    svg = sorted_differences(gap, "fused")
    gains, losses = (e for e in drawn(svg) if "fill" in (e.get("class") or ""))
    assert (gains.get("class"), losses.get("class")) == ("fill fused", "fill dense")
    zero = float(gains.get("d")[1:].split("V")[0].split()[1])
    assert all(float(y) <= zero for y in re.findall(r"V([\d.]+)", gains.get("d")))
    assert all(float(y) >= zero for y in re.findall(r"V([\d.]+)", losses.get("d")))
    assert "2 better with fused" in svg
    assert "1 better with dense" in svg


def luminance(colour):
    shares = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return sum(weight * s for weight, s in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("scheme", [0, 1])
def test_colours_can_be_told_from_the_ground_in_both_schemes(scheme):
    blocks = re.findall(r":root\{(.*?)\}", STYLE, re.DOTALL)
    colours = dict(re.findall(r"--(\w+):(#\w{6})", blocks[scheme]))

    def contrast(name):
        light, dark = sorted((luminance(colours[name]), luminance(colours["ground"])), reverse=True)
        return (light + 0.05) / (dark + 0.05)

    assert contrast("ink") >= 7
    assert contrast("quiet") >= 4.5
    assert min(map(contrast, ("dense", "bm25", "fused", "reranked"))) >= 3
