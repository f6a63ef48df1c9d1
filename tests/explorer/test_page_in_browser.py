"""The page in a real browser: what a user points at, draws, types and saves."""

from __future__ import annotations

import base64
import csv
import http.server
import io
import json
import shutil
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tce
from tce.data.open_data import find_data
from tce.embedding.embedding_file import Embeddings, save_embeddings
from tce.explorer.explore import explore
from tce.model.checkpoint import save_model
from tce.model.encoder import build_encoder
from tce.options.explore import ExploreOptions
from tce.video.open_video import open_video
from tce.video.synthetic import make_clips
from tests.helpers.chromium import FLAGS, find_chromium, page_data

SIZE = {"width": 1280, "height": 800}
HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</script><script>document.title='broken'</script>",
    "\"quotes\" 'and' `ticks` &amp; <b>bold</b>",
    "two\nlines\tand a tab",
    "long " + "x" * 495,
    "\u202eright to left \u05e9\u05dc\u05d5\u05dd",
    "=1+1",
    "@@DATA@@ ${x} \u2028",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright, path = find_chromium()
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("footage")
    return make_clips(folder, 2, 4, 30, 64, 15, groups=2, test_groups=1).videos


@pytest.fixture(scope="module")
def vectors(videos: Path) -> Embeddings:
    """Every third frame of every clip; the classes lie apart."""
    rng = np.random.default_rng(0)
    names = sorted(str(path) for path in videos.rglob("*.mp4"))
    frame = np.tile(np.arange(0, 30, 3), len(names))
    video = np.repeat(np.array(names), 10)
    centre = np.where(np.char.find(video, "/Bow/") >= 0, 4.0, -4.0)[:, None]
    return Embeddings(
        (rng.normal(size=(len(video), 16)) + centre).astype(np.float32), video, frame, frame / 15
    )


@pytest.fixture(scope="module")
def page_file(videos: Path, vectors: Embeddings) -> Path:
    stored = videos.parent / "frames.npz"
    save_embeddings(stored, vectors)
    page = videos.parent / "page.html"
    explore(ExploreOptions(str(stored), str(page), title="A page"))
    return page


def opened(browser: Any, page: Path, **settings: Any) -> Any:
    """A tab with the page; errors in it and requests that leave the disk are kept in `tab.troubles`."""
    context = browser.new_context(**{"viewport": SIZE, "accept_downloads": True, **settings})
    tab = context.new_page()
    tab.troubles = []
    tab.on("pageerror", lambda error: tab.troubles.append(str(error)))
    tab.on("console", lambda line: line.type in ("error", "warning") and tab.troubles.append(line.text))
    tab.on(
        "request",
        lambda request: (
            request.url.split(":")[0] not in ("file", "blob", "data") and tab.troubles.append(request.url)
        ),
    )
    tab.goto(page.as_uri())
    tab.wait_for_selector("body[data-ready]")
    settled(tab)
    return tab


def settled(tab: Any) -> None:
    """Wait for two animation frames: what was asked for is drawn then."""
    tab.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def wait(tab: Any, condition: str, seconds: float = 20) -> None:
    """Wait for a condition in JavaScript; Playwright's own way needs `eval`, which the page forbids."""
    end = time.monotonic() + seconds
    while not tab.evaluate(condition):
        assert time.monotonic() < end, f"never: {condition}; {tab.troubles}"
        tab.wait_for_timeout(20)


def place_of(tab: Any, frame: int, scatter: int = 0) -> tuple[float, float]:
    """Where a frame's dot is on the screen."""
    x, y = tab.evaluate(
        "([i, n]) => { const s = explorer.scatters[n], b = s.over.getBoundingClientRect(),"
        " [x, y] = s.toScreen(i); return [x + b.left, y + b.top]; }",
        [frame, scatter],
    )
    return x, y


def pixels(tab: Any, selector: str) -> np.ndarray:
    """The pixels [h, w, 3] of a canvas."""
    address = tab.eval_on_selector(selector, "canvas => canvas.toDataURL()")
    data = base64.b64decode(address.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def painted(tab: Any, selector: str) -> np.ndarray:
    """As `pixels`, once there is a picture: its sheet may have to be decoded first."""
    for _ in range(100):
        found = pixels(tab, selector)
        if found.any():
            return found
        settled(tab)
    raise AssertionError(f"{selector} stays empty")


def drag(tab: Any, corners: list[tuple[float, float]], shift: bool = False) -> None:
    if shift:
        tab.keyboard.down("Shift")
    tab.mouse.move(*corners[0])
    tab.mouse.down()
    for corner in corners[1:]:
        tab.mouse.move(*corner, steps=3)
    tab.mouse.up()
    if shift:
        tab.keyboard.up("Shift")
    settled(tab)


def map_box(tab: Any, scatter: int = 0) -> tuple[float, float, float, float]:
    box = tab.locator(".map").nth(scatter).bounding_box()
    return box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]


def select_left_of(tab: Any, split: float) -> None:
    """Draw a lasso around everything on the map that lies left of `split`, a place on the screen."""
    select_between(tab, map_box(tab)[0] + 3, split)


def select_between(tab: Any, left: float, right: float) -> None:
    """Draw a lasso around everything between two places; it begins off the map's round corners."""
    _, top, _, bottom = map_box(tab)
    middle, top, bottom = (top + bottom) / 2, top + 3, bottom - 3
    corners = [(left, middle), (left, top), (right, top), (right, bottom), (left, bottom)]
    drag(tab, corners, shift=True)


def saved(tab: Any, button: str) -> str:
    with tab.expect_download() as waiting:
        tab.click(button)
    return Path(waiting.value.path()).read_text(encoding="utf-8")


def test_hover_shows_the_frame_under_the_pointer(browser: Any, page_file: Path, vectors: Embeddings) -> None:
    tab = opened(browser, page_file)
    reference = {}
    for row in range(0, 80, 5):
        with open_video(str(vectors.video[row])) as video:
            (frame,) = video.frames([int(vectors.frame[row])])  # 64 x 64, as the pictures
        reference[row] = frame.astype(int)
    for row in (5, 40, 75):
        tab.mouse.move(*place_of(tab, row))
        wait(tab, f"document.body.dataset.hover === '{row}'")
        seen = painted(tab, "#tip canvas")
        apart = {other: np.abs(seen - image).mean() for other, image in reference.items()}
        assert min(apart, key=apart.get) == row
        assert apart[row] < 10 < np.median(list(apart.values()))
        text = tab.inner_text("#tip")
        assert Path(str(vectors.video[row])).stem in text
        assert f"{vectors.time[row]:.1f} s" in text
    tab.mouse.move(5, 5)
    wait(tab, "document.getElementById('tip').hidden")
    assert tab.troubles == []


def test_lasso_selects_what_it_encloses_and_saves_it(
    browser: Any, page_file: Path, vectors: Embeddings
) -> None:
    tab = opened(browser, page_file)
    split = place_of(tab, 22)[0] + 0.5
    expected = [row for row in range(80) if place_of(tab, row)[0] < split]
    select_left_of(tab, split)
    assert 0 < len(expected) < 80
    assert tab.inner_text("#count") == f"{len(expected)} frames selected"
    shown = tab.locator("#chosen button").evaluate_all("all => all.map(one => Number(one.dataset.frame))")
    assert shown == expected
    rows = list(csv.DictReader(io.StringIO(saved(tab, "#save-selection"))))
    assert [row["video"] for row in rows] == [vectors.video[row] for row in expected]
    assert [int(row["frame"]) for row in rows] == [vectors.frame[row] for row in expected]
    assert [float(row["start"]) for row in rows] == pytest.approx(vectors.time[expected], abs=1e-3)
    assert [row["label"] for row in rows] == [Path(vectors.video[row]).parent.name for row in expected]
    tab.keyboard.press("Escape")
    assert tab.is_hidden("#selection")
    assert tab.troubles == []


def test_labels_are_saved_as_lists_that_the_commands_read(
    browser: Any, page_file: Path, videos: Path, tmp_path: Path
) -> None:
    tab = opened(browser, page_file)
    bow = np.array([place_of(tab, row)[0] for row in range(40)])
    box = np.array([place_of(tab, row)[0] for row in range(40, 80)])
    low, high = (bow, box) if bow.max() < box.min() else (box, bow)
    assert low.max() < high.min()  # the classes lie apart, see `vectors`
    first, second = ("bends", "boxes, =fast") if low is bow else ("boxes, =fast", "bends")
    select_left_of(tab, (low.max() + high.min()) / 2)
    tab.fill("#label", first)
    tab.press("#label", "Enter")
    select_between(tab, (low.max() + high.min()) / 2, map_box(tab)[2] - 3)
    tab.fill("#label", second)
    tab.press("#label", "Enter")
    assert tab.inner_text("#labelled") == "80 frames labelled"
    assert tab.input_value("#colour") == str(len(page_data(page_file)["columns"]))
    lists = page_file.parent / "labels.csv"
    lists.write_text(saved(tab, "#save-labels"), encoding="utf-8")
    catalog = find_data(videos, lists).catalog
    assert catalog.classes == ["bends", "boxes, =fast"]
    for clip in catalog:
        assert (clip.start, clip.end) == (None, None)
        assert clip.label == ("bends" if "/Bow/" in clip.path else "boxes, =fast")
    # The second of two people is for testing.
    assert all(clip.split == ("test" if "_g02_" in clip.path else "train") for clip in catalog)
    for name in ("train", "test"):  # what `tce finetune` takes
        assert len(catalog.where(name)) == 4 and set(catalog.where(name).labels.tolist()) == {0, 1}
    save_model(tmp_path / "network", build_encoder("resnet18", 16, "linear", seed=1, image_size=32))
    trained = tce.finetune(
        data=videos,
        lists=lists,
        weights=tmp_path / "network",
        savedir=tmp_path / "run",
        recipe="linear",
        image_size=32,
        workers=1,
    )
    assert json.loads((tmp_path / "run" / "result.json").read_text()) and trained.text
    classifier = tce.load_classifier(tmp_path / "run")
    assert list(classifier.config.classes) == ["bends", "boxes, =fast"]
    # A part of a clip: its first frames get another label, so the clip is cut where they end.
    tab.evaluate("explorer.scatters[0].handlers.select([0, 1, 2, 3])")
    tab.fill("#label", "begins")
    tab.press("#label", "Enter")
    lists.write_text(saved(tab, "#save-labels"), encoding="utf-8")
    catalog = find_data(videos, lists).catalog
    parts = [(clip.label, clip.start, clip.end) for clip in catalog if clip.path.endswith("Bow_g01_c01.mp4")]
    assert parts == [("begins", 0.0, 0.8), ("bends", 0.8, None)]
    assert tab.troubles == []


def test_colours_follow_the_chosen_column_and_the_legend_filters(browser: Any, page_file: Path) -> None:
    tab = opened(browser, page_file)
    data = page_data(page_file)
    names = [column["name"] for column in data["columns"]]
    assert names[0] == "class" and {"video", "time", "cluster"} <= set(names)
    before = pixels(tab, ".map canvas")
    colours = {tuple(before[y, x]) for x, y in (centre(tab, row) for row in (0, 79))}
    assert len(colours) == 2  # one of each class
    tab.select_option("#colour", label="video")
    settled(tab)
    assert len(tab.query_selector_all("#legend button")) == 8
    after = pixels(tab, ".map canvas")
    assert len({tuple(after[y, x]) for x, y in (centre(tab, row) for row in range(5, 80, 10))}) >= 7
    tab.click("#legend button >> nth=0")  # this video alone
    assert tab.evaluate("explorer.state().hiddenCount") == 70
    tab.click("#show-all")
    tab.fill("#search", "box g02")
    assert tab.evaluate("explorer.state().hiddenCount") == 60
    tab.select_option("#colour", label="time")
    assert tab.inner_text("#legend").split("\n")[0] == "0.0 s"
    assert tab.troubles == []


def centre(tab: Any, row: int) -> tuple[int, int]:
    """The pixel of the first map's canvas in the middle of a dot."""
    x, y = tab.evaluate("i => explorer.scatters[0].toScreen(i)", row)
    return round(x), round(y)


def test_click_plays_the_video_from_that_time(browser: Any, page_file: Path, vectors: Embeddings) -> None:
    tab = opened(browser, page_file)
    tab.evaluate(
        "window.seen = []; explorer.player.video.addEventListener('seeking',"
        " event => seen.push(event.target.currentTime))"
    )
    row = 45
    tab.mouse.click(*place_of(tab, row))
    wait(tab, "seen.length > 0")
    assert tab.evaluate("explorer.player.mode") == "video"
    assert tab.evaluate("seen[0]") == pytest.approx(vectors.time[row], abs=0.05)
    source = tab.evaluate("explorer.player.video.currentSrc")
    assert source.startswith("file:") and source.endswith(f"#t={vectors.time[row]:.3f}")
    assert Path(vectors.video[row]).name in source
    assert tab.evaluate("explorer.scatters[0].path") == [40, 50]  # its way over the map
    wait(tab, "Number(document.body.dataset.current) === 49")  # it ran to the end
    # A click on another strip of the timelines seeks in that video.
    strip = tab.locator("#strips").bounding_box()
    tab.mouse.click(strip["x"] + 168 + (strip["width"] - 168) / 2, strip["y"] + 4 + 12)
    wait(tab, "Number(document.body.dataset.current) < 10")
    assert tab.troubles == []


def test_without_the_footage_the_pictures_play(browser: Any, page_file: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "page.html"
    moved.parent.mkdir()
    shutil.copy(page_file, moved)
    tab = opened(browser, moved)
    tab.mouse.click(*place_of(tab, 41))
    wait(tab, "explorer.player.mode === 'flip'")
    wait(tab, "Number(document.body.dataset.current) >= 45")
    assert tab.is_visible("#flip") and tab.is_hidden("#video")
    assert painted(tab, "#flip").std() > 5
    assert all("ERR_FILE_NOT_FOUND" in trouble for trouble in tab.troubles)


def test_embedded_videos_play_without_the_footage(
    browser: Any, videos: Path, vectors: Embeddings, tmp_path: Path
) -> None:
    rows = np.arange(20)
    part = Embeddings(vectors.vectors[rows], vectors.video[rows], vectors.frame[rows], vectors.time[rows])
    save_embeddings(tmp_path / "part.npz", part)
    page = tmp_path / "page.html"
    explore(ExploreOptions(str(tmp_path / "part.npz"), str(page), embed_video=True))
    assert all(video["source"] is None for video in page_data(page)["videos"])
    tab = opened(browser, page)
    tab.evaluate("explorer.scatters[0].handlers.pick(14)")
    wait(tab, "explorer.player.video.readyState >= 2")
    assert tab.evaluate("explorer.player.mode") == "video"
    assert tab.evaluate("explorer.player.video.currentSrc").startswith("blob:")
    assert tab.evaluate("explorer.player.video.duration") == pytest.approx(2.0, abs=0.1)
    wait(tab, "Number(document.body.dataset.current) > 14")
    assert tab.troubles == []


def test_keyboard_reaches_everything(browser: Any, page_file: Path) -> None:
    tab = opened(browser, page_file)
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.id") == "colour"
    tab.focus(".map .over")
    tab.keyboard.press("ArrowRight")  # the first frame
    tab.keyboard.press("ArrowRight")
    assert tab.evaluate("document.body.dataset.current") == "1"
    tab.keyboard.press("ArrowDown")
    assert tab.evaluate("document.body.dataset.current") == "10"
    assert "g01_c02" in tab.inner_text("#live")
    zoom = tab.evaluate("explorer.scatters[0].zoom")
    tab.keyboard.press("+")
    assert tab.evaluate("explorer.scatters[0].zoom") > zoom
    tab.keyboard.press("l")
    assert tab.get_attribute("#lasso", "aria-pressed") == "true"
    tab.keyboard.press("/")
    tab.keyboard.type("lp0")  # letters typed into a field are no shortcuts
    assert tab.input_value("#search") == "lp0"
    assert tab.get_attribute("#lasso", "aria-pressed") == "true"
    unnamed = tab.evaluate(
        "[...document.querySelectorAll('button, select, input, [role=application]')].filter(one =>"
        " !(one.getAttribute('aria-label') || one.textContent.trim() || one.labels?.length)).length"
    )
    assert unnamed == 0
    assert tab.troubles == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_themes_are_readable_on_a_small_screen(browser: Any, page_file: Path, scheme: str) -> None:
    tab = opened(browser, page_file, viewport={"width": 320, "height": 640}, color_scheme=scheme)
    assert tab.evaluate("document.documentElement.scrollWidth") == 320  # nothing to scroll to the side
    tab.evaluate("explorer.scatters[0].handlers.pick(3); explorer.scatters[0].handlers.select([1, 2, 3])")
    assert tab.evaluate("document.documentElement.scrollWidth") == 320
    contrast = tab.evaluate(
        """() => { const shade = text => { const [r, g, b] = text.match(/[\\d.]+/g).slice(0, 3).map(v => {
             v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
             return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
           const ground = one => { while (one) { const c = getComputedStyle(one).backgroundColor;
             if (!c.endsWith(', 0)') && c !== 'transparent') return c; one = one.parentElement; }
             return 'rgb(255, 255, 255)'; };
           return [...document.querySelectorAll('h1, h2, h3, p, dt, dd, button, label span, .under')].filter(
             one => one.textContent.trim() && one.offsetParent).map(one => {
             const [a, b] = [shade(getComputedStyle(one).color), shade(ground(one))].sort((x, y) => y - x);
             return [(a + 0.05) / (b + 0.05), one.textContent.slice(0, 20)];
           }).sort((x, y) => x[0] - y[0])[0]; }"""
    )
    assert contrast[0] >= 4.5, contrast
    dark = tab.evaluate("document.documentElement.dataset.theme") == "dark"
    assert dark == (scheme == "dark")
    tab.click("#theme")
    assert tab.evaluate("document.documentElement.dataset.theme") != scheme


def test_two_maps_share_the_pointer_and_the_selection(
    browser: Any, videos: Path, vectors: Embeddings, tmp_path: Path
) -> None:
    for name, values in (("a", vectors.vectors), ("b", vectors.vectors[::-1] ** 2)):
        stored = Embeddings(np.ascontiguousarray(values), vectors.video, vectors.frame, vectors.time)
        save_embeddings(tmp_path / f"{name}.npz", stored)
    page = tmp_path / "page.html"
    explore(ExploreOptions(str(tmp_path / "a.npz"), str(page), compare=str(tmp_path / "b.npz"), thumbnail=0))
    tab = opened(browser, page)
    assert tab.locator(".map .name").all_inner_texts() == ["a", "b"]
    tab.mouse.move(*place_of(tab, 33, scatter=1))
    wait(tab, "document.body.dataset.hover === '33'")
    assert tab.evaluate("explorer.scatters.map(one => one.hover)") == [33, 33]
    tab.mouse.click(*place_of(tab, 33, scatter=1))
    nearest = page_data(page)["maps"][1]["neighbours"][33]
    shown = tab.locator("#near button").evaluate_all("all => all.map(one => Number(one.dataset.frame))")
    assert shown == nearest.tolist()
    assert tab.troubles == []


class Listener(http.server.BaseHTTPRequestHandler):
    hits: list[str]

    def do_GET(self) -> None:
        self.hits.append(self.path)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        pass


def test_hostile_names_are_text_and_nothing_leaves_the_page(browser: Any, tmp_path: Path) -> None:
    class Here(Listener):
        hits: list[str] = []  # noqa: RUF012 (the test's own)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Here)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    names = [*HOSTILE, f"<img src='{address}/a'><link rel=stylesheet href='{address}/b'>"]
    video = np.repeat(np.array(names), 4)
    rng = np.random.default_rng(0)
    stored = Embeddings(rng.normal(size=(len(video), 8)).astype(np.float32), video, np.tile(np.arange(4), 9))
    stored.time = stored.frame / 2
    save_embeddings(tmp_path / "hostile.npz", stored)
    page = tmp_path / "page.html"
    explore(ExploreOptions(str(tmp_path / "hostile.npz"), str(page), title=HOSTILE[1] + HOSTILE[0]))
    try:
        tab = opened(browser, page)
        assert tab.title() == HOSTILE[1] + HOSTILE[0]
        assert tab.inner_text("h1") == HOSTILE[1] + HOSTILE[0]
        tab.select_option("#colour", label="video")
        texts = tab.locator("#legend .text").evaluate_all("all => all.map(one => one.textContent)")
        assert texts == names
        for number, name in enumerate(names):
            tab.evaluate("i => explorer.scatters[0].handlers.pick(i)", 4 * number)
            assert tab.eval_on_selector("#name", "one => one.textContent") == name
        assert tab.evaluate("document.documentElement.scrollWidth") <= SIZE["width"]
        assert tab.evaluate("document.querySelectorAll('img, script:not([src])').length") == 2  # data, script
        tab.evaluate("explorer.scatters[0].handlers.select([...Array(36).keys()])")
        rows = list(csv.reader(io.StringIO(saved(tab, "#save-selection"))))
        assert [row[0] for row in rows[1::4]] == ["'" + name if name[0] in "=@" else name for name in names]
        assert tab.troubles == []
        # The policy refuses what a script could still try.
        for attempt in (
            f"fetch('{address}/c').then(() => 'sent', () => 'refused')",
            f"new Promise(done => {{ const i = new Image(); i.onload = () => done('sent');"
            f" i.onerror = () => done('refused'); i.src = '{address}/d'; }})",
            f"new Promise(done => {{ const v = document.createElement('video'); v.onerror = () =>"
            f" done('refused'); v.src = '{address}/e'; }})",
            f"navigator.sendBeacon('{address}/f') && 'refused'",
        ):
            assert tab.evaluate(attempt) == "refused"
        assert Here.hits == []
        urllib.request.urlopen(f"{address}/heard")
        assert Here.hits == ["/heard"]
    finally:
        server.shutdown()
        server.server_close()
