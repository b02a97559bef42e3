"""Records check themselves, travel between processes and survive being written."""

import pickle
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpnas import Architecture, Candidate, Fidelity, Observation, Portfolio
from gpnas.records import Stop

names = st.text(min_size=1, max_size=8)
values = st.one_of(st.integers(), st.booleans(), st.text(max_size=5))
architectures = st.builds(Architecture, names, st.dictionaries(names, values, max_size=4))


@given(architectures)
def test_architectures_survive_pickle_and_json(architecture: Architecture) -> None:
    assert pickle.loads(pickle.dumps(architecture)) == architecture
    assert Architecture.from_json(architecture.to_json()) == architecture
    assert hash(Architecture.from_json(architecture.to_json())) == hash(architecture)


def test_what_a_record_holds_cannot_be_changed_from_outside() -> None:
    axes = {"features": 8}
    architecture = Architecture("drn", axes)
    axes["features"] = 16
    assert architecture.axes["features"] == 8
    with pytest.raises(TypeError):
        architecture.axes["features"] = 16  # type: ignore[index]


def test_records_refuse_what_breaks_their_rule() -> None:
    candidate = Candidate("c0000", Architecture("drn", {}), Fidelity(1), 0)
    with pytest.raises(ValueError, match=r"`steps >= 1` must hold, but got steps=0"):
        Fidelity(0)
    with pytest.raises(ValueError, match="either a value or a failure"):
        Observation(candidate, None)
    with pytest.raises(ValueError, match="must have a predicted value, but got value=None"):
        Observation(candidate, None, "why", stopped=Stop(1, 20.0, 0.1, 0.0, 3))
    with pytest.raises(ValueError, match=r"`0 <= chance <= 1` must hold, but got 1.5"):
        Stop(1, 20.0, 0.1, 1.5, 3)
    with pytest.raises(ValueError, match=r"`stddev >= 0`, but got value=20.0, stddev=-1"):
        Stop(1, 20.0, -1, 0.5, 3)
    with pytest.raises(ValueError, match="must be finite, but got nan"):
        Observation(candidate, float("nan"))
    with pytest.raises(ValueError, match="at least one member"):
        Portfolio((), (), 30.0)


def test_importing_gpnas_loads_neither_ray_nor_gpytorch() -> None:
    """Every Ray worker pays for what the package loads."""
    code = "import sys, gpnas; print([m for m in ('ray', 'gpytorch', 'botorch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_worker_loads_neither_the_engine_nor_gpytorch() -> None:
    code = (
        "import sys, gpnas.dispatch.trial;"
        "print([m for m in ('gpnas.engine', 'gpytorch', 'botorch', 'sqlite3') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_stop_says_why() -> None:
    assert str(Stop(100, 27.5, 0.1, 0.0123, 3)) == "stopped at step 100: P(among best 3) = 0.012"
    assert str(Stop(100, 27.5, 0.1, 0.0, 1)) == "stopped at step 100: P(is best) = 0"
