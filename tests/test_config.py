"""A space file means what it says, and each mistake in one is named by file, line, rule and value."""

import inspect
from pathlib import Path

import pytest

import gpnas_trainers
from gpnas import Architecture, SpaceError, load_space
from gpnas.config import CameraSettings, DrnAxes, RcanAxes, RecipeSettings, Scale, read_space_file
from gpnas_trainers.pairs import Camera
from gpnas_trainers.train import Recipe

GOOD = """\
scale: 2
families:
  drn:
    features: [8, 16]
    blocks: {low: 1, high: 5, step: 2}
    stages: 2
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "space.yaml"
    path.write_text(text)
    return path


def test_every_form_of_an_axis(tmp_path: Path) -> None:
    space = load_space(written(tmp_path, GOOD + "    image_skip: [true, false]\n"))
    assert len(space) == 2 * 3 * 1 * 2
    assert space[0] == Architecture("drn", {"features": 8, "blocks": 1, "stages": 2, "image_skip": True})
    assert {architecture.axes["blocks"] for architecture in space} == {1, 3, 5}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("features", "featuers", r":4: unknown key `families.drn.featuers`; allowed here: features, blocks"),
        ("[8, 16]", "[]", r":4: `families.drn.features`: an axis must have at least one value, but got \[\]"),
        ("low: 1, high: 5", "low: 5, high: 1", r":5: .*`low <= high` must hold, but got \(low=5, high=1\)"),
        ("scale: 2", "scale: 5", r":1: `scale` must be 2, 3 or 4, but got 5"),
        ("scale: 2", "scael: 2", r":1: unknown key `scael`"),
        ("stages: 2", "stages: two", r":6: .*but got 'two'"),
        ("stages: 2", "stages: 0", r":6: .*`low >= 1` must hold, but got low=0"),
        ("stages: 2", "stages: [2, 2]", r":6: .*values must differ from each other, but got \[2, 2\]"),
        ("scale: 2\n", "scale: 2\nscale: 3\n", r":2: .*the key `scale` is given twice"),
        ("families:", "families: {", r"must be valid YAML"),
        ("scale: 2", "scale: 2\nsearch: {trials: 0}", r":2: `search.trials`: .*greater than or equal to 1"),
        ("scale: 2", "scale: 2\nsearch: {strategy: best}", r"must be 'mi\+nei', 'published' or 'random'"),
        ("scale: 2", "scale: 2\nrecipe: {learning_rate: fast}", r":2: .*valid number, but got 'fast'"),
        ("scale: 2", "scale: 2\nlimits: {parameters: -1}", r":2: .*greater than 0"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = written(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(SpaceError, match=message) as caught:
        read_space_file(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[1, 2]", "scale: 2\nfamilies: {}\n", "\x00", "a: &a [*a]"])
def test_what_is_no_space_file_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(SpaceError) as caught:
        read_space_file(written(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_numbers_are_read_as_people_write_them(tmp_path: Path) -> None:
    file = read_space_file(written(tmp_path, GOOD + "recipe: {learning_rate: 2e-4}\n"))
    assert file.recipe.given() == {"learning_rate": 2e-4}


@pytest.mark.parametrize("name", ["drn", "drn.yaml", "drn_paper.yaml", "rcan_paper.yaml"])
def test_shipped_spaces_are_found_by_name_and_can_be_built(name: str) -> None:
    file = read_space_file(name)
    Recipe(**file.recipe.given())
    for architecture in (file.search_space()[0], file.search_space()[-1]):
        gpnas_trainers.check(architecture.family, file.scale, **architecture.axes)


def test_the_papers_choices_are_in_the_papers_spaces() -> None:
    drn, rcan = load_space("drn_paper"), load_space("rcan_paper")
    assert Architecture("drn", {"features": 128, "blocks": 18, "stages": 3}) in drn
    assert Architecture("rcan", {"features": 128, "groups": 5, "blocks": 10}) in rcan
    assert Architecture("rcan", {"features": 64, "groups": 10, "blocks": 20}) in rcan


def test_an_unknown_space_names_the_shipped_ones() -> None:
    with pytest.raises(SpaceError, match=r"nope.yaml: .* shipped are drn.yaml, drn_paper.yaml, rcan_paper"):
        load_space("nope.yaml")


def test_the_schema_agrees_with_the_trainers() -> None:
    """The search may not import the trainers, so what it knows of them is held against them here."""
    assert set(Scale.__args__) == set(gpnas_trainers.SCALES)  # type: ignore[attr-defined]
    for family, axes in (("drn", DrnAxes), ("rcan", RcanAxes)):
        expected = gpnas_trainers.AXES[family] + gpnas_trainers.OPTIONS[family]
        assert tuple(axes.model_fields) == expected
    assert set(RecipeSettings.model_fields) == set(inspect.signature(Recipe).parameters)
    assert set(CameraSettings.model_fields) == set(inspect.signature(Camera).parameters)
