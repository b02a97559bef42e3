"""Recommendations are the posterior's of the shipped table, in hours that a training then takes."""

import json
from collections import Counter
from statistics import mean

import pytest
from scipy.stats import kendalltau

from gpnas import Engine, SpaceError
from gpnas.cli import main
from gpnas.config import find_space, read_space_file
from gpnas.records import Architecture
from gpnas.results import recommending
from gpnas.results.recommending import recommend
from gpnas.run.pricing import priced
from gpnas.run.shipped import SCALES, SPACE, shipped_source, shipped_trainings
from gpnas.space import SearchSpace


def space_of(scale: int) -> SearchSpace:
    file = read_space_file(find_space(SPACE))
    return priced(file.search_space(), scale, file.limits.given())


@pytest.mark.parametrize("scale", SCALES)
def test_a_shipped_table_has_every_family_of_its_space(scale: int) -> None:
    trainings, space = shipped_trainings(scale), space_of(scale)
    trained = [each.architecture for each in trainings]
    assert len(trained) == len(set(trained))
    assert all(each in space for each in trained)
    counts = Counter(each.family for each in trained)
    assert counts.keys() == {family.name for family in space.families}
    assert min(counts.values()) >= 5
    # of a family, a dearer network takes longer: rank correlation with its weights, counted elsewhere
    costs = space.costs["parameters"]
    correlations = []
    for name in counts:
        own = [each for each in trainings if each.architecture.family == name]
        dear = [float(costs[space.index(each.architecture)]) for each in own]
        correlations.append(kendalltau(dear, [each.seconds for each in own]).statistic)
    assert mean(correlations) > 0.6


def test_a_search_from_the_table_begins_with_its_best() -> None:
    source = shipped_source(2)
    (first,) = Engine(space_of(2), trials=4, sources=[source]).suggest(1)
    own = source.values[source.architectures.index(first.architecture)]
    better = sum(value > own for value in source.values)
    assert better < len(source.values) / 8


def test_what_is_recommended_fits_into_the_hours_and_takes_as_long_as_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recommending, "_speed", lambda *_: 2.0)
    assert main(["recommend", "--hours", "2", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    rows = document["architectures"]
    assert 1.9 < sum(row["hours"] for row in rows) <= 2
    told = {each.architecture: each.seconds for each in shipped_trainings(2)}
    trained = 0
    for row in rows:
        seconds = told.get(Architecture.from_json(row["architecture"]))
        if seconds is not None:
            # each was measured once; machines are never equally busy
            assert row["hours"] * 3600 / 2 == pytest.approx(seconds, rel=0.5)
            trained += 1
    assert trained > 20
    assert all(row["low"] < row["mean"] < row["high"] for row in rows)
    means = [row["mean"] for row in rows]
    assert means == sorted(means, reverse=True)
    with pytest.raises(SpaceError, match="must be enough for one training"):
        recommend(None, 1e-6, 2)
    with pytest.raises(SpaceError, match="finished trainings ship for ×2, ×3, ×4"):
        recommend(None, 1.0, 8)
