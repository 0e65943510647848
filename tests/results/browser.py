"""Debian's chromium, driven to a report's page; what it asks for and complains of is kept."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, sync_playwright

DESKTOP, PHONE = 1440, 390
_PATIENCE_MS = 15_000.0


@dataclass
class Opened:
    """A page in the browser."""

    page: Page
    requests: list[str] = field(default_factory=list)
    """Every address that it asked for."""
    complaints: list[str] = field(default_factory=list)
    """Errors of its code and of the console."""

    def texts(self, selector: str) -> list[str]:
        """Return the texts of all elements that a selector finds."""
        return [text.strip() for text in self.page.locator(selector).all_inner_texts()]

    def trials(self) -> list[str]:
        """Return the trials that the table shows, in its order."""
        rows = self.page.locator("#matches-body tr")
        return [str(row.get_attribute("data-trial")) for row in rows.all()]

    def bright_marks(self) -> int:
        """Count the marks of the first chart that are not faded."""
        marks = self.page.locator("#fronts-charts .chart").first
        return marks.locator(".scatterlayer .point:not(.faint)").count()

    def advice(self) -> str:
        """Return the recommendation's words."""
        return self.page.locator("#advice").inner_text()

    def slider(self, metric: str) -> Locator:
        """Return the slider of a metric."""
        return self.page.locator(f'input[type=range][data-metric="{metric}"]')

    def require(self, metric: str, threshold: float) -> None:
        """Type a threshold beside a metric's slider, and wait until the page shows it."""
        row = self.page.locator(f'.requirement[data-metric="{metric}"]')
        row.locator("input[type=number]").fill(str(threshold))
        self.settle()

    def settle(self) -> None:
        """Wait for two frames: changes are shown in the next one."""
        self.page.evaluate(
            "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
        )


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the browser; skip the test where there is none."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("there is no chromium here: apt-get install chromium")
    with sync_playwright() as playwright:
        # No sandbox of its own: CI runs as root, and the page is ours.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(
    browser: Browser,
    file: Path,
    *,
    width: int = DESKTOP,
    dark: bool = False,
    javascript: bool = True,
) -> Iterator[Opened]:
    """Open a page from disk and wait until its code has run."""
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if dark else "light",
        java_script_enabled=javascript,
        # What the page asks of the network would otherwise only fail for want of one.
        offline=True,
    )
    context.set_default_timeout(_PATIENCE_MS)
    found = Opened(context.new_page())
    found.page.on("request", lambda request: found.requests.append(request.url))
    found.page.on("pageerror", lambda error: found.complaints.append(str(error)))
    found.page.on(
        "console",
        lambda message: found.complaints.append(message.text) if message.type == "error" else None,
    )
    try:
        found.page.goto(file.resolve().as_uri())
        if javascript:
            found.page.wait_for_selector("#matches-body tr, #no-choice", state="attached")
            found.settle()
        yield found
    finally:
        context.close()
