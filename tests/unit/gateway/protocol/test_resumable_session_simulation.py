"""A resumable session over many connections, with a client and a worker by the rules: whatever is cut, lost, repeated
or reordered, every input is applied and every output received exactly once and in order."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.sampling import examples
from tests.support.simulated_network import STEPS, ReferenceWorker, SimulatedNetwork, Steps, run_steps


@settings(max_examples=examples(1000), deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 9)), min_size=20, max_size=200),
    st.booleans(),
    st.booleans(),
)
def test_resumable_session_over_many_connections_loses_nothing(steps: Steps, early: bool, leave: bool) -> None:
    run_steps(SimulatedNetwork(ReferenceWorker()), steps, early=early, leave=leave)
