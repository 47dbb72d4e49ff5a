"""The page in a headless Chromium: it is sorted, searched and read by mouse and keyboard, without a network."""

import shutil
from threading import Thread

import numpy as np
import pytest
from pages import data_of

from proxsae.report import explorer
from proxsae.report.packing import packed
from proxsae.report.reading import read_text
from proxsae.report.server import PageServer

pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]


@pytest.fixture(scope="module")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def html(sae, store, model):
    hostile = {"w5": "<img src=x onerror=alert(1)>", "w6": "</script><b>", "w7": " line\nend"}

    def decode(tokens):
        text = model.tokenizer.decode(tokens)
        return hostile.get(text, text)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(explorer, "decoder", lambda model: decode)
        return explorer.explorer_page(sae, store, model, title="<b>A</b>")


@pytest.fixture(scope="module")
def data(html):
    found = data_of(html)
    sides = {name: found[name].reshape(found["n_atoms"], 2, -1) for name in ("count", "strongest", "pushed", "example")}
    return found | sides | {"density": sides["count"].sum(axis=(1, 2)) / found["n_tokens"]}


@pytest.fixture
def page(chromium, html, tmp_path):
    """Open the page from a file, offline, and see that nothing was fetched, refused or thrown in the end."""
    (tmp_path / "report.html").write_text(html, encoding="utf-8")
    yield from opened(chromium, (tmp_path / "report.html").as_uri(), offline=True)


def opened(chromium, address, **options):
    context = chromium.new_context(viewport={"width": 1300, "height": 900}, **options)
    page, complaints, asked = context.new_page(), [], []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("dialog", lambda dialog: (complaints.append("a dialog"), dialog.dismiss()))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    ready(page)
    yield page
    assert (complaints, {url.split("#")[0] for url in asked} - {address, f"{address}read"}) == ([], set())
    context.close()


def ready(page):
    page.wait_for_selector("html[data-ready]")
    page.set_default_timeout(3000)


def until(page, expression):
    """Wait until it is true; what Playwright has for this runs a text as code, which the page forbids."""
    for _ in range(100):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(30)
    raise AssertionError(f"never true: {expression}")


def listed(page):
    return [int(text) for text in page.locator("#rows th").all_inner_texts()]


def test_the_table_is_sorted_by_its_headings(page, data):
    assert len(listed(page)) == data["n_atoms"] == 40
    heading = page.locator("#columns th", has_text="Density")
    heading.get_by_role("button", name="Density").click()
    order = listed(page)
    assert (np.diff(data["density"][order]) <= 0).all()
    assert heading.get_attribute("aria-sort") == "descending"
    heading.get_by_role("button", name="Density").click()
    assert (np.diff(data["density"][listed(page)]) >= 0).all()
    assert heading.get_attribute("aria-sort") == "ascending"
    heading.get_by_role("button", name="\u2212").click()
    assert (np.diff(data["count"][listed(page), 1, 0].astype(int)) <= 0).all()
    page.locator("select[name=sort]").select_option("nearest")
    until(page, "location.hash.includes('nearest')")
    nearest = np.abs(data["cosine"].reshape(40, -1)[:, 0])
    assert (np.diff(nearest[listed(page)]) <= 1e-6).all()


@pytest.mark.parametrize(("words", "name"), [("w12", "w12"), ('"w1"', "w1"), ("<IMG", "<img src=x onerror=alert(1)>")])
def test_tokens_are_searched(page, data, words, name):
    page.locator("input[name=find]").fill(words)
    until(page, "document.querySelector('#count').textContent.match(/^\\d+ of|^No/)[0] !== '40 of'")
    token = data["vocabulary"].index(name)
    at = data["example"]
    fires_on = np.where(at >= 0, data["contexts"][np.maximum(at, 0)], -1)
    meant = (fires_on == token).any(axis=(1, 2)) | (data["pushed"] == token).any(axis=(1, 2))
    assert 0 < meant.sum() < 40
    assert sorted(listed(page)) == np.flatnonzero(meant).tolist()
    assert set(page.locator("#rows .match").all_inner_texts()) == {name}


def test_filters_and_the_address_agree(page, data):
    half = float(np.median(data["density"]))
    page.locator("input[name=low]").fill(str(100 * half))
    until(page, "location.hash.includes('low')")
    assert sorted(listed(page)) == np.flatnonzero(data["density"] >= half).tolist()
    page.reload()  # the address alone tells what is shown
    ready(page)
    assert sorted(listed(page)) == np.flatnonzero(data["density"] >= half).tolist()
    page.get_by_role("button", name="Reset").click()
    until(page, "!location.hash.includes('low')")
    page.locator("select[name=show]").select_option("negative")
    until(page, "location.hash.includes('negative')")
    one_sided = (data["count"][:, 0, 0] == 0) & (data["count"][:, 1, 0] > 0)
    assert sorted(listed(page)) == np.flatnonzero(one_sided).tolist()
    page.get_by_role("button", name="Reset").click()
    until(page, "!location.hash.includes('negative')")
    page.locator("#plots .choice").first.click()
    until(page, "location.hash.includes('low')")
    assert 0 < len(listed(page)) == data["plots"][0]["counts"][np.flatnonzero(data["plots"][0]["counts"])[0]]


def test_cards_open_by_keyboard_and_go_on(page, data):
    first, second, *_ = listed(page)
    page.locator("#rows a.atom").first.focus()
    page.keyboard.press("Enter")
    title, card = page.locator("#card-title"), page.locator("#card")
    assert title.inner_text() == f"Atom {first}"
    contexts = card.locator(".positive .context")
    assert contexts.count() == (data["example"][first, 0] >= 0).sum()
    at = data["example"][first, 0, 0]
    assert contexts.first.locator(".active").text_content() == data["vocabulary"][data["contexts"][at]].replace(
        "\n", "⏎"
    )
    page.keyboard.press("ArrowRight")
    assert title.inner_text() == f"Atom {second}"
    page.keyboard.press("Escape")
    until(page, "!document.querySelector('#card').open")
    until(page, "!location.hash.includes('atom')")
    assert page.evaluate("document.activeElement.textContent") == str(first)


def test_the_back_button_closes_a_card(page):
    seen = page.evaluate("history.length")
    page.locator("#rows a.atom").first.click()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert page.evaluate("history.length") == seen + 1
    page.go_back()
    until(page, "!document.querySelector('#card').open")
    page.go_forward()
    until(page, "document.querySelector('#card').open")


@pytest.mark.parametrize("ask", ["sort=toString&show=constructor", "sort=x&show=y&page=1.5&atom=40"])
def test_an_address_that_asks_for_what_is_not_there_shows_the_rest(page, ask):
    all_of_them = listed(page)
    page.evaluate(f"location.hash = '{ask}'")
    until(page, "document.querySelector('#pages').textContent.includes('page 1 of 1')")
    assert listed(page) == all_of_them
    assert page.locator("select[name=show]").input_value() == "all"


def test_texts_are_read_token_by_token(page, data):
    page.locator("#texts").select_option("1")
    reading = data["readings"][1]
    tokens = page.locator("#reading .text .token")
    assert tokens.all_text_contents() == [token.replace("\n", "⏎") for token in reading["tokens"]]
    token = reading["is_read"].index(True) + 1
    tokens.nth(token).click()
    for step in (0, 1):
        if step:
            page.keyboard.press("ArrowRight")
        part = slice(*reading["starts"][token + step : token + step + 2])
        order = np.argsort(-np.abs(reading["values"][part]), kind="stable")
        shown = [int(text) for text in page.locator(".codes a.atom").all_inner_texts()]
        assert shown == reading["atoms"][part][order].tolist()
        assert tokens.nth(token + step).get_attribute("aria-pressed") == "true"
    page.locator(".codes button").last.click()
    atom, z = reading["atoms"][part][order][-1], reading["values"][part][order][-1]
    assert page.locator("#reading .note").first.inner_text().startswith(f"Shaded by atom {atom}")
    assert ("positive" if z > 0 else "negative") in tokens.nth(token + 1).get_attribute("class")


CONTRAST = """names => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgba = colour => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const linear = c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const ground = element => {
    const colour = rgba(getComputedStyle(element).backgroundColor);
    return colour[3] === 255 ? colour : ground(element.parentElement);
  };
  return names.flatMap(name => [...document.querySelectorAll(name)].slice(0, 20)).map(element => {
    const [a, b] = [light(rgba(getComputedStyle(element).color)), light(ground(element))].sort((a, b) => b - a);
    return (a + 0.05) / (b + 0.05);
  });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_their_ground(page, scheme):
    page.emulate_media(color_scheme=scheme)
    names = ["h1", "dt", ".note", ".line", ".chip", ".neighbour", ".sort", "select", ".codes button"]
    found = page.evaluate(CONTRAST, names)
    assert len(found) > 60
    assert min(found) >= 4.5


@pytest.mark.parametrize("width", [360, 768, 1300])
def test_no_screen_is_too_narrow(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.scrollingElement.scrollWidth - document.scrollingElement.clientWidth") <= 0
    if width > 760:
        page.evaluate("document.querySelector('#rows tr:nth-child(9)').scrollIntoView()")
        assert page.locator("#columns th").first.bounding_box()["y"] == 0  # the headings stay in view
    page.locator("#rows a.atom").first.click()
    assert page.evaluate("(c => c.scrollWidth - c.clientWidth)(document.querySelector('#card'))") <= 0
    box = page.locator("#card").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width


def test_a_served_page_reads_what_is_typed(chromium, sae, store, model):
    with PageServer(0) as server:
        server.page = explorer.explorer_page(sae, store, model, title="A", is_live=True)
        decode = explorer.decoder(model)
        server.answer = lambda text: packed(explorer.reading_content(read_text(model, sae, 2, text), decode))
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        use = opened(chromium, f"http://{server.hosts[0]}/")
        page = next(use)
        page.locator("#ask-text").fill("w9 w8 w7")
        page.get_by_role("button", name="Read").click()
        until(page, "document.querySelectorAll('#reading .token').length === 4")
        assert page.locator("#reading .text .token").all_text_contents() == ["<s>", "w9", "w8", "w7"]
        with pytest.raises(StopIteration):
            next(use)
        use = opened(chromium, f"http://{server.hosts[0]}/")
        page = next(use)
        page.locator("#ask-text").fill("w9 " * 80)
        page.keyboard.press("Control+Enter")
        until(page, "document.querySelector('#ask-state').textContent.startsWith('the text has 81 tokens')")
        server.shutdown()
        thread.join()
