"""The report as text, and as a browser shows it."""

from __future__ import annotations

import base64
import hashlib
import html
import html.parser
import pathlib
import re
import shlex
import shutil

import numpy as np
import pytest

from gdfq_tf.cli.flags import COMMANDS
from gdfq_tf.report import charts
from gdfq_tf.report.page import make_page
from gdfq_tf.report.pictures import chosen, title_of
from gdfq_tf.synthesis.image_pool import ImagePool

HOSTILE = (
    "</title></style></script><script>window.hit = 1</script><img src=x onerror=hit>"
)
LARGEST = 2_000_000  # bytes of a report of a usual network


class Reader(html.parser.HTMLParser):
    """What a page holds: (tag, attributes) of its elements, and its texts."""

    def __init__(self, page: str):
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)

    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def of(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def without_charts(monkeypatch):
    """Pages whose texts are looked at are made sooner."""
    for name in ("curves", "gaps", "layers", "losses"):
        monkeypatch.setattr(charts, name, lambda _: "<svg></svg>")


@pytest.fixture(scope="module")
def page(directory) -> str:
    """The report of the run as it is."""
    return (directory / "report.html").read_text()


@pytest.fixture
def labelled(summary) -> dict:
    """The summary of a run with labelled images: w4a8 lost too much."""
    for row, top1 in zip(summary["models"], (0.9, 0.8, 0.89, 0.6), strict=True):
        row |= {"top1": top1, "top1_interval_95": [top1 - 0.02, top1 + 0.01]}
        row |= {"num_images": 1000, "latency_ms": 0.5}
    summary["command"] = ["/usr/bin/gdfq", "quantize", "a model.keras", "--seed=0"]
    return summary


@pytest.mark.usefixtures("without_charts")
def test_the_headline_is_measured_where_there_are_labels(labelled, images):
    page = Reader(make_page(labelled, images)).text()
    assert "Ship tiny_w8a8.tflite" in page
    assert "Top-1, measured 89.00 %" in page
    assert "87.0 to 90.0 % at 95 % confidence on 1,000 images; float 90.00 %" in page
    assert "GDFQ w4a8: 30.0 points below float, beyond its interval: broken" in page
    assert "gdfq quantize 'a model.keras' --seed=0" in page


@pytest.mark.usefixtures("without_charts")
def test_the_headline_is_estimated_without(summary, images):
    for row in summary["models"][2:]:
        row["estimate"] |= {"accuracy_loss": 0.25, "largest_accuracy_loss": 1.5}
    page = Reader(make_page(summary, images)).text()
    assert "Accuracy lost, estimated 0.2 points 1.5 at worst" in page
    assert "bit for bit" in page
    assert "by LiteRT" in page
    assert "gdfq_tf.quantize(model, bits='w8a8,w4a8', recipe='fast', seed=0" in page


@pytest.mark.usefixtures("without_charts")
def test_no_file_is_shipped_that_is_not_good(labelled, images):
    for row in labelled["models"][2:]:
        row["top1"] = 0.1
    page = Reader(make_page(labelled, images)).text()
    assert "Ship none of these files as they are" in page


@pytest.mark.parametrize(
    ("estimate", "shown"),
    [
        ({"num_images": 8, "label_agreement": 0.995}, "Labels as in float 99.5 %"),
        ({"num_images": 8, "signal_to_noise_db": 31.2}, "Signal above error 31.2 dB"),
    ],
)
@pytest.mark.usefixtures("without_charts")
def test_networks_without_classes_have_another_headline(
    summary, images, estimate, shown
):
    for row in summary["models"]:
        agreed = row.pop("agreement_with_float")
        row["label_agreement_with_float"] = agreed
    for row in summary["models"][2:]:
        row["estimate"] = estimate
    assert shown in Reader(make_page(summary, images)).text()


def test_input_output_and_classes_are_told(page, summary):
    page = Reader(page).text()
    (subject,) = (x for x in summary["models"] if f"use {x['file']} Input" in page)
    output = subject["int8_output"]
    assert "q = pixel - 128" in page
    assert f"value = {output['scale']:.9g} " in page
    assert "0 cat 1 dog 2 fish" in page


def test_the_commands_make_the_run_again(page, summary, images):
    text = html.unescape(page)
    # It was a live model, which no file holds.
    call = "gdfq_tf.quantize_from_manifest('.', model=model)  # in this folder"
    assert call in text
    summary["manifest"]["from_program"] = []
    summary["command"] = ["/usr/bin/gdfq", "quantize", "a model.keras", "--seed=0"]
    text = html.unescape(make_page(summary, images))
    assert "gdfq quantize 'a model.keras' --seed=0\n" in text
    assert "gdfq quantize --from_manifest=. --output_dir=again  # in this" in text
    summary["manifest"] = None
    assert "from_manifest" not in make_page(summary, images)


def test_gaps_are_drawn_by_step(page, summary, images):
    names = [row["layer"] for row in summary["bn_gaps"]]
    stages = [x for x in summary["stages"] if len(x["points"]) > 1]
    for point in (point for stage in stages for point in stage["points"]):
        gaps = {x for x in point["metrics"] if x.startswith("bn_gap/")}
        assert gaps == {f"bn_gap/{name}" for name in names}
        # The worst of the last step is named.
        point["metrics"] = {f"bn_gap/{name}": i / 2 for i, name in enumerate(names)}
    title = "Gap of BatchNormalizations by step"
    assert title in page
    chart = charts.gap_curves(stages)
    assert chart.count(names[-1]) == 1
    assert "mean" in chart
    for stage in stages:
        assert stage["name"] in chart
        for point in stage["points"]:
            point["metrics"] = {"loss": 1.0}
    assert title not in make_page(summary, images)


def test_a_resumed_run_says_so(summary, images):
    assert "was killed" not in make_page(summary, images)
    summary["times_resumed"], summary["seconds"]["earlier"] = 2, 41.3
    page = make_page(summary, images)
    assert "This run was killed and went on 2 times." in page
    assert "; 41 s were done before it went on" in page


def test_every_layer_stands_in_the_tables_and_advice_works(page, summary):
    page = Reader(page)
    for row in summary["models"][2:]:
        for layer in row["layers"]:
            assert page.texts.count(layer["name"]) >= 2, layer["name"]
    (flag,) = (x for x in page.texts if x.startswith("--keep_layers="))
    assert flag == "--keep_layers=conv3"  # the only one of 4 bits
    words = shlex.split(f"model.keras --output_dir=x {flag}")
    assert COMMANDS["quantize"].parse(words).keep_layers == ["conv3"]


def test_images_are_sorted_by_class(page):
    pictures = Reader(page).of("img")
    assert [x["alt"] for x in pictures] == [
        f"6 synthetic images: {name}" for name in ("cat", "dog", "fish")
    ]
    assert all(x["src"].startswith("data:image/png;base64,") for x in pictures)


def test_of_many_classes_one_image_each_is_shown():
    labels = np.tile(np.arange(200)[::-1], 2)
    found = chosen(labels)
    assert list(found) == list(range(140, 200))
    assert found[199] == [0]
    assert len(chosen(np.zeros(50, int))[0]) == 12


def test_classes_without_names_have_numbers():
    assert [title_of(x, ("cat",)) for x in (-1, 0, 1)] == ["noise", "cat", "class 1"]


def test_features_are_drawn_in_their_own_units(summary, images):
    classifier = summary["classifier"]
    classifier["preprocessing"] |= {"name": "features", "input_range": [[0, 5100]] * 3}
    pixels = np.full((9, 16, 1, 3), 100, np.uint8)
    page = make_page(summary, ImagePool(pixels, np.zeros(9, np.int32)))
    assert not Reader(page).of("img")
    assert ">2000<" in page  # of an axis: 100 of 255 levels up to 5100


@pytest.mark.usefixtures("without_charts")
def test_a_run_of_noise_trains_nothing(summary, images):
    summary["stages"], summary["bn_gaps"] = [], []
    noise = ImagePool(images.pixels, np.full(len(images), -1, np.int32))
    page = Reader(make_page(summary, noise)).text()
    assert "No stage of this run trained anything" in page
    assert "estimates may be off by tens of points" in page


@pytest.fixture
def hostile(labelled) -> dict:
    """Every name that a model file brings is an attack."""
    labelled["classifier"]["name"] = HOSTILE
    labelled["class_names"] = [HOSTILE, "$x^$", "c"]
    labelled["command"] = ["gdfq", "quantize", HOSTILE]
    labelled["bn_gaps"] = [{"layer": HOSTILE, "gap": 1.0}]
    for row in labelled["models"]:
        row["file"], row["title"] = (
            f"{row['file']}{HOSTILE}",
            f"{row['title']}{HOSTILE}",
        )
    for row in labelled["models"][2:]:
        for layer in row["layers"]:
            layer["name"] = f"{HOSTILE}$\\frac猫{layer['name']}"
    return labelled


def test_names_of_model_files_are_text_and_nothing_else(hostile, images):
    """They are shown, but no element, attribute or script comes of them."""
    page = Reader(make_page(hostile, images))
    assert HOSTILE in "".join(page.texts)
    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == tags.count("style") == tags.count("title") == 1
    assert len(page.of("img")) == 3
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes), tag
        for name in ("src", "href", "xlink:href"):
            assert attributes.get(name, "#").startswith(("#", "data:image/")), tag


def test_the_policy_allows_the_page_its_own_script_alone(page):
    (policy,) = (
        x["content"]
        for x in Reader(page).of("meta")
        if x.get("http-equiv") == "Content-Security-Policy"
    )
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL).group(1)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_the_file_of_a_run_is_small_and_needs_no_other(page):
    assert len(page) < LARGEST
    addresses = set(re.findall(r"https?://[^\s\"'<]*", page))
    assert addresses <= {"http://www.w3.org/1999/xlink"}


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"]
        )
        yield opened
        opened.close()


def shown(browser, path: pathlib.Path, **options):
    """The page in a context of its own, and what it complained of or asked for."""
    page = browser.new_context(**options).new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: complaints.append(request.url[:200]))
    page.goto(path.as_uri())
    address, *others = complaints
    assert address == path.as_uri()
    return page, [x for x in others if not x.startswith("data:")]


def background(page) -> str:
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def test_the_headline_needs_no_javascript(browser, directory):
    page, complaints = shown(
        browser, directory / "report.html", java_script_enabled=False
    )
    assert "Ship" in page.inner_text("h1")
    assert page.locator(".tiles dd strong").count() == 4
    assert page.locator(".chart svg").count() >= 3
    assert complaints == []


def test_light_dark_and_phones(browser, directory, page, tmp_path):
    path = tmp_path / "report.html"
    # Names that are longer than a phone is wide.
    path.write_text(page.replace("tiny_w", f"{40 * 'tiny'}_w"))
    page, complaints = shown(browser, path, color_scheme="light")
    assert complaints == []
    assert background(page) == "rgb(255, 255, 255)"
    page.emulate_media(color_scheme="dark")
    assert background(page) == "rgb(15, 18, 23)"
    ink = "getComputedStyle(document.querySelector('.chart text')).fill"
    assert page.evaluate(ink) != "rgb(92, 102, 117)"  # charts follow
    page.emulate_media(color_scheme="dark", media="print")
    assert background(page) == "rgb(255, 255, 255)"  # paper is white
    phone, complaints = shown(
        browser, path, viewport={"width": 360, "height": 700}, is_mobile=True
    )
    assert complaints == []
    # Nothing but tables, charts and code is wider than the screen; they scroll.
    assert phone.evaluate("document.documentElement.scrollWidth") == 360


def test_tables_are_sorted_by_a_click(browser, directory):
    page, complaints = shown(browser, directory / "report.html")
    table = page.locator("details[open] table.sortable")
    button = table.locator("th", has_text="SQNR").locator("button")
    column = "(table) => [...table.tBodies[0].rows].map(x => +x.cells[6].dataset.value)"
    button.click()
    rising = table.evaluate(column)
    assert rising == sorted(rising)
    assert len(set(rising)) > 3
    button.click()
    assert table.evaluate(column) == rising[::-1]
    table.locator("th", has_text="layer").locator("button").click()
    names = table.locator("tbody th").all_inner_texts()
    assert names == ["add3", "conv1", "conv3", "dw2", "logits", "pool"]
    assert complaints == []


def test_attacks_do_nothing_in_a_browser(browser, hostile, images, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(make_page(hostile, images))
    page, complaints = shown(browser, path)
    assert page.evaluate("window.hit") is None
    assert HOSTILE in page.inner_text("h1")
    assert complaints == []
