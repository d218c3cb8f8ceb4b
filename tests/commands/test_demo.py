"""Search demo: results, filters, error messages and the web page in a browser."""

import os
import re
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from keras_reid import gallery, inference
from keras_reid.data import synthetic
from keras_reid.data.readers import load
from keras_reid.demo.answers import Answers, filter_of
from keras_reid.errors import InputError

pytestmark = pytest.mark.slow  # a gallery of the pretrained model, a page, and a browser

CAMERAS = ("north", "south", "yard")


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """A gallery of eight drawn persons at three cameras, and an image of one by its first."""
    root = tmp_path_factory.mktemp("demo")
    synthetic.generate(root / "drawn", 2, 8, cameras=3, images_per_camera=2, size=(128, 64))
    drawn = load("market1501", str(root / "drawn")).gallery
    embedder = inference.load("person-mobilenetv2")
    uri = f"faiss:{root / 'people.faiss'}"
    with gallery.open(uri) as filled:
        filled.enrol(
            embedder.embed(drawn),
            [f"person {identity}" for identity in drawn.identity],
            [CAMERAS[camera - 1] for camera in drawn.camera],
            [1000.0 + second for second in range(len(drawn))],
            images=drawn.path,
            model_fingerprint=embedder.fingerprint,
        )
    # Such a gallery is for one process at a time.
    shutil.copy(root / "people.faiss.rows", root / "page.faiss.rows")
    return root, uri, drawn


@pytest.fixture(scope="module")
def answers(people):
    with Answers(people[1], inference.load()) as answers:
        yield answers


def found(html: str) -> list[tuple[str, str, str]]:
    """Kind, name and camera of each hit."""
    figures = re.findall(
        r'<figure class="(match|possible-match|no-match|)">.*?<figcaption>(.*?)</figcaption>', html
    )
    return [
        (kind, *re.search(r"\d+\. (.*?)<br>.*?camera (\w+)", text).groups())
        for kind, text in figures
    ]


def test_demo_search_by_image_returns_matching_person(answers, people):
    _, _, drawn = people
    query = answers.of_image(drawn.path[0])
    html, images = answers.search(query, k=4)
    kind, name, camera = found(html)[0]
    assert (kind, name) == ("match", f"person {drawn.identity[0]}")
    assert camera == CAMERAS[drawn.camera[0] - 1]
    assert images[0] == drawn.path[0]
    assert len(found(html)) == 4
    assert f'<h2 id="answer">match: person {drawn.identity[0]} (' in html


def test_demo_search_applies_filters_limits_and_reranking(answers, people):
    _, _, drawn = people
    query = answers.of_image(drawn.path[0])
    html, _ = answers.search(query, k=50, filter=filter_of("south, yard", "", "", ""))
    assert {camera for _, _, camera in found(html)} == {"south", "yard"}
    html, _ = answers.search(query, k=50, filter=filter_of("", "south", "", ""))
    assert {camera for _, _, camera in found(html)} == {"north", "yard"}
    html, images = answers.search(query, k=50, filter=filter_of("", "", "1003", "1005"))
    assert sorted(images) == sorted(drawn.path[3:5])
    html, _ = answers.search(query, k=3, limits=gallery.Limits(1.0, 1.0))
    assert '<h2 id="answer">no match (nearest: person ' in html
    assert found(html)[0][0] == "no-match"
    html, _ = answers.search(query, k=3, limits=gallery.Limits(1.0, answers.limits.possible))
    assert '<h2 id="answer">possible match: person ' in html
    html, _ = answers.search(query, k=3, rerank=True)
    assert found(html)[0][1] == f"person {drawn.identity[0]}"


def test_demo_why_returns_heat_maps_and_stripes(answers, people):
    _, _, drawn = people
    html = answers.why(answers.of_image(drawn.path[0]), drawn.path[1])
    assert html.count("data:image/jpeg;base64,") == 3
    assert "aligned stripes" in html


def test_demo_invalid_queries_raise(answers, people, tmp_path):
    _, _, drawn = people
    (tmp_path / "text.jpg").write_text("no image")
    Image.new("RGB", (2, 2)).save(tmp_path / "small.png")
    for name in ("text.jpg", "small.png"):
        with pytest.raises(InputError, match=f"{name}` must be an image of a person, got"):
            answers.of_image(str(tmp_path / name))
    with pytest.raises(InputError, match="Times are seconds since 1970"):
        filter_of("", "", "yesterday", "")
    described = answers.of_description(["hat", "not bag"])
    assert described.attributes == {"hat": True, "bag": False}
    with pytest.raises(InputError, match="no image for a comparison"):
        answers.why(described, drawn.path[0])


def test_demo_missing_or_foreign_gallery_raises(tmp_path):
    uri = f"faiss:{tmp_path / 'other.faiss'}"
    with gallery.open(uri) as other:
        other.enrol(np.eye(2), ["a", "b"], images=["a", "b"], model_fingerprint="another")
    with pytest.raises(InputError, match="`model` must be 'another', the model of the gallery"):
        Answers(uri, inference.load())
    with pytest.raises(InputError, match=r"not found\. Enrol"):
        Answers(f"faiss:{tmp_path / 'none.faiss'}", inference.load())


@pytest.fixture
def served(people, tmp_path):
    """The address of the page, in a separate process, and where uploads would be."""
    uploads = tmp_path / "tmp"
    uploads.mkdir()
    flags = (f"--gallery=faiss:{people[0] / 'page.faiss'}", "--port=0", "--max_megabytes=1")
    process = subprocess.Popen(
        [sys.executable, "-m", "keras_reid.demo", *flags],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(uploads)},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    line = process.stdout.readline()
    yield re.search(r"http://\S+", line)[0], uploads
    process.terminate()
    assert process.wait(60) in (0, 130)
    process.stdout.close()
    assert not list(uploads.glob("search-*")), "nothing is left when it has ended"


def chromium():
    """A browser without a window."""
    webdriver = pytest.importorskip("selenium.webdriver")
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not browser or not driver:
        pytest.skip("there is no Chromium with its driver here")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1300,1400"):
        options.add_argument(flag)
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))


@pytest.mark.slow
def test_demo_page_in_browser_searches_and_deletes_uploads(served, people):
    """Upload an image, rank, filter, and upload a person who is not enrolled and a text."""
    url, uploads = served
    _, _, drawn = people
    text = uploads.parent / "text.jpg"
    text.write_text("no image")
    browser = chromium()

    def wait(selector: str, wanted: str = "") -> str:
        for _ in range(240):
            shown = [one.text for one in browser.find_elements("css selector", selector)]
            if any(wanted in one for one in shown):
                return next(one for one in shown if wanted in one)
            time.sleep(0.5)
        raise AssertionError(f"{selector} never showed {wanted!r}: {shown}")

    def write(selector: str, value: str) -> None:
        inside = "" if "input" in selector else f" input, {selector} textarea"
        field = browser.find_element("css selector", selector + inside)
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(value, Keys.TAB)

    def upload(file: str) -> None:
        browser.find_element("css selector", "#upload input[type=file]").send_keys(file)

    from selenium.webdriver.common.keys import Keys

    with browser:
        browser.get(url)
        wait("h1", "Search")
        wait("#upload input[type=file]")
        script = "return performance.getEntriesByType('resource').map(entry => entry.name)"
        loaded = browser.execute_script(script)
        assert all(name.startswith((url, "data:")) for name in loaded), "nothing from elsewhere"
        upload(str(drawn.path[0]))
        person = f"person {drawn.identity[0]}"
        assert wait("#shown #answer", person).startswith(f"match: {person} (")
        assert len(browser.find_elements("css selector", "#shown figure")) == 11
        browser.find_element("id", "why").click()
        wait("#pictures figcaption", "aligned stripes")
        write("#cameras", "yard")
        browser.find_element("id", "go").click()
        wait("#shown figure:nth-of-type(2) figcaption", "camera yard")
        write("#possible input[type=number]", "1")
        write("#match input[type=number]", "1")
        write("#cameras", "south")
        browser.find_element("id", "go").click()
        wait("#shown #answer", "no match")
        browser.find_element("css selector", "#upload button[aria-label*=lear]").click()
        wait("#upload input[type=file]")
        upload(str(text))
        wait("body", "`text.jpg` must be an image of a person")
    (folder,) = uploads.glob("search-*")
    # Gradio leaves an empty file for each upload.
    kept = [file for file in folder.rglob("*") if file.is_file() and file.stat().st_size]
    assert not kept, "an upload is read once, and gone"
