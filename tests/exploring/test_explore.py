"""explore(): the contents of the page, and the page in a real browser."""

import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

import constrained_vae as cv

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PLANE = cv.datasets.four_clusters(n_per_cluster=12).x
BETAS = np.geomspace(0.1, 10, 40)


@pytest.fixture(scope="module")
def explorer():
    return cv.explore(cv.sweep(PLANE, betas=BETAS, n_tiles=8), title="Four <clusters> & $DATA")


def data_of(page):
    return json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', page).group(1))


def test_the_page_holds_the_branch_from_cold_to_hot(explorer):
    data = data_of(explorer.page)
    np.testing.assert_allclose(data["beta"], BETAS, rtol=1e-4)
    assert data["n"] == explorer.branch.n_distinct[::-1].tolist()
    np.testing.assert_allclose(data["distortion"], explorer.branch.distortion[::-1], rtol=1e-4)
    assert data["critical"] == pytest.approx(cv.first_critical_beta(PLANE))
    assert {p["n"] for p in data["plateaus"]} == {2, 3, 4}
    assert data["second"][0] is None
    for solution, letters, psi in zip(explorer.branch.solutions[::-1], data["labels"], data["psi"], strict=True):
        assert len(letters) == len(PLANE)
        assert len(set(letters)) <= len(psi) == len(solution.distinct)
        places = np.array(psi)
        assert places[:, 2].sum() == pytest.approx(1, abs=1e-4)
        # A letter is the rank of its reconstruction by mass: that of the nearest one, as the masses are about equal.
        ranks = np.array([ord(letter) - 35 for letter in letters])
        nearest = np.square(PLANE[:, None] - places[None, :, :2]).sum(axis=2).argmin(axis=1)
        assert (ranks == nearest).mean() > 0.9
    assert data["agreement"]
    assert all(0 <= i < len(BETAS) and value <= 1 for i, value in data["agreement"])


def test_the_page_needs_nothing_else_and_no_text_ends_its_script(explorer):
    assert "Four &lt;clusters&gt; &amp; $DATA" in explorer.page
    assert "http" not in explorer.page
    assert not re.search(r'(src|href)="(?!data:)', explorer.page)
    assert explorer.page.count("</script>") == 2


def test_a_notebook_shows_a_frame_and_elsewhere_a_picture(explorer, tmp_path):
    shown = explorer._repr_mimebundle_()
    assert set(shown) == {"text/html", "image/png", "text/plain"}
    inside = re.search(r'srcdoc="(.*?)" title', shown["text/html"], flags=re.DOTALL).group(1)
    assert html.unescape(inside) == explorer.page
    assert repr(explorer) == "Explorer(40 temperatures, beta 0.1 to 10)"
    assert explorer.plot().get_xscale() == "log"
    explorer.save(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text() == explorer.page


def test_images_lines_one_point_and_data():
    digits = cv.datasets.digits(60).x
    images = data_of(cv.explore(cv.sweep(digits, betas=[1.0, 0.3], n_tiles=4), image_shape=(8, 8)).page)
    assert images["images"]["shape"] == [8, 8, 1]
    assert len(images["images"]["rows"]) == 2
    assert images["axes"] == ["principal component 1", "principal component 2"]
    line = data_of(cv.explore(cv.sweep([[-1.0], [1.0]], betas=[2.0, 0.5], n_tiles=2), names=["length"]).page)
    assert line["axes"] == ["length", ""]
    data_of(cv.explore(cv.sweep([[1.0, 2.0]], betas=[1.0], n_tiles=2)).page)


def test_a_data_set_names_its_columns_and_the_shape_of_its_images():
    table = cv.datasets.DataSet(PLANE, "t", columns=("length", "$ width"))
    for found in (cv.explore(table, spectral=False), cv.explore(cv.sweep(table, betas=[2.0, 1.0], n_tiles=2))):
        assert data_of(found.page)["axes"] == ["length", "$ width"]
    assert cv.explore(cv.datasets.digits(12), spectral=False).image_shape == (8, 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": cv.Branch((), "down")}, "the branch is empty"),
        ({"x": cv.sweep(PLANE, betas=[1.0], n_tiles=2), "image_shape": (2, 2)}, "image_shape must multiply to"),
        ({"x": PLANE, "title": 3}, "title"),
        ({"x": PLANE, "spectral": "no"}, "spectral must be True or False"),
    ],
)
def test_bad_input_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        cv.explore(**arguments)


# --- in a browser -----------------------------------------------------------------------------------------------------

PROBE = """<script>
let slowest = 0; const seen = new Set();
for (let i = 0; i < n; i++) {
  const before = performance.now();
  slider.value = i; slider.dispatchEvent(new Event("input"));
  slowest = Math.max(slowest, performance.now() - before);
  seen.add(element("now").textContent + (element("here1") || slider).getAttribute("x1"));
}
const wide = document.documentElement.scrollWidth;
Object.assign(document.body.dataset, {slowest: Math.round(slowest), seen: seen.size, wide});
const pixelsOf = plane.getContext("2d").getImageData(0, 0, plane.width || 1, plane.height || 1).data;
document.body.dataset.inked = pixelsOf.filter((v, k) => k % 4 === 3 && v > 0).length;
document.body.dataset.pictures = document.querySelectorAll(".images canvas").length;
</script>"""


def opened(page, folder, size=(1200, 850)):
    """The data attributes of the body after the slider was moved through all temperatures in a headless Chromium."""
    file = folder / "page.html"
    file.write_text(page.replace("</body>", f"{PROBE}</body>"))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    options = [f"--window-size={size[0]},{size[1]}", "--dump-dom", file.as_uri()]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=120, check=True)
    body = re.search(r"<body([^>]*)>", done.stdout).group(1)
    return dict(re.findall(r'data-(\w+)="(\w+)"', body))


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: pages are not opened (apt install chromium)")
@pytest.mark.parametrize("size", [(1200, 850), (500, 900)])
def test_a_browser_paints_the_page_and_follows_the_slider(explorer, tmp_path, size):
    found = opened(explorer.page, tmp_path, size)
    assert int(found["seen"]) == len(BETAS)  # every temperature shows something else
    assert int(found["inked"]) > 500
    assert int(found["wide"]) <= size[0]  # nothing is beside the screen
    print(f"painted after {found['painted']} ms, slowest move {found['slowest']} ms")


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: pages are not opened (apt install chromium)")
def test_a_browser_shows_images_as_images(tmp_path):
    digits = cv.datasets.digits(60).x
    branch = cv.sweep(digits, betas=[2.0, 0.5, 0.3], n_tiles=4)
    found = opened(cv.explore(branch, image_shape=(8, 8), spectral=False).page, tmp_path)
    assert int(found["pictures"]) == branch[0].distinct.counts.size  # the slider ends at the hottest temperature
    assert found["seen"] == "3"
