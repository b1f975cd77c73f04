"""What the exemplars share: a run that can be stopped anywhere, and a state that went through a file."""

import numpy as np
import pytest

from dfo.encodings import Identity
from dfo.random import Key
from dfo.run.loop import Loop, lanes_of
from dfo.run.packing import load, save
from dfo.run.session import Session
from dfo.run.stopping import MaxSteps
from dfo.spaces import Free


@pytest.fixture
def begin():
    """``begin(solver, oracle, x0)`` is a run in its first moment; its ``session.stop`` may be moved on and on."""

    def loop(solver, oracle, x0, steps=None, budget=10**7, seed=0):
        space = Free(np.size(x0)) if isinstance(x0, np.ndarray) else Free(sum(map(np.size, x0.values())))
        stop = None if steps is None else MaxSteps(steps)
        session = Session(oracle, Identity(space, x0), budget, stop, key=Key(seed, ("oracle",)), lanes=lanes_of(solver))
        return Loop(solver, session, x0, Key(seed, ("solver",)))

    return loop


@pytest.fixture
def reloaded(tmp_path):
    """``reloaded(state)`` has been on disk: whatever a file cannot hold is gone."""

    def round_trip(state):
        save(tmp_path / "state.npz", state)
        return load(tmp_path / "state.npz")

    return round_trip
