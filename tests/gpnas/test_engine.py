"""The engine: deterministic, resumable, never repeating, and better than chance."""

import math
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from botorch import fit_gpytorch_mll
from botorch.acquisition import (
    AcquisitionFunction,
    UpperConfidenceBound,
    qKnowledgeGradient,
    qLogExpectedImprovement,
    qLogNoisyExpectedImprovement,
)
from botorch.models import SingleTaskGP
from botorch.models.model import Model
from gpytorch.mlls import ExactMarginalLogLikelihood
from torch import Tensor

from gpnas import Architecture, Engine, Observation, SearchSpace
from gpnas.engine import AcquisitionMaker, Known
from gpnas.errors import SpaceError
from gpnas.records import STRATEGIES, Candidate, Fidelity, Source, Stop
from gpnas.space import Family, IntegerAxis

SPACE = SearchSpace(
    [
        Family(
            "net",
            (
                IntegerAxis("features", tuple(range(8, 72, 8))),
                IntegerAxis("blocks", tuple(range(1, 7))),
                IntegerAxis("stages", (1, 2, 3)),
            ),
        )
    ]
).with_costs(lambda a: {"parameters": float(a.axes["features"]) ** 2 * float(a.axes["blocks"])})


def objective(architecture: Architecture) -> float:
    """Best inside the space: more features help, too much depth hurts."""
    features, blocks, stages = (float(architecture.axes[name]) for name in ("features", "blocks", "stages"))
    return 30 + math.log(features) - 0.1 * (blocks - 3) ** 2 - 0.05 * (stages - 2) ** 2


def run(engine: Engine, trials: int, workers: int = 1) -> list[Candidate]:
    asked: list[Candidate] = []
    waiting: list[Candidate] = []
    while len(asked) < trials:
        new = engine.suggest(min(workers - len(waiting), trials - len(asked)))
        asked += new
        waiting += new
        if not waiting:
            break
        done = waiting.pop(0)
        engine.observe(Observation(done, objective(done.architecture)))
    return asked


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_same_history_gives_the_same_suggestions(strategy: str) -> None:
    first, second = (run(Engine(SPACE, seed=3, strategy=strategy, trials=10), 10) for _ in range(2))
    assert [(c.id, c.architecture, c.seed) for c in first] == [(c.id, c.architecture, c.seed) for c in second]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_resumed_engine_goes_on_as_the_uninterrupted_one(strategy: str) -> None:
    whole = Engine(SPACE, seed=1, strategy=strategy, trials=12)
    asked = run(whole, 12, workers=2)
    for cut in (1, 4, 9):
        resumed = Engine(SPACE, seed=1, strategy=strategy, trials=12)
        # with two workers, observation i arrives before suggestion i + 2
        observed = asked[: cut - 1]
        resumed.replay(asked[:cut], [Observation(c, objective(c.architecture)) for c in observed])
        assert resumed.suggest(1)[0].architecture == asked[cut].architecture


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_only_the_knowledge_gradient_repeats_and_an_exhausted_space_ends(strategy: str) -> None:
    space = SearchSpace([Family("f", (IntegerAxis("a", (1, 2, 3)), IntegerAxis("b", (1, 2))))])
    engine = Engine(space, strategy=strategy, trials=20)
    asked = engine.suggest(4)
    for candidate in asked:
        engine.observe(Observation(candidate, float(candidate.architecture.axes["a"])))
    while new := engine.suggest(2):
        asked += new
        for candidate in new:
            engine.observe(Observation(candidate, float(candidate.architecture.axes["a"])))
        assert len(asked) < 100
    assert {candidate.architecture for candidate in asked} == set(space)
    again = [candidate for candidate in asked if candidate.decision.get("replicate")]
    assert len(asked) - len(again) == len(space)
    assert strategy == "mi+kg" or not again


def test_the_search_finds_the_best_where_chance_does_not() -> None:
    best = max(objective(architecture) for architecture in SPACE)

    def regret(strategy: str) -> float:
        losses = []
        for seed in range(3):
            asked = run(Engine(SPACE, seed=seed, strategy=strategy, trials=20), 20)
            losses.append(best - max(objective(candidate.architecture) for candidate in asked))
        return sorted(losses)[1]

    assert max(regret("mi+kg"), regret("mi+nei")) < 0.01 < regret("random")


def other_scale(shift: float) -> Source:
    """A search of the same axes whose objective lies elsewhere, in another unit."""
    chosen = random.Random(0).sample(range(len(SPACE)), 40)
    values = tuple(25 + 3 * (objective(SPACE[index]) + shift) for index in chosen)
    return Source("×3", tuple(SPACE[index] for index in chosen), values)


def test_a_related_search_points_at_the_best_from_the_first_trial_on() -> None:
    best = max(objective(architecture) for architecture in SPACE)
    asked = run(Engine(SPACE, trials=20, sources=[other_scale(-5)]), 4)
    assert asked[0].decision["phase"] == "sources"
    assert best - objective(asked[0].architecture) < 0.3
    assert best - max(objective(candidate.architecture) for candidate in asked) < 0.06
    resumed = Engine(SPACE, trials=20, sources=[other_scale(-5)])
    resumed.replay(asked[:3], [Observation(c, objective(c.architecture)) for c in asked[:3]])
    assert resumed.suggest(1)[0].architecture == asked[3].architecture


def test_a_source_of_other_architectures_is_refused() -> None:
    foreign = Source("other", (Architecture("net", {"features": 1, "blocks": 1, "stages": 1}),), (30.0,))
    with pytest.raises(SpaceError, match="but other has none of its 1"):
        Engine(SPACE, sources=[foreign])


def test_a_cost_aware_search_spends_less_and_finds_as_much() -> None:
    def seconds(architecture: Architecture) -> float:
        return float(architecture.axes["features"]) * float(architecture.axes["blocks"])

    def spent(cost_aware: bool) -> tuple[float, float]:
        engine = Engine(SPACE, trials=20, cost_aware=cost_aware)
        total, found = 0.0, []
        for _ in range(20):
            (candidate,) = engine.suggest(1)
            architecture = candidate.architecture
            found.append(objective(architecture))
            total += seconds(architecture)
            engine.observe(Observation(candidate, found[-1], seconds=seconds(architecture)))
        return total, max(found)

    (dear, _), (cheap, found) = spent(False), spent(True)
    assert cheap < 0.8 * dear
    assert max(objective(architecture) for architecture in SPACE) - found < 0.1


def test_a_noisy_leader_is_trained_again_with_another_seed() -> None:
    """Where noise drowns the differences, what is trained already is worth another look."""
    engine = Engine(SPACE, seed=0, trials=24)
    generator = random.Random(0)
    asked = []
    for _ in range(24):
        (candidate,) = engine.suggest(1)
        asked.append(candidate)
        engine.observe(Observation(candidate, objective(candidate.architecture) + generator.gauss(0, 2)))
    again = [candidate for candidate in asked if candidate.decision.get("replicate")]
    assert again
    assert len({candidate.seed for candidate in asked}) == len(asked)


def test_the_seed_matters_from_the_first_training_on() -> None:
    """Chance decides among what is equally good."""
    for trained in range(3):
        chosen = set()
        for seed in range(12):
            chosen.add(run(Engine(SPACE, seed=seed, trials=10), trained + 1)[-1].architecture)
        assert len(chosen) > 2


def test_the_design_follows_the_mutual_information_of_the_prior() -> None:
    from gpnas.mutual_information import gains
    from gpnas.surrogate import Surrogate

    engine = Engine(SPACE, trials=20, design=6)
    asked = engine.suggest(engine.design)
    nothing = torch.empty(0, dtype=torch.float64)
    prior = Surrogate(SPACE.features[:0], nothing, SPACE.columns)
    theta = prior.theta
    theta[:, -2] = -math.inf  # no linear part
    prior.theta = theta
    whole = prior.covar_module.forward(SPACE.features, SPACE.features)[0]
    chosen = [SPACE.index(candidate.architecture) for candidate in asked]
    for number, candidate in enumerate(asked):
        gain = gains([whole], prior.noise, chosen[:number])
        assert candidate.decision["score"] == pytest.approx(gain[chosen[number]])
        assert gain[chosen[number]] >= 0.95 * gain.max()
    assert {candidate.decision["phase"] for candidate in asked} == {"mutual information"}


def test_failures_are_learned_from_and_the_best_that_can_be_trained_is_found() -> None:
    def fails(architecture: Architecture) -> bool:
        return float(architecture.axes["features"]) >= 48

    engine = Engine(SPACE, trials=20)
    found = []
    for _ in range(20):
        (candidate,) = engine.suggest(1)
        if fails(candidate.architecture):
            engine.observe(Observation(candidate, None, "out of memory"))
        else:
            found.append(objective(candidate.architecture))
            engine.observe(Observation(candidate, found[-1]))
    best = max(objective(architecture) for architecture in SPACE if not fails(architecture))
    assert best - max(found) < 0.05


def test_everything_failing_does_not_stop_the_engine() -> None:
    engine = Engine(SPACE, trials=8)
    for _ in range(8):
        (candidate,) = engine.suggest(1)
        engine.observe(Observation(candidate, None, "diverged"))
    assert engine.recommend() == []


def test_recommendations_rank_by_posterior_mean() -> None:
    engine = Engine(SPACE, trials=12)
    run(engine, 12)
    mean, stddev = engine.belief().mean, engine.belief().stddev
    ranked = [float(mean[SPACE.index(c.architecture)]) for c in engine.recommend()]
    assert ranked == sorted(ranked, reverse=True)
    assert bool((stddev > 0).all())
    assert mean.dtype == torch.float64


def test_a_space_of_one_architecture_is_a_space() -> None:
    space = SearchSpace([Family("f", (IntegerAxis("a", (4,)),))])
    engine = Engine(space)
    (candidate,) = engine.suggest(3)
    engine.observe(Observation(candidate, 30.0))
    assert engine.suggest(1) == []
    assert engine.recommend() == [candidate]


def test_large_spaces_get_a_design_too() -> None:
    axes = tuple(IntegerAxis(name, tuple(range(1, 23))) for name in "abc")
    engine = Engine(SearchSpace([Family("f", axes)]), trials=16)
    asked = engine.suggest(4)
    assert len({candidate.architecture for candidate in asked}) == 4


def test_what_breaks_a_rule_is_named() -> None:
    with pytest.raises(ValueError, match="a strategy must be one of mi"):
        Engine(SPACE, strategy="best")
    with pytest.raises(ValueError, match="`trials >= 1` must hold, but got 0"):
        Engine(SPACE, trials=0)
    engine = Engine(SPACE)
    (candidate,) = engine.suggest(1)
    engine.observe(Observation(candidate, 1.0))
    with pytest.raises(ValueError, match="observed once"):
        engine.observe(Observation(candidate, 1.0))


def test_a_stopped_training_informs_and_is_not_recommended() -> None:
    """The best of all by its prediction: the surrogate believes it, nobody is given its network."""
    engine = Engine(SPACE, seed=0, trials=20, common_seeds=True)
    candidates = engine.suggest(6)
    assert len({candidate.seed for candidate in candidates}) == 1
    for candidate in candidates[:-1]:
        engine.observe(Observation(candidate, objective(candidate.architecture)))
    last = candidates[-1]
    index = SPACE.index(last.architecture)
    before = float(engine.belief().mean[index])
    engine.observe(Observation(last, 40.0, stopped=Stop(10, 35.0, 0.1, 0.01, 3)))
    assert float(engine.belief().mean[index]) > before
    assert last not in engine.recommend()
    assert len(engine.recommend()) == 5
    # it may be trained once more, by which it can be recommended
    again = engine.suggest(1)[0]
    assert again.architecture == last.architecture
    assert again.seed != last.seed
    engine.observe(Observation(again, 40.0))
    assert engine.recommend()[0] == again


def test_the_outlook_is_the_interval_of_one_more_training() -> None:
    engine = Engine(SPACE, seed=0, strategy="random", trials=20)
    assert engine.outlook(SPACE[0]) is None
    for candidate in engine.suggest(5):
        engine.observe(Observation(candidate, objective(candidate.architecture)))
    low, high = engine.belief().low, engine.belief().high
    for index in (0, 50, 143):
        found = engine.outlook(SPACE[index])
        assert found is not None
        # fewer than 8 observations are not warped, so the interval is a normal's
        assert found[0] == pytest.approx(float(low[index] + high[index]) / 2, abs=1e-9)
        assert found[1] == pytest.approx(float(high[index] - low[index]) / 2 / 1.6448536, rel=1e-6)


def test_any_acquisition_function_of_botorch_chooses() -> None:
    """Exactly over the space: the choice is the argmax of what BoTorch computes of the engine's model."""

    def upper_bound(model: Model, known: Known) -> AcquisitionFunction:
        return UpperConfidenceBound(model, beta=4.0)

    engine = Engine(SPACE, seed=1, trials=12, acquisition=upper_bound)
    asked = run(engine, 8)
    assert asked[-1].decision["phase"] == "UpperConfidenceBound"
    values = UpperConfidenceBound(engine.model, beta=4.0)(SPACE.features[:, None])
    values[[SPACE.index(candidate.architecture) for candidate in asked]] = -math.inf
    (candidate,) = engine.suggest(1)
    assert SPACE.index(candidate.architecture) == int(values.argmax())

    def by_samples(model: Model, known: Known) -> AcquisitionFunction:
        return qLogExpectedImprovement(model, best_f=float(known.y.max()), X_pending=known.pending)

    first, second = (
        run(Engine(SPACE, seed=1, trials=12, acquisition=by_samples), 10, workers=2) for _ in range(2)
    )
    assert [c.architecture for c in first] == [c.architecture for c in second]
    best = max(objective(architecture) for architecture in SPACE)
    assert best - max(objective(candidate.architecture) for candidate in first) < 0.3


def test_baselines_with_replicates_are_scored() -> None:
    def noisy(model: Model, known: Known) -> AcquisitionFunction:
        return qLogNoisyExpectedImprovement(model, X_baseline=known.x)

    own, taught = Engine(SPACE, seed=1, trials=12), Engine(SPACE, seed=1, trials=12, acquisition=noisy)
    asked = run(own, 6)
    again = Candidate("c0006", asked[-1].architecture, Fidelity(1), 7)
    told = [Observation(each, objective(each.architecture)) for each in [*asked, again]]
    taught.replay([each.candidate for each in told], told)
    (candidate,) = taught.suggest(1)
    assert candidate.decision["phase"] == "qLogNoisyExpectedImprovement"


def test_what_cannot_choose_is_refused_in_words() -> None:
    def one_shot(model: Model, known: Known) -> AcquisitionFunction:
        return qKnowledgeGradient(model, num_fantasies=2)

    class Wrong(AcquisitionFunction):
        def __init__(self, model: Model, scores: Callable[[Tensor], Tensor]) -> None:
            super().__init__(model)
            self._scores = scores

        def forward(self, X: Tensor) -> Tensor:
            return self._scores(X)

    def wrong(scores: Callable[[Tensor], Tensor]) -> AcquisitionMaker:
        return lambda model, known: Wrong(model, scores)

    for message, make in {
        "qKnowledgeGradient optimises fantasies": one_shot,
        r"as many scores, but gave \(\d+, 1\); return a tensor of shape": wrong(lambda x: x[..., 0]),
        r"as many scores, but gave \(\)": wrong(lambda x: x.sum()),
        "the scores of Wrong must be numbers, but some are NaN": wrong(lambda x: x[:, 0, 0] * math.nan),
    }.items():
        engine = Engine(SPACE, seed=1, trials=12, design=2, acquisition=make)
        run(engine, 2)
        with pytest.raises(ValueError, match=message):
            engine.suggest(1)
    source = Source("other", (SPACE[0],), (1.0,))
    with pytest.raises(ValueError, match="`model` cannot learn from `sources`"):
        Engine(SPACE, sources=[source], model=lambda x, y: SingleTaskGP(x, y))
    with pytest.raises(ValueError, match="needs a training that succeeded, but none has"):
        Engine(SPACE, model=lambda x, y: SingleTaskGP(x, y)).belief()


def test_chance_in_a_model_of_one_s_own_is_the_seed_s() -> None:
    def fickle(x: Tensor, y: Tensor) -> Model:
        model = SingleTaskGP(x, y)
        model.covar_module.lengthscale = 0.1 + torch.rand(())
        return model

    first, second = (run(Engine(SPACE, seed=1, trials=12, model=fickle), 9) for _ in range(2))
    assert [each.architecture for each in first] == [each.architecture for each in second]


def test_any_model_of_botorch_is_believed() -> None:
    def plain(x: Tensor, y: Tensor) -> Model:
        model = SingleTaskGP(x, y)
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        return model

    engine = Engine(SPACE, seed=1, trials=12, model=plain)
    asked = run(engine, 12)
    assert asked[-1].decision["phase"] == "LogExpectedImprovement"
    best = max(objective(architecture) for architecture in SPACE)
    assert best - max(objective(candidate.architecture) for candidate in asked) < 0.1
    posterior = engine.model.posterior(SPACE.features[:, None])
    belief = engine.belief()
    torch.testing.assert_close(belief.mean, posterior.mean[:, 0, 0])
    assert bool((belief.low < belief.mean).all())
    outlook = engine.outlook(SPACE[3])
    assert outlook is not None
    assert outlook[0] == pytest.approx(float(belief.mean[3]))
    assert engine.recommend()[0] in asked


def test_beyond_two_hundred_observations_hyperparameters_change_at_few_sizes_only() -> None:
    """Whatever the order in which an engine is asked, told and made anew."""
    space = SearchSpace([Family("f", tuple(IntegerAxis(name, tuple(range(24))) for name in "ab"))])
    whole = Engine(space, seed=0, strategy="random", trials=270)
    candidates = whole.suggest(270)
    generator = random.Random(0)
    observations = [
        Observation(c, float(c.architecture.axes["a"]) + generator.gauss(0, 1)) for c in candidates
    ]
    thetas = {}
    for number, observation in enumerate(observations, 1):
        whole.observe(observation)
        if number in (201, 249, 250, 270):
            thetas[number] = whole.surrogate.theta
    assert torch.equal(thetas[201], thetas[249])
    assert not torch.equal(thetas[249], thetas[250])
    assert torch.equal(thetas[250], thetas[270])
    resumed = Engine(space, seed=0, strategy="random", trials=270)
    resumed.replay(candidates, observations)
    assert torch.equal(resumed.surrogate.theta, thetas[270])
    assert len(resumed.surrogate) == 270


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_minimising_is_maximising_the_negative(strategy: str) -> None:
    """Choices are the same, and what is believed is told in the values' own sign."""
    space = SearchSpace.from_table([{"a": a, "b": b} for a in range(6) for b in range(6)])
    up = Engine(space, seed=2, strategy=strategy, trials=8)
    down = Engine(space, seed=2, strategy=strategy, trials=8, minimise=True)
    for _ in range(8):
        (one,), (other,) = up.suggest(1), down.suggest(1)
        assert one.architecture == other.architecture
        value = float(one.architecture.axes["a"]) - 0.3 * float(one.architecture.axes["b"]) ** 2
        up.observe(Observation(one, value))
        down.observe(Observation(other, -value))
        if "mean" in one.decision:
            assert other.decision["mean"] == -one.decision["mean"]
    above, below = up.belief(), down.belief()
    assert torch.equal(above.mean, -below.mean)
    assert torch.equal(above.low, -below.high)
    assert [each.id for each in up.recommend()] == [each.id for each in down.recommend()]


def test_what_a_person_vetoes_is_not_suggested_until_it_is_wanted() -> None:
    space = SearchSpace.from_table([{"a": a} for a in range(4)])
    engine = Engine(space, trials=4)
    for place in (0, 1, 2):
        engine.allow(space[place], False)
    engine.allow(space[1], True)
    taken = [each.architecture for each in engine.suggest(4)]
    assert sorted(taken, key=str) == [space[1], space[3]]


def test_what_stopping_loses_is_that_of_draws_from_the_model() -> None:
    """Beside NumPy's draws of what BoTorch's model believes of all architectures, jointly."""

    def plain(x: Tensor, y: Tensor) -> Model:
        model = SingleTaskGP(x, y)
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        return model

    for make in (plain, None):
        engine = Engine(SPACE, seed=1, trials=12, model=make)
        run(engine, 9)
        prospect = engine.prospect()
        assert prospect is not None
        leader = engine.recommend()[0]
        assert (prospect.leader, prospect.observations) == (leader.id, 9)
        if make is None:
            moments = zip(*engine.surrogate.joint(SPACE.features), strict=True)
        else:
            posterior = engine.model.posterior(SPACE.features)
            mean, covariance = posterior.mean[:, 0], posterior.distribution.covariance_matrix
            moments = zip([mean.detach()], [covariance.detach()], strict=True)
        generator = np.random.default_rng(0)
        parts = [generator.multivariate_normal(m.numpy(), c.numpy(), 500, method="eigh") for m, c in moments]
        draws = torch.from_numpy(np.concatenate(parts))
        values = engine.surrogate.warp.inverse(draws) if make is None else draws
        lost = (values.amax(dim=1) - values[:, SPACE.index(leader.architecture)]).numpy()
        error = lost.std() / math.sqrt(500)
        assert prospect.regret == pytest.approx(lost.mean(), abs=5 * error)
        assert prospect.bound == pytest.approx(np.quantile(lost, 0.9), abs=12 * error)


def test_gpnas_own_surrogate_stands_beside_a_model_of_one_s_own() -> None:
    def constant(x: Tensor, y: Tensor) -> Model:
        return SingleTaskGP(x, y)

    own, plain = Engine(SPACE, model=constant), Engine(SPACE)
    for candidate in plain.suggest(3):
        for engine in (own, plain):
            engine.observe(Observation(candidate, objective(candidate.architecture)))
    torch.testing.assert_close(own.surrogate.theta, plain.surrogate.theta)
    assert isinstance(own.model, SingleTaskGP)


def test_suggestions_in_a_row_are_those_of_one_by_one() -> None:
    """What was believed for the one before serves for the next; who begins in the middle decides the same."""
    space = SearchSpace([Family("net", tuple(IntegerAxis(name, tuple(range(1, 13))) for name in "abc"))])
    noise = torch.Generator().manual_seed(0)
    engine = Engine(space, seed=1, trials=60)
    for _ in range(12):
        (candidate,) = engine.suggest(1)
        axes = [float(each) for each in candidate.architecture.axes.values()]
        value = -sum((each - 6) ** 2 for each in axes) / 9 + float(torch.randn(1, generator=noise)) / 3
        engine.observe(Observation(candidate, value))
    row = engine.foresee(9)
    assert {each.decision["phase"] for each in row} == {"knowledge gradient"}
    for place in (1, 4, 8):
        fresh = Engine(space, seed=1, trials=60)
        observed = list(engine._observed.values())
        fresh.replay([each.candidate for each in observed], observed)
        (alone,) = fresh.foresee(1, row[:place])
        assert alone.architecture == row[place].architecture
        assert alone.decision["score"] == pytest.approx(row[place].decision["score"], abs=1e-8)
        assert engine.foresee(1, row[:place]) == [row[place]]
