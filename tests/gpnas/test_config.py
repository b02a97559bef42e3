"""A space file means what it says, and each mistake in one is named by file, line, rule and value."""

import inspect
import itertools
import math
from pathlib import Path
from typing import Any

import pytest

import gpnas_trainers
from gpnas import Architecture, SearchSpace, SpaceError, load_space
from gpnas.cli import main
from gpnas.config import (
    CameraSettings,
    RecipeSettings,
    Scale,
    read_space_file,
)
from gpnas.results.description import describe
from gpnas.run.pricing import priced
from gpnas.run.setup import Data, Setup
from gpnas_trainers import cost
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
        ("scale: 2", "scale: 5", r":1: `scale` must be 2, 3, 4 or 8, but got 5"),
        ("scale: 2", "scael: 2", r":1: unknown key `scael`"),
        ("stages: 2", "stages: two", r":6: .*but got 'two'"),
        ("stages: 2", "stages: 0", r":6: .*`low >= 1` must hold, but got low=0"),
        ("stages: 2", "stages: [2, 2]", r":6: .*values must differ from each other, but got \[2, 2\]"),
        ("scale: 2\n", "scale: 2\nscale: 3\n", r":2: .*the key `scale` is given twice"),
        ("families:", "families: {", r"must be valid YAML"),
        ("scale: 2", "scale: 2\nsearch: {trials: 0}", r":2: `search.trials`: .*greater than or equal to 1"),
        (
            "scale: 2",
            "scale: 2\nsearch: {strategy: best}",
            r"must be 'mi\+kg', 'mi\+nei', 'published' or 'random'",
        ),
        ("scale: 2", "scale: 2\nrecipe: {learning_rate: fast}", r":2: .*valid number, but got 'fast'"),
        ("scale: 2", "scale: 2\nlimits: {parameters: -1}", r":2: .*greater than 0"),
        (
            "scale: 2",
            "scale: 2\nlimits: {parameter: 1}",
            r"`limits.parameter`; allowed here: parameters, gmacs",
        ),
        (
            "stages: 2",
            "stages: {low: 1, hihg: 2}",
            r":6: unknown key .*hihg`; allowed here: low, high, step, fac",
        ),
        (
            "stages: 2",
            "stages: {low: 1, high: 2, step: 1, factor: 2}",
            r"a step or a factor, but got \(step=1, f",
        ),
        (
            "stages: 2",
            "stages: {low: 0, high: 2, factor: 2}",
            r"`low >= 1` must hold with a factor, but got low=0",
        ),
        (
            "stages: 2",
            "stages: {low: 0, high: 2, spacing: log}",
            r"log spacing needs positive values, but got 0",
        ),
        ("stages: 2", "stages: {low: 1, high: 999999999}", r"at most 10000 values, but got 999999999"),
        ("stages: 2", "stages: {choices: [1, 1]}", r"choices must differ from each other, but got \[1, 1\]"),
        ("stages: 2", "stages: {choices: [1, a]}", r"choices must be integers of at least 1, but got 'a'"),
        ("stages: 2", "stages: 2\n    image_skip: [true, 1]", r":7: .*choices must differ .* \[True, 1\]"),
        (
            "stages: 2",
            "stages: 2\n    image_skip: [true, 2]",
            r":7: .*true, false or a list of both, but got 2",
        ),
        (
            "stages: 2",
            "stages: 2\n    fuse: [1, 2]",
            r":7: `families.drn.fuse`: `fuse` must be 1 or 3, but got 2",
        ),
        (
            "stages: 2",
            "stages: 2\n    upsampler: bilinear",
            r":7: `families.drn.upsampler`: .*one of shuffle, nearest, direct, but got 'bilinear'",
        ),
        (
            "  drn:",
            "  safmn: {features: {low: 8, high: 10}, blocks: 2}\n  drn:",
            r":3: `families.safmn.features`: `features` must be a multiple of 4, but got 9",
        ),
        (
            "  drn:",
            "  plksr: {features: 8, blocks: 2, kernel: [5, 8]}\n  drn:",
            r":3: `families.plksr.kernel`: `kernel` must be odd, but got 8",
        ),
        (
            "  drn:",
            "  rdn:",
            r":3: unknown key `families.rdn`; allowed here: drn, rcan, .*; .*own_families=True",
        ),
        (
            "scale: 2",
            "scale: 2\nwhere:\n- stages < 3\n- stags < 3",
            r":4: `where.1`: .*\(drn: features, .*`stags`",
        ),
        ("scale: 2", "scale: 2\nwhere: stages > 3", r":2: `where.0`: .* but `stages > 3` excludes all 6"),
        ("scale: 2", "scale: 2\nwhere: [2]", r":2: `where.0`: input should be a valid string, but got 2"),
        ("scale: 2", "scale: 2\nequivalent:\n  stages: stgs", r":3: `equivalent.stages`: .*but got `stgs`"),
        ("scale: 2", "scale: 2\nequivalent:\n  stgs: stages", r":3: `equivalent.stgs`: .*but got `stgs`"),
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


@pytest.mark.parametrize(
    "name", ["drn", "drn.yaml", "drn_paper.yaml", "rcan_paper.yaml", "heterogeneous", "families"]
)
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
    with pytest.raises(
        SpaceError, match=r"nope.yaml: .* shipped are drn.yaml, drn_paper.yaml, families.yaml, heterog"
    ):
        load_space("nope.yaml")


def test_the_schema_agrees_with_the_trainers() -> None:
    """The search may not import the trainers, so what it knows of them is held against them here."""
    assert set(Scale.__args__) == set(gpnas_trainers.SCALES)  # type: ignore[attr-defined]
    assert set(RecipeSettings.model_fields) == set(inspect.signature(Recipe).parameters)
    assert set(CameraSettings.model_fields) == set(inspect.signature(Camera).parameters)


FAMILIES_WITH_RECIPES = """\
scale: 2
families:
  edsr: {features: 8, blocks: 1}
  nafnet: {width: 8, blocks: 2, recipe: {learning_rate: 1e-3, warmup_steps: 3}}
  safmn: {architectures: [{features: 8, blocks: 1}], recipe: {schedule: step}}
recipe: {steps: 30, learning_rate: 4e-3}
"""


def test_a_family_may_have_settings_of_its_own(tmp_path: Path) -> None:
    file = read_space_file(written(tmp_path, FAMILIES_WITH_RECIPES))
    assert len(file.search_space()) == 3
    assert file.families.recipes == {
        "nafnet": {"learning_rate": 1e-3, "warmup_steps": 3}, "safmn": {"schedule": "step"}
    }  # fmt: skip
    data = Data("a", "b", "c", None)
    setup = Setup(2, file.common_recipe.to_json(), data, 1, family_recipes=file.families.recipes)
    assert setup.recipe_of("edsr") == Recipe(steps=30, learning_rate=4e-3)
    assert setup.recipe_of("nafnet") == Recipe(steps=30, learning_rate=1e-3, warmup_steps=3)
    assert setup.recipe_of("safmn") == Recipe(steps=30, learning_rate=4e-3, schedule="step")
    assert setup.recipe_document()["families"] == file.families.recipes


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "warmup_steps: 3",
            "steps: 3",
            r":4: unknown key `families.nafnet.recipe.steps`; allowed here: learni",
        ),
        ("1e-3", "fast", r":4: `families.nafnet.recipe.learning_rate`: .*valid number, but got 'fast'"),
        (
            "step}",
            "linear}",
            r"`families.safmn.recipe`: `schedule` must be one of cosine, step, but got 'linear'",
        ),
    ],
)
def test_a_mistake_in_a_familys_recipe_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = written(tmp_path, FAMILIES_WITH_RECIPES.replace(old, new))
    with pytest.raises(SpaceError, match=message):
        read_space_file(path)


def test_patches_that_miss_the_scale_are_named_before_anything_is_trained(tmp_path: Path) -> None:
    text = GOOD + "recipe:\n  steps: 10\n  hr_patch: 47\n"
    line = text.splitlines().index("  hr_patch: 47") + 1
    with pytest.raises(SpaceError, match=rf":{line}: `recipe.hr_patch`: a multiple of the scale 2 .* got 47"):
        read_space_file(written(tmp_path, text))


def product(**axes: list[int]) -> list[dict[str, int]]:
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def test_doubling_axes_are_measured_by_their_logarithm(tmp_path: Path) -> None:
    text = GOOD.replace("[8, 16]", "{low: 8, high: 100, factor: 2}")
    space = load_space(written(tmp_path, text))
    assert {each.axes["features"] for each in space} == {8, 16, 32, 64}
    for row, each in zip(space.features, space, strict=True):
        assert float(row[0]) == pytest.approx(math.log2(int(each.axes["features"]) / 8) / 3)
    linear = load_space(written(tmp_path, text.replace("factor: 2", "factor: 2, spacing: linear")))
    for row, each in zip(linear.features, linear, strict=True):
        assert float(row[0]) == pytest.approx((int(each.axes["features"]) - 8) / 56)


def test_choices_have_no_order(tmp_path: Path) -> None:
    space = load_space(written(tmp_path, GOOD + "    fuse: {choices: [3, 1]}\n"))
    assert [column.kind for column in space.columns] == ["ordered", "ordered", "categorical"]
    assert space[0].axes["fuse"] == 3


def test_conditions_and_equivalences_of_a_file(tmp_path: Path) -> None:
    file = "where:\n  - features * blocks < 64\n  - stages < 3\nequivalent:\n  blocks: min(blocks, 3)\n"
    space = load_space(written(tmp_path, GOOD + file))
    expected = [
        row
        for row in product(features=[8, 16], blocks=[1, 3, 5], stages=[2])
        if row["features"] * row["blocks"] < 64 and row["blocks"] != 5
    ]
    assert [dict(each.axes) for each in space] == expected
    assert space.index(Architecture("drn", {"features": 8, "blocks": 5, "stages": 2})) == space.index(
        Architecture("drn", {"features": 8, "blocks": 3, "stages": 2})
    )


OWN = """\
scale: 2
families:
  mixer:
    width: {low: 16, high: 64, factor: 2}
    activation: [relu, gelu]
    bias: [true, false]
    skips: {low: 0, high: 2}
    rate: {choices: [0.1, 0.2]}
    norm: batch
  drn: {features: 8, blocks: [1, 2], stages: 1}
where: "activation == 'relu' or not bias"
"""


def test_a_family_of_ones_own_is_read_when_asked(tmp_path: Path) -> None:
    path = written(tmp_path, OWN)
    with pytest.raises(
        SpaceError, match=r":3: unknown key `families.mixer`; allowed here: drn, rcan, dual_regression"
    ):
        load_space(path)
    space = load_space(path, own_families=True)
    assert len(space) == 2 + 3 * 3 * 3 * 2
    assert space[-1] == Architecture(
        "mixer",
        {"width": 64, "activation": "gelu", "bias": False, "skips": 2, "rate": 0.2, "norm": "batch"},
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{choices: [0.1, 0.2]}", "[0.1, 0.2]", r":8: .*anything else is written .*but got \[0.1, 0.2\]"),
        ("batch", "null", r":9: .*an axis is an integer, a name, .*but got None"),
        ("== 'relu'", "== 'rleu'", r":11: `where.0`: `activation` must be compared with one of relu, gelu"),
        (
            "    norm: batch",
            "    norm: .nan",
            r":9: `families.mixer.norm`: a choice must be a finite .* but got nan",
        ),
    ],
)
def test_mistakes_in_a_family_of_ones_own_are_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        load_space(written(tmp_path, OWN.replace(old, new)), own_families=True)


TABLE = "features, blocks, stages, hash\n16, 1, 2, a\n8, 2, 1, a\n\n8, 1, 3, b\n"


def with_table(folder: Path, table: str, family: str = "table: configs.csv, canonical: hash") -> Path:
    (folder / "configs.csv").write_text(table)
    return written(folder, f"scale: 2\nfamilies:\n  drn: {{{family}}}\n")


def test_architectures_are_listed_in_a_table_or_in_place(tmp_path: Path) -> None:
    space = load_space(with_table(tmp_path, TABLE))
    assert [tuple(each.axes.values()) for each in space] == [(8, 1, 3), (8, 2, 1)]
    assert space.index(Architecture("drn", {"features": 16, "blocks": 1, "stages": 2})) == 1
    text = """\
scale: 2
families:
  drn:
    architectures:
      - {features: 16, blocks: 1, stages: 2, image_skip: true}
      - {stages: 3, features: 8, blocks: 1, image_skip: false}
  rcan: {features: 8, groups: [1, 2], blocks: 1}
where: features * blocks * stages < 32
"""
    space = load_space(written(tmp_path, text))
    assert [dict(each.axes) for each in space] == [
        {"features": 8, "blocks": 1, "stages": 3, "image_skip": False},
        {"features": 8, "groups": 1, "blocks": 1},
        {"features": 8, "groups": 2, "blocks": 1},
    ]
    with pytest.raises(SpaceError, match=r":6: `families.drn.architectures.1.stages`: .*got \[3, 4\]"):
        load_space(written(tmp_path, text.replace("stages: 3", "stages: [3, 4]")))
    with pytest.raises(SpaceError, match=r":6: unknown key `families.drn.architectures.1.stgs`"):
        load_space(written(tmp_path, text.replace("stages: 3", "stgs: 3")))
    with pytest.raises(SpaceError, match=r":6: `families.drn.architectures.1`: must name .*image_skip, as"):
        load_space(written(tmp_path, text.replace(", image_skip: false", "")))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("stages", "stags", "configs.csv:1: unknown key `stags`; allowed here: features, blocks, stages"),
        ("8, 2, 1, a", "8, 2, 1", "configs.csv:3: a row must have 4 cells, but has 3"),
        ("8, 1, 3, b", "8, , 3, b", "configs.csv:5: `blocks` must be given, but is empty"),
        ("8, 1, 3, b", "8, 0, 3, b", "configs.csv:5: `blocks`: `low >= 1` must hold, but got low=0"),
        ("8, 1, 3, b", "8, 1.5, 3, b", "configs.csv:5: `blocks`: an axis is an integer.*but got 1.5"),
        ("hash", "stages", "configs.csv:1: columns must have different names, but `stages` comes twice"),
        ("hash", "", "configs.csv:1: a column must have a name, but column 4 has none"),
        ("hash", "hsah", "configs.csv:1: unknown key `hsah`"),
        ("16, 1", '"16, 1', "configs.csv:.*a table must be valid CSV"),
        (TABLE, "", "configs.csv: a table must have a line of names and at least one row"),
    ],
)
def test_a_mistake_in_a_table_is_named_with_its_line(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    with pytest.raises(SpaceError, match=message) as caught:
        load_space(with_table(tmp_path, TABLE.replace(old, new, 1)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["../configs.csv", "/etc/passwd", "link.csv", "none.csv", "."])
def test_a_table_lies_beside_its_space_file(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "spaces"
    folder.mkdir()
    (tmp_path / "configs.csv").write_text(TABLE)
    (folder / "link.csv").symlink_to(tmp_path / "configs.csv")
    with pytest.raises(SpaceError, match=r":3: `families.drn`: a table must .*" + name.strip("./")):
        load_space(with_table(folder, TABLE, f"table: {name}, canonical: hash"))


def test_more_than_can_be_enumerated_is_refused_before_it_is(tmp_path: Path) -> None:
    text = GOOD.replace("[8, 16]", "{low: 1, high: 9999}").replace(
        "stages: 2", "stages: {low: 1, high: 9999}"
    )
    with pytest.raises(SpaceError, match=r":2: `families`: axes must span at most 10000000 .* 299940003"):
        load_space(written(tmp_path, text))


def test_a_description_adds_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = describe("heterogeneous")
    features = list(range(8, 33, 4))
    drn = product(features=features, blocks=[1, 2, 3, 4], stages=[1, 2, 3])
    rcan = product(features=features, groups=[1, 2, 3], blocks=[1, 2, 3, 4], reduction=[4, 8, 16])
    assert document["size"] == len(drn) + len(rcan)
    small = [row for row in rcan if row["groups"] * row["blocks"] <= 8]
    widths = {
        (row["features"], row["groups"], row["blocks"], max(1, row["features"] // row["reduction"]))
        for row in small
    }
    after = [document["size"]]
    for row in document["limits"]:
        assert row["leaves"] == after[-1] - row["excludes"]
        after.append(row["leaves"])
    assert after[1:3] == [len(drn) + len(small), len(drn) + len(widths)]
    assert after[3] == document["feasible"] == sum(f["architectures"] for f in document["families"].values())
    assert document["dearest"]["parameters"] <= 150_000
    assert document["share"] == document["feasible"] / document["size"]
    assert main(["space", "heterogeneous"]) == 0
    shown = capsys.readouterr().out
    assert "rcan.groups * rcan.blocks <= 8" in shown
    assert "parameters <= 150,000" in shown


def test_limits_that_leave_nothing_are_told_with_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD + "limits: {parameters: 10}\n")
    with pytest.raises(
        SpaceError, match=r"space.yaml: `limits`: .* parameters is at least \d+ and the limit 10"
    ):
        describe(str(path))


def test_a_limit_on_memory_excludes_and_is_then_forgotten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By brute force over what the trainers tell; the surrogate's columns stay those of before."""
    recipe: dict[str, Any] = {"batch_size": 2, "hr_patch": 64}
    told = {
        (features, blocks): cost.training_memory(
            "drn", 2, batch_size=2, hr_patch=64, features=features, blocks=blocks, stages=2
        )
        for features in (8, 16)
        for blocks in (1, 3, 5)
    }
    limit = sorted(told.values())[3]
    text = GOOD + f"recipe: {recipe}\n"
    free = read_space_file(written(tmp_path, text))
    limits = f"limits: {{parameters: 1e9, memory: {limit}}}\n"
    path = written(tmp_path, text + limits)
    file = read_space_file(path)
    before = priced(free.search_space(), 2, free.limits.given(), Recipe(**recipe))
    after = priced(file.search_space(), 2, file.limits.given(), Recipe(**recipe))
    left = {(each.axes["features"], each.axes["blocks"]) for each in after}
    assert left == {axes for axes, memory in told.items() if memory <= limit}
    assert len(left) == 4
    assert after.columns == before.columns
    assert set(after.costs) == {"parameters", "gmacs"}
    # a limit that excludes nothing leaves the search what it was
    generous = priced(file.search_space(), 2, {"memory": 1e12}, Recipe(**recipe))
    assert generous.fingerprint == before.fingerprint
    # a journal tells what was left, and needs no recipe
    assert priced(SearchSpace.from_document(after.to_document()), 2).fingerprint == after.fingerprint
    document = describe(str(path))
    assert document["limits"][-1] == {"limit": f"memory <= {limit:,.10g}", "excludes": 2, "leaves": 4}
    assert document["cheapest"]["memory"] == told[8, 1]
    assert main(["space", str(path)]) == 0
    assert f"{told[8, 1] / 1e6:.0f} MB in training" in capsys.readouterr().out
    with pytest.raises(SpaceError, match=r"`limits`: .* memory is at least \d\S+ and the limit 5"):
        describe(str(written(tmp_path, text + "limits: {memory: 5}\n")))
