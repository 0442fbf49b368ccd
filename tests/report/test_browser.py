"""The report in a real browser, headless: loading, sorting, pictures, theme, and a phone's width."""

import json
import shutil

import pytest

from braincog_transformers.report import write_report

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.chrome.service import Service  # noqa: E402 - only once selenium is known to be there
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.wait import WebDriverWait  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium or chromedriver is not installed")
SWITCHES = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync"]  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Start one browser for all tests, with its log and its requests recorded."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for switch in [*SWITCHES, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"]:
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser, make_run):
    """Open the report of one run, as wide as a desk's screen and light."""
    show(browser, write_report([make_run()]))
    return browser


def show(browser, path, width=1280):
    """Open a file in a window of some width."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    # without smooth scrolling, so that a click does not wait for it
    wishes = [{"name": "prefers-color-scheme", "value": "light"}, {"name": "prefers-reduced-motion", "value": "reduce"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": wishes})
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get(path.resolve().as_uri())


def column(browser, index):
    """Read a column of the energy table, first to last."""
    cells = browser.find_elements(By.CSS_SELECTOR, f"table.energy tbody td:nth-child({index})")
    return [cell.text.split()[0] for cell in cells]


def header(browser, index):
    return browser.find_element(By.CSS_SELECTOR, f"table.energy th:nth-child({index})")


def test_it_loads_without_errors_and_without_the_network(browser, make_run, tmp_path):
    for path in (write_report([make_run()]), write_report([make_run("a"), make_run("b")], tmp_path / "all.html")):
        show(browser, path)
        assert browser.get_log("browser") == []
        events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
        sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
        here = path.resolve().as_uri()
        asked = {event["request"]["url"] for event in sent if event["documentURL"] == here}
        assert here in asked
        assert all(address.startswith("data:") for address in asked - {here})


def test_numbers_sort_both_ways_and_the_total_stays_last(opened):
    energy, layers, name = header(opened, 9), column(opened, 2), 2
    assert energy.get_attribute("aria-sort") == "none"
    energy.find_element(By.TAG_NAME, "button").click()
    assert energy.get_attribute("aria-sort") == "descending"
    assert column(opened, name) == ["attn.product", "stem.conv", "head"]
    energy.find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    assert energy.get_attribute("aria-sort") == "ascending"
    assert column(opened, name) == ["head", "stem.conv", "attn.product"]
    last = opened.find_elements(By.CSS_SELECTOR, "table.energy tr")[-1]
    assert last.text.startswith("all")
    header(opened, 8).find_element(By.TAG_NAME, "button").click()
    assert column(opened, 8) == ["1.00", "80", "9"]  # 1.00 M: by value, not by text
    header(opened, 1).find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    header(opened, 1).find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    assert column(opened, name) == layers
    assert energy.get_attribute("aria-sort") == "none"


def test_pictures_are_there_and_enlarge(opened):
    widths = opened.execute_script("return [...document.querySelectorAll('main img')].map((i) => i.naturalWidth)")
    assert widths == [6, 6]
    opened.find_element(By.CSS_SELECTOR, "button.enlarge").click()
    assert opened.execute_script("return document.querySelector('#enlarged img').naturalWidth") == 6


def test_the_theme_switches_and_is_not_kept(opened):
    def ground():
        return opened.execute_script("return getComputedStyle(document.body).backgroundColor")

    light = ground()
    opened.find_element(By.ID, "theme").click()
    dark = ground()
    assert light != dark
    opened.find_element(By.ID, "theme").click()
    assert ground() == light
    opened.find_element(By.ID, "theme").click()
    opened.refresh()
    assert ground() == light
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    assert ground() == dark


def test_the_page_fits_a_phone(browser, make_run, tmp_path):
    long = make_run.results("x" * 120, 91.0, command="python main.py " + "y" * 300, options={"z" * 90: "w" * 200})
    one, other = make_run("one", results=long), make_run("two")
    for path in (write_report([one]), write_report([one, other], tmp_path / "all.html")):
        show(browser, path, width=390)
        unfold = "document.querySelectorAll('details').forEach((d) => (d.open = true));"
        assert browser.execute_script(unfold + "return document.documentElement.scrollWidth") <= 390


def test_labels_of_points_do_not_overlap(browser, make_run, tmp_path):
    runs = [
        make_run(f"spikformer-{i}", top1=97.0 + i % 3 / 10, energy=make_run.energy(0.01 + i / 5000)) for i in range(6)
    ]
    for width in (1280, 390):
        show(browser, write_report(runs, tmp_path / "all.html"), width=width)
        found = browser.execute_script(
            "return [...document.querySelectorAll('.point-label')].map((l) => l.getBoundingClientRect())"
            ".filter((r) => r.width).map((r) => [r.left, r.top + 2, r.right, r.bottom - 2])"
        )
        assert len(found) >= 3
        for place, one in enumerate(found):
            for two in found[:place]:
                assert one[0] >= two[2] or two[0] >= one[2] or one[1] >= two[3] or two[1] >= one[3], (one, two)


def test_the_copy_button_copies_or_selects(opened):
    opened.find_element(By.CSS_SELECTOR, "#command button.copy").click()
    said = "return document.querySelector('#command button.copy').textContent"
    WebDriverWait(opened, 5).until(lambda driver: driver.execute_script(said) != "Copy")
    assert opened.execute_script(said) in ("Copied", "Selected: press Ctrl+C")


def test_a_link_unfolds_a_run(browser, make_run, tmp_path):
    show(browser, write_report([make_run("a"), make_run("b")], tmp_path / "all.html"))
    browser.find_element(By.CSS_SELECTOR, 'a[href="#run-2"]').click()
    assert browser.execute_script("return document.getElementById('run-2').open")
