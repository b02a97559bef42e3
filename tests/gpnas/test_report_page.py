"""The page of a search: what it says, that no journal becomes markup, and how a browser takes it."""

import csv
import io
import json
import re
import shutil
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import vl_convert
from scipy import stats

from gpnas import Architecture, SearchSpace
from gpnas.cli import main
from gpnas.figures.catalogue import see
from gpnas.figures.comparing import course_of
from gpnas.figures.records import Recorded, Trial
from gpnas.records import Objective
from gpnas.report.comparison_page import comparison_page
from gpnas.report.page import _asset, render
from gpnas.report.search_page import search_page
from gpnas.report.sentences import at_edges, checks, summary, verdict
from gpnas.space import CategoricalAxis, Family, IntegerAxis
from tests.gpnas.searched import SPACE, listed, searched

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>'\"&{{7*7}}${alert(3)}"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return searched(tmp_path_factory.mktemp("report") / "run", 22)


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    return render(search_page(run))


class Read(HTMLParser):
    """Tags with their attributes, and the text of each script."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text: list[str] = []
        self._script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._script = tag == "script"
        if self._script:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._script = False

    def handle_data(self, data: str) -> None:
        if self._script:
            self.scripts[-1] += data
        else:
            self.text.append(data)


def test_a_report_is_one_file_that_names_no_other(page: str) -> None:
    read = Read(page)
    addresses = [
        value
        for _, attributes in read.tags
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "action", "data", "poster")
    ]
    assert all(value is not None and value.startswith(("#", "data:")) for value in addresses)
    assert [tag for tag, _ in read.tags if tag in ("iframe", "object", "embed", "base", "form")] == []
    assert not re.search(r"@import|url\(", _asset("page.css"))
    assert len(page.encode()) < 5e6


def test_every_trial_stands_in_the_table(page: str, run: Path) -> None:
    text = " ".join(Read(page).text)
    for trial in see(run).recorded.trials:
        assert trial.label in text
        if trial.value is not None:
            assert f"{trial.value:.3f}" in text
    assert "CUDA out of memory" in text


def test_the_summary_counts_and_names_the_best(run: Path) -> None:
    seen = see(run)
    best = seen.recorded.best
    assert best is not None
    first, second, *_ = summary(seen)
    assert first == (
        "22 of 22 trials have ended (3 failed, 4 stopped early); "
        "the search was interrupted, and the same command goes on with it."
    )
    assert best.label in second
    assert f"{best.value:.2f} dB" in second
    told = {check.name: check for check in checks(seen)}
    assert told["Failures"].sentence == "3 of 22 trainings failed, all for one reason: CUDA out of memory."
    assert told["Early stopping"].sentence.startswith(
        "4 trainings were stopped early, which saved 80 steps, 11%"
    )


@pytest.mark.parametrize("count", [5, 40, 3_000])
def test_held_intervals_are_judged_by_the_binomial(count: int) -> None:
    binomial = stats.binom(count, 0.9)
    for held in (0, count // 2, round(0.8 * count), round(0.9 * count), round(0.96 * count), count):
        exact = "as expected"
        if binomial.cdf(held) < 0.025:
            exact = "too few"
        elif binomial.sf(held - 1) < 0.025:
            exact = "too many"
        assert verdict(held, count, 0.9) == exact


def test_the_edge_of_the_space_is_told() -> None:
    recorded = Recorded(
        run="r",
        state="finished",
        objective=see_measure(),
        trials=(),
        granted=1,
        header={},
        families=axes_of(SPACE),
    )
    inner = Trial("c0", "net", {"width": 8, "depth": 2, "block": "plain"}, "random", "observed", 1.0)
    outer = Trial("c1", "net", {"width": 20, "depth": 1, "block": "plain"}, "random", "observed", 1.0)
    assert at_edges(recorded, inner) == []
    assert at_edges(recorded, outer) == [("width", "highest", 20), ("depth", "lowest", 1)]


def see_measure() -> Any:
    from gpnas.figures.records import Measure

    return Measure()


def axes_of(space: SearchSpace) -> Any:
    return {family.name: family.axes for family in space.families}


def test_hostile_strings_stay_text_everywhere(tmp_path: Path) -> None:
    space = SearchSpace(
        [
            Family(
                EVIL,
                (
                    IntegerAxis(f"{EVIL} width", (1, 2, 3)),
                    CategoricalAxis(f"{EVIL} kind", (EVIL, "=1+1", "plain")),
                ),
            )
        ]
    )

    def value(architecture: Architecture) -> float:
        return float(str(architecture.axes[f"{EVIL} width"]))

    run = searched(
        tmp_path / "<b>run&",
        8,
        space=space,
        value=value,
        objective=Objective(EVIL, EVIL),
        failing=EVIL,
        setup={"scale": EVIL, "data": {EVIL: EVIL}, "recipe": {EVIL: EVIL}},
    )
    text = render(search_page(run))
    clean = Read(render(search_page(searched(tmp_path / "clean", 10))))
    read = Read(text)
    kinds = {tag for tag, _ in read.tags}
    assert kinds <= {tag for tag, _ in clean.tags}
    assert not any(name.startswith("on") for _, attributes in read.tags for name in attributes)
    assert len(read.scripts) == len(clean.scripts)
    for script in read.scripts[:3]:
        json.loads(script)  # it neither ended early nor broke
    assert EVIL in " ".join(read.text)
    assert "49" not in re.findall(r"'\"&(\d+)", text)  # no template took it for an expression


def test_a_search_without_observations_and_one_of_failures_have_pages(tmp_path: Path) -> None:
    empty = render(search_page(searched(tmp_path / "empty", 0)))
    assert "No training has succeeded" in empty

    def fails(run: Path) -> Path:
        from gpnas.journal import Journal
        from gpnas.records import Candidate, Fidelity, Observation
        from tests.gpnas.searched import header_of

        with Journal.create_or_open(run, header_of(SPACE, 3, Objective("psnr", "dB"), {})) as journal:
            for number in range(3):
                candidate = Candidate(f"c{number:04d}", SPACE[number], Fidelity(1), 0, {"phase": "random"})
                journal.commit_candidates([candidate])
                journal.commit_observation(Observation(candidate, None, "no memory"))
        return run

    failed = " ".join(Read(render(search_page(fails(tmp_path / "failed")))).text)
    assert "3 of 3 trainings failed, all for one reason: no memory." in failed
    assert "How did the search go?" not in failed  # there is no value to draw


def test_what_is_no_run_is_told_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], run: Path
) -> None:
    assert main(["report", str(tmp_path), "-o", str(tmp_path / "out.html")]) == 1
    assert "this is none; check the name" in capsys.readouterr().err
    broken = tmp_path / "broken"
    shutil.copytree(run, broken)
    for file in broken.glob("journal*.sqlite*"):
        file.write_bytes(b"SQLite format 3\0" + b"garbage" * 1000)
    assert main(["report", str(broken), "-o", str(tmp_path / "out.html")]) == 1
    error = capsys.readouterr().err
    assert "damaged" in error or "must be" in error
    assert not (tmp_path / "out.html").exists()
    assert main(["report", str(run), "-o", str(tmp_path / "none" / "out.html")]) == 1


def test_the_command_writes_the_page_and_says_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], run: Path
) -> None:
    out = tmp_path / "out.html"
    assert main(["report", str(run), "-o", str(out), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["report"] == str(out)
    assert document["bytes"] == len(out.read_bytes())
    assert {"summary", "trials", "provenance"} <= set(document["sections"])


def test_a_page_passes_on_the_notices_of_what_draws_its_figures(page: str) -> None:
    notices = (Path(__file__).parents[2] / "gpnas/report/assets/vega.LICENSE.txt").read_text()
    assert " ".join(notices.split()) in " ".join(" ".join(Read(page).text).split())
    for holder in ("University of Washington Interactive Data Lab", "Mike Bostock", "Mapbox", "Simon Lydell"):
        assert holder in notices
    # the wheel's own metadata has the file, where pages find it
    declared = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert "gpnas/report/assets/vega.LICENSE.txt" in declared["license-files"]


# -- in a browser


@pytest.fixture(scope="module")
def shown(browser: Any, page: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return visited(browser, page, tmp_path_factory.mktemp("page") / "report.html")


def visited(browser: Any, text: str, file: Path) -> Any:
    """The browser on a page whose figures are all drawn; what it logged before is forgotten."""
    file.write_text(text, "utf-8")
    browser.get_log("performance")
    browser.get_log("browser")
    browser.get(file.as_uri())
    drawn = (
        "const done = arguments[0]; gpnas.drawn().then(() => done('drawn'), (error) => done(String(error)))"
    )
    assert browser.execute_async_script(drawn) == "drawn"
    return browser


def test_a_browser_draws_all_without_an_error_or_a_request(shown: Any) -> None:
    assert [entry["message"] for entry in shown.get_log("browser")] == []
    asked = [json.loads(entry["message"])["message"] for entry in shown.get_log("performance")]
    addresses = [
        each["params"]["request"]["url"] for each in asked if each["method"] == "Network.requestWillBeSent"
    ]
    assert [each for each in addresses if not each.startswith(("file:", "data:", "blob:", "chrome"))] == []
    each = "(drawing) => drawing.querySelectorAll('svg path').length"
    drawn = f"return [...document.querySelectorAll('.drawing')].map({each})"
    counts = shown.execute_script(drawn)
    strange = "(drawing) => drawing.innerHTML.includes('#4c78a8')"  # Vega's own, of a mark without a colour
    assert not shown.execute_script(f"return [...document.querySelectorAll('.drawing')].some({strange})")
    assert len(counts) > 15
    assert all(count > 0 for count in counts)


def test_the_shortened_drawing_library_draws_what_the_whole_one_draws(shown: Any) -> None:
    """Every figure in every view, beside vl-convert's own Vega-Embed, to the last character."""
    whole: Any = vl_convert.javascript_bundle  # whose stub asks for an argument that it does not need
    # each library has had as many drawings before
    again = f"(() => {{{_asset('vega.js')}}})(); window.ours = window.vegaEmbed; (() => {{{whole()}}})();"
    shown.execute_script(again)
    draw = """
        const done = arguments[0], read = (id) => JSON.parse(document.getElementById(id).textContent);
        const datasets = read("datasets"), kept = (name) => [name, structuredClone(datasets[name])];
        const options = {actions: false, ast: true, renderer: "svg", mode: "vega-lite"};
        const drawn = async (embed, spec) => {
            const whole = {...spec, datasets: Object.fromEntries(spec.datasets.map(kept)), width: 500};
            return (await embed(document.createElement("div"), whole, options)).view.toSVG();
        };
        (async () => {
            const pairs = [];
            for (const spec of Object.values(read("figures")).flat().flatMap((view) => view.specs))
                pairs.push([await drawn(window.ours, spec), await drawn(window.vegaEmbed, spec)]);
            done(pairs);
        })().catch((error) => done(String(error)));
    """
    pairs = shown.execute_async_script(draw)
    assert len(pairs) > 15, pairs
    for mine, theirs in pairs:
        assert mine.startswith("<svg")
        assert mine == theirs


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1024, 1600])
def test_a_page_fits_and_is_accessible(shown: Any, scheme: str, width: int) -> None:
    import axe_core_python

    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    shown.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    shown.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    assert shown.execute_script("return document.documentElement.scrollWidth") <= width
    shown.execute_script((Path(axe_core_python.__file__).parent / "axe.min.js").read_text())
    found = shown.execute_async_script("axe.run().then(arguments[0])")
    assert [
        (each["id"], each["impact"])
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
    ] == []


def test_the_table_is_sorted_and_filtered_by_keyboard(shown: Any, run: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    recorded = see(run).recorded
    table = shown.find_element(By.ID, "table-trials")
    head = next(each for each in table.find_elements(By.TAG_NAME, "th") if each.text.startswith("PSNR"))
    head.find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    first = table.find_element(By.CSS_SELECTOR, "tbody th").text
    values = {trial.id: trial.value for trial in recorded.trials if trial.value is not None}
    assert first == max(values, key=lambda name: values[name])
    assert head.get_attribute("aria-sort") == "descending"
    table.find_element(By.CSS_SELECTOR, "input[type=search]").send_keys("out of memory")
    rows = [row for row in table.find_elements(By.CSS_SELECTOR, "tbody tr") if row.is_displayed()]
    assert len(rows) == recorded.count("failed")
    assert table.find_element(By.CSS_SELECTOR, ".count").text == "3 of 22 rows"


def test_downloads_hold_the_numbers_and_the_pictures(shown: Any, run: Path) -> None:
    catch = """
    const done = arguments[0], found = [];
    const create = URL.createObjectURL;
    URL.createObjectURL = (blob) => { found.push(blob.text()); return "blob:kept"; };
    const click = HTMLAnchorElement.prototype.click;
    HTMLAnchorElement.prototype.click = function () {
      if (this.href.startsWith("data:")) found.push(Promise.resolve(this.href.slice(0, 22)));
    };
    [...document.querySelectorAll("#figure-course .downloads button")].forEach((button) => button.click());
    const wait = () => found.length < 3 ? setTimeout(wait, 50) : Promise.all(found).then((all) => {
      URL.createObjectURL = create; HTMLAnchorElement.prototype.click = click; done(all);
    });
    wait();
    """
    numbers, *pictures = shown.execute_async_script(catch)
    rows = {row["id"]: row for row in csv.DictReader(io.StringIO(numbers))}
    for trial in see(run).recorded.trials:
        if trial.value is not None:
            assert float(rows[trial.id]["value"]) == pytest.approx(trial.value, rel=1e-8)
    assert any(each.startswith("<svg") and "The best so far is" in each for each in pictures)
    assert "data:image/png;base64," in pictures


def test_a_figure_has_several_views_to_choose_from(shown: Any) -> None:
    from selenium.webdriver.support.select import Select

    select = Select(shown.find_element("id", "view-posterior"))
    labels = [option.text for option in select.options]
    assert len(labels) == 6
    select.select_by_visible_text(labels[-1])
    caption = shown.find_element("css selector", "#figure-posterior figcaption").text
    assert all(axis in caption for axis in labels[-1].split(",")[0].split(" × "))


def test_hostile_strings_run_nothing_in_a_browser(browser: Any, tmp_path: Path) -> None:
    def value(architecture: Architecture) -> float:
        return float(str(architecture.axes["width"]))

    space = SearchSpace(
        [
            Family(EVIL, (IntegerAxis("width", (1, 2, 3)), CategoricalAxis(EVIL, (EVIL, "b")))),
        ]
    )
    run = searched(tmp_path / "run", 6, space=space, value=value, objective=Objective(EVIL, ""), failing=EVIL)
    shown = visited(browser, render(search_page(run)), tmp_path / "evil.html")
    assert [entry["message"] for entry in shown.get_log("browser")] == []
    assert shown.execute_script("return document.querySelectorAll('img, iframe').length") == 0


def test_long_searches_have_pages_of_bounded_size(tmp_path: Path) -> None:
    text = render(search_page(listed(tmp_path / "run", 500)))
    assert len(text.encode()) < 5e6


# -- several runs, and bundles


def test_runs_are_compared(tmp_path: Path, run: Path) -> None:
    other = searched(tmp_path / "other", 8, failing="no memory")
    text = render(comparison_page([run, other]))
    first, second = (see(each).recorded for each in (run, other))
    both = {trial.label for trial in first.trials} & {trial.label for trial in second.trials}
    words = " ".join(" ".join(Read(text).text).split())
    assert f"run and other {len(both)} {len({t.label for t in first.trials})} 8" in words
    assert "trials 22 8" in words  # the one entry of the headers that is not the same
    courses = dict(course_of(second, "observations"))
    best = float("-inf")
    for trial in second.trials:  # trials of this search ended in the order of proposal
        if trial.finished and trial.value is not None and trial.value > best:
            best = trial.value
            assert courses[float(trial.place or 0)] == best
    assert max(courses.values()) == best


def test_a_bundle_has_a_page_with_its_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"networks": [1], "levels": [], "psnr": 28.104, "ssim": 0.81, "psnr_interval": [27.0, 29.0]},
        {"networks": [2], "levels": [], "psnr": 28.306, "ssim": 0.82, "psnr_interval": None},
        {
            "networks": [1, 2],
            "levels": ["networks"],
            "psnr": 28.401,
            "ssim": 0.83,
            "over_best": {"psnr": 0.095},
        },
    ]
    named = [
        {"network": n, "architecture": {"family": "drn", "axes": {EVIL: n}}, "weight": 0.5} for n in (1, 2)
    ]
    document = {
        "bicubic": {"psnr": 26.9, "ssim": 0.7},
        "rows": rows,
        "networks": named,
        "images": 2,
        "scale": 2,
    }
    evaluation = tmp_path / "table1.json"
    evaluation.write_text(json.dumps(document))
    out = tmp_path / "bundle.html"
    bundle = Path(__file__).parents[1] / "golden" / "bundle-v1"
    assert main(["report", str(bundle), "--evaluation", str(evaluation), "-o", str(out)]) == 0
    read = Read(out.read_text("utf-8"))
    words = " ".join(" ".join(read.text).split())
    assert "28.10 [27.00, 29.00]" in words
    assert "1 + 2 networks 28.40 0.8300 +0.095" in words
    assert not [tag for tag, attributes in read.tags if tag == "img" and "onerror" in attributes]
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert all(member["file"] in words for member in manifest["members"])
    evaluation.write_text('{"rows": []}')
    assert main(["report", str(bundle), "--evaluation", str(evaluation), "-o", str(out)]) == 1
    assert "must be what `gpnas evaluate BUNDLE --json` prints" in capsys.readouterr().err
