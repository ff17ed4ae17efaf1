"""Headless Chromium, and what tests read of a page."""

import shutil

import numpy as np
import pytest
from PIL import Image


def start_browser():
    """Starts Chromium with WebGL on the CPU; skips the test if it is not installed."""
    webdriver = pytest.importorskip("selenium.webdriver")
    binary, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not (binary and driver):
        pytest.skip("no Chromium: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    quiet = ("background-networking", "component-update", "sync", "quic")
    webgl = ("use-angle=swiftshader", "enable-unsafe-swiftshader")
    for name in ("headless=new", "no-sandbox", "no-first-run", *webgl, *(f"disable-{name}" for name in quiet)):
        options.add_argument(f"--{name}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))


def find(browser, css):
    return browser.find_elements("css selector", css)


def click_in_article(browser, css):
    """Clicks when the page stands still: it lays out an article only when the article comes into view."""

    def stands_still():
        (element, *_) = find(browser, css)
        browser.execute_script("arguments[0].scrollIntoView({ block: 'center' })", element)  # not under the header
        place = element.rect
        browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
        return element if element.rect == place else None

    wait_for(stands_still).click()


def colour_at(browser, element, tmp_path):
    """Mean colour of the middle of an element, from a screenshot."""
    file = tmp_path / "shot.png"
    element.screenshot(str(file))
    image = np.asarray(Image.open(file).convert("RGB")).astype(int)
    height, width = image.shape[:2]
    return image[height // 3 : 2 * height // 3, width // 3 : 2 * width // 3].mean((0, 1))


def wait_for(condition):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(None, 20).until(lambda _: condition())
