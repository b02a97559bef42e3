"""The README's pictures of the terminal and of the report, from the shipped photographs' search.

    python experiments/pictures.py [--run runs/pictures] [--ended 10]

Runs `gpnas search --space drn.yaml`. Once so many trials have ended and others train, what its terminal shows
becomes `docs/terminal.svg`, by rich's export; a search that has come further already leaves that picture as
it is. Then `gpnas evaluate` and `gpnas report`; headless Chromium takes the top of the page as
`docs/report.png` and one of its figures as `docs/report-space.png`, both of 256 colours.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.text import Text

from gpnas.cli.live import Region, ended_line
from gpnas.cli.text import legend
from gpnas.errors import GpnasError
from gpnas.journal import Look, look

DOCS = Path(__file__).parents[1] / "docs"
COLUMNS, LINES = 88, 22
WIDTH, HEIGHT = 1280, 1500
"""CSS pixels of the window."""
FIGURE = "figure-posterior"
FRAME = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: system-ui, sans-serif; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}"
height="{terminal_height}" /></clipPath>{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}<g class="{unique_id}-matrix">{matrix}</g></g>
</svg>
"""
"""Rich's own, but for the font that it would fetch."""


def gpnas(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "gpnas.cli", *arguments]


def searched(run: Path, ended: int) -> None:
    """Searches, or goes on; draws the terminal on the way."""
    search = subprocess.Popen(gpnas("search", "--space", "drn.yaml", "--run", str(run)))
    while search.poll() is None:
        time.sleep(0.5)
        try:
            seen = look(run)
        except GpnasError:  # not begun
            continue
        training = [each for each in seen.training if each.curve and each.left]
        if len(training) > 1 and len(seen.ended) >= ended and seen.prospect is not None:
            (DOCS / "terminal.svg").write_text(terminal(seen), "utf-8")
            print(f"terminal.svg: {len(seen.ended)} trials have ended")
            break
    if search.wait() != 0:
        sys.exit("the search failed")


def terminal(seen: Look) -> str:
    """What the terminal shows of a run, as SVG."""
    console = Console(
        record=True, width=COLUMNS, height=LINES, file=io.StringIO(), force_terminal=True, highlight=False
    )
    console.print(Text("$ gpnas search --space drn.yaml", "bold"))
    console.print(f"candidate  {legend(each.candidate.architecture for each in seen.ended)}")
    for observation in seen.ended:
        console.print(ended_line(observation, seen.objective), no_wrap=True, overflow="ellipsis")
    console.print(Region(seen))
    svg = console.export_svg(title="gpnas search", code_format=FRAME, unique_id="gpnas")
    return svg.replace(" \n", "\n")


def browser(profile: str) -> Any:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or "chromium"
    for each in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(each)
    options.add_argument(f"--user-data-dir={profile}")
    service = webdriver.ChromeService(shutil.which("chromedriver") or "chromedriver")
    return webdriver.Chrome(options=options, service=service)


def photographed(page: Path) -> None:
    """The top of a page, and one of its figures."""
    with tempfile.TemporaryDirectory() as profile:
        driver = browser(profile)
        try:
            size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            driver.get(page.as_uri())
            driver.execute_async_script("gpnas.drawn().then(() => arguments[0]())")
            write(driver.get_screenshot_as_png(), DOCS / "report.png")
            figure = driver.find_element("id", FIGURE)
            write(figure.screenshot_as_png, DOCS / "report-space.png")
        finally:
            driver.quit()


def write(png: bytes, target: Path) -> None:
    image = Image.open(io.BytesIO(png)).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    image.save(target, optimize=True)
    print(f"{target.name}: {image.width} × {image.height}, {target.stat().st_size / 1e3:.0f} kB")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--run", type=Path, default=Path("runs/pictures"))
    options.add_argument("--ended", type=int, default=10, help="trials before the terminal is drawn")
    chosen = options.parse_args()
    searched(chosen.run, chosen.ended)
    subprocess.run(gpnas("evaluate", str(chosen.run / "bundle")), check=True, stdout=subprocess.DEVNULL)
    page = chosen.run / "report.html"
    subprocess.run(gpnas("report", str(chosen.run), "-o", str(page)), check=True)
    photographed(page.absolute())


if __name__ == "__main__":
    main()
