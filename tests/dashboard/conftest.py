"""A real browser on a real dashboard: a daemon of its own, the simulated exchange, headless Chromium."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from collector.api.token import token_path
from collector.control import ask
from collector.errors import CollectorError
from collector.storage.embedded import EmbeddedServer
from collector.storage.migrations import migrate
from collector.storage.sql import connect
from tests.conftest import started_server

BOUND_S = 60
SCREENSHOTS = Path(__file__).parent.parent.parent / "build" / "screenshots"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(check: Callable[[], Any], what: str, bound_s: float = BOUND_S) -> Any:
    """Return the first true answer; fail with what was waited for."""
    until = time.monotonic() + bound_s
    while time.monotonic() < until:
        # What is looked at may be drawn anew at that moment.
        with contextlib.suppress(StaleElementReferenceException):
            found = check()
            if found:
                return found
        time.sleep(0.1)
    return pytest.fail(f"{what} did not come within {bound_s} s")


class Dashboard:
    """A daemon with its dashboard, in a folder of its own."""

    def __init__(self, folder: Path, questdb: str = 'mode = "off"') -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        (folder / "config.toml").write_text(
            f"[questdb]\n{questdb}\n[api]\nport = {self.port}\n[sim]\nport = {free_port()}\nrate = 300\n",
            encoding="utf-8",
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.folder / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "collector", "up"], cwd=self.folder, stdout=output, stderr=subprocess.STDOUT,
                env={name: value for name, value in os.environ.items() if not name.startswith("QUESTDB_")},
            )  # fmt: skip
        wait_until(self._answers, "the daemon")

    def _answers(self) -> bool:
        try:
            return bool(ask(self.data_dir, "ping"))
        except CollectorError:
            return False

    def ask(self, command: str, **arguments: Any) -> Any:
        return ask(self.data_dir, command, arguments, timeout_s=BOUND_S)

    @property
    def key(self) -> str:
        return token_path(self.data_dir).read_text(encoding="ascii").strip()

    def end(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(BOUND_S)


class Browser:
    """What a person does with the dashboard."""

    def __init__(self, driver: webdriver.Chrome, dashboard: Dashboard) -> None:
        self.driver = driver
        self.dashboard = dashboard

    def log_in(self) -> None:
        self.driver.get(f"{self.dashboard.url}/?key={self.dashboard.key}")
        self.wait_text("Rows per second")

    def open(self, path: str) -> None:
        self.driver.get(self.dashboard.url + path)

    @property
    def text(self) -> str:
        return str(self.driver.execute_script("return document.body.innerText"))

    def wait_text(self, *parts: str, bound_s: float = BOUND_S) -> None:
        def found() -> bool:
            text = self.text
            return all(part in text for part in parts)

        wait_until(found, f"{parts} on the page:\n{self.text[:1500]}", bound_s)

    def shot(self, name: str) -> None:
        """Keep a picture under build/screenshots."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.driver.save_screenshot(str(SCREENSHOTS / f"{name}.png"))

    def found(self, selector: str, text: str = "") -> WebElement:
        """Return the first element that shows and has the text; wait for it."""

        def look() -> WebElement | None:
            try:
                elements = self.driver.find_elements(By.CSS_SELECTOR, selector)
                return next((one for one in elements if one.is_displayed() and text.upper() in one.text.upper()), None)
            except StaleElementReferenceException:
                return None

        element: WebElement = wait_until(look, f"{selector} {text}")
        return element

    def press(self, selector: str, text: str = "") -> None:
        self.driver.execute_script("arguments[0].click()", self.found(selector, text))

    def write(self, selector: str, text: str) -> None:
        """Put a text in place of what a field holds."""
        field = self.found(selector)
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(text)

    def choose(self, label: str, option: str) -> None:
        """Take an option of a list to choose from."""

        def field() -> WebElement | None:
            fields = self.driver.find_elements(By.CSS_SELECTOR, ".q-select")
            return next((one for one in fields if one.text.split("\n")[0] == label), None)

        wait_until(field, label).click()
        self.press(".q-menu .q-item", option)

    @property
    def too_wide(self) -> int:
        """Return by how many pixels the page scrolls sideways."""
        script = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        return int(self.driver.execute_script(script))

    def complaints(self) -> list[str]:
        """Return what the browser's console says is wrong."""
        return [line["message"] for line in self.driver.get_log("browser") if line["level"] == "SEVERE"]


@pytest.fixture(scope="package")
def driver() -> Iterator[webdriver.Chrome]:
    """Start Chromium; the tests are skipped, visibly, where there is none."""
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    service = shutil.which("chromedriver")
    if binary is None or service is None:
        pytest.skip("there is no Chromium with its driver (apt-get install chromium chromium-driver)")
    options = Options()
    options.binary_location = binary
    only_loopback = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", only_loopback):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    try:
        started = webdriver.Chrome(options=options, service=Service(service))
    except WebDriverException as error:
        pytest.skip(f"Chromium does not start: {error.msg}")
    yield started
    started.quit()


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    made = Dashboard(tmp_path_factory.mktemp("dashboard"))
    made.start()
    yield made
    made.end()


class Stored(Dashboard):
    """A dashboard with a QuestDB of its own, which the daemon does not start again when it is stopped."""

    def __init__(self, folder: Path) -> None:
        self.questdb: EmbeddedServer = started_server(folder / "questdb")
        settings = self.questdb.settings()
        migrate(settings)
        password = settings.http_password.get_secret_value()
        super().__init__(
            folder,
            f'mode = "external"\nilp_port = {settings.ilp_port}\npg_port = {settings.pg_port}\n'
            f'http_user = "{settings.http_user}"\nhttp_password = "{password}"\n'
            f'pg_user = "{settings.pg_user}"\npg_password = "{settings.pg_password.get_secret_value()}"\n'
            "check_interval_s = 1\nretry_cap_s = 1",
        )

    def rows_of(self, table: str) -> int:
        """Return how many rows a table shows; 0 where it is not there yet."""
        with connect(self.questdb.settings()) as connection:
            known = {row[0] for row in connection.rows("SELECT table_name FROM tables()")}
            return connection.count(table) if table in known else 0

    def end(self) -> None:
        super().end()
        self.questdb.stop()


@pytest.fixture(scope="package")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    made = Stored(tmp_path_factory.mktemp("stored"))
    try:
        made.start()
        yield made
    finally:
        made.end()


@pytest.fixture(scope="package")
def two_sessions(stored: Stored) -> tuple[str, str]:
    """Two sessions of the same symbols at the same time, in QuestDB, that have ended."""
    order = {"exchange": "sim", "symbols": ["BTC_USDT", "ETH_USDT"]}
    first = str(stored.ask("start", **order, label="the first")["session_id"])
    second = str(stored.ask("start", **order, label="the second")["session_id"])

    def enough() -> bool:
        return all(one["rows"]["prices"] > 1500 for one in stored.ask("status")["sessions"])

    wait_until(enough, "some trades")
    stored.ask("stop", sessions=[first, second])
    wait_until(lambda: not any(one["lag_rows"] for one in stored.ask("status")["sessions"]), "delivery")
    wait_until(lambda: stored.rows_of("tick_prices") > 3000, "rows in the table")
    return first, second


@pytest.fixture
def looking(driver: webdriver.Chrome, stored: Stored) -> Browser:
    """A person at the dashboard that has a database."""
    driver.delete_all_cookies()
    driver.set_window_size(1400, 1200)
    driver.get_log("browser")
    browser = Browser(driver, stored)
    browser.log_in()
    return browser


@pytest.fixture
def browser(driver: webdriver.Chrome, dashboard: Dashboard) -> Browser:
    driver.delete_all_cookies()
    driver.set_window_size(1400, 1500)
    driver.get_log("browser")
    return Browser(driver, dashboard)
