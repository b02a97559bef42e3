"""Shares of one Ray: fair whoever comes and goes, and given back by whoever dies."""

import os
import signal
import time
from contextlib import closing
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from gpnas.run.shares import Share, fair, wanted


@given(st.integers(0, 40), st.lists(st.integers(0, 12), min_size=1, max_size=7), st.integers(0, 100))
def test_shares_are_max_min_fair(room: int, wants: list[int], turn: int) -> None:
    """Whoever gets less than it wants gets at most one less than anyone else, and nothing is left over."""
    shares = fair(room, wants, turn)
    assert all(0 <= share <= want for share, want in zip(shares, wants, strict=True))
    assert sum(shares) == min(room, sum(wants))
    unsatisfied = [share for share, want in zip(shares, wants, strict=True) if share < want]
    assert all(max(shares) - share <= 1 for share in unsatisfied)


def test_what_is_left_over_goes_round() -> None:
    got = [fair(2, [4, 4, 4], turn) for turn in range(3)]
    assert [sum(each) for each in zip(*got, strict=True)] == [2, 2, 2]


def test_shares_change_as_searches_come_and_die(tmp_path: Path) -> None:
    with closing(Share(tmp_path, 8)) as own:
        assert own.allowed(4) == 4
        child = os.fork()
        if child == 0:
            Share(tmp_path, 8)
            signal.pause()
        while len(wanted(tmp_path)) < 2:
            time.sleep(0.01)
        own._looked = float("-inf")
        assert own.allowed(4) == 2
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        own._looked = float("-inf")
        assert own.allowed(4) == 4
    assert wanted(tmp_path) == {}


def test_a_share_is_seen_however_often_others_look_meanwhile(tmp_path: Path) -> None:
    """Others remove what nobody holds, but never what is being made."""
    child = os.fork()
    if child == 0:
        while True:
            wanted(tmp_path)
    try:
        for _ in range(1_000):
            with closing(Share(tmp_path, 1)) as share:
                assert wanted(tmp_path) == {share._name: 1}
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
