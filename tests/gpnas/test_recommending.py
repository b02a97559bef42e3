"""Recommendations are the posterior's of the shipped table, in hours that a training then takes."""

import json

import pytest
from scipy.stats import kendalltau

from gpnas import Engine, SpaceError
from gpnas.cli import main
from gpnas.config import find_space, read_space_file
from gpnas.results import recommending
from gpnas.results.recommending import recommend
from gpnas.run.pricing import priced
from gpnas.run.shipped import shipped_source, shipped_trainings


def test_the_shipped_table_has_drns_of_the_shipped_space_once_each() -> None:
    """All that have at least 8 features; since it was made, the space begins at 4."""
    trainings = shipped_trainings(2)
    space = read_space_file(find_space("drn.yaml")).search_space()
    trained = [each.architecture for each in trainings]
    assert len(trained) == len(set(trained))
    assert set(trained) == {each for each in space if int(each.axes["features"]) >= 8}
    assert {each.steps for each in trainings} == {300}
    # a dearer network takes longer: rank correlation with its weights, counted elsewhere
    costs = priced(space, 2).costs["parameters"]
    dear = [float(costs[space.index(each.architecture)]) for each in trainings]
    assert kendalltau(dear, [each.seconds for each in trainings]).statistic > 0.6


def test_a_search_from_the_table_begins_with_its_best() -> None:
    source = shipped_source(2)
    space = priced(read_space_file(find_space("drn.yaml")).search_space(), 2)
    (first,) = Engine(space, trials=4, sources=[source]).suggest(1)
    own = source.values[source.architectures.index(first.architecture)]
    better = sum(value > own for value in source.values)
    assert better < len(source.values) / 8


def test_what_is_recommended_fits_into_the_hours_and_takes_as_long_as_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recommending, "_speed", lambda *_: 2.0)
    assert main(["recommend", "--hours", "0.1", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    rows = document["architectures"]
    assert 0.05 < sum(row["hours"] for row in rows) <= 0.1
    told = {str(each.architecture.to_json()["axes"]): each.seconds for each in shipped_trainings(2)}
    for row in rows:
        # each was measured once; machines are never equally busy
        assert row["hours"] * 3600 / 2 == pytest.approx(told[str(row["architecture"]["axes"])], rel=0.5)
        assert row["low"] < row["mean"] < row["high"]
    means = [row["mean"] for row in rows]
    assert means == sorted(means, reverse=True)
    with pytest.raises(SpaceError, match="must be enough for one training"):
        recommend(None, 1e-6, 2)
    with pytest.raises(SpaceError, match="finished trainings ship for ×2"):
        recommend(None, 1.0, 4)
