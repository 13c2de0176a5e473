"""Wrong inputs are refused, change nothing and raise nothing. `python -m tests.fuzz` tries more of them."""

from random import Random

import pytest

from tests.fuzz.inputs import TARGETS, fuzz
from tests.support.sampling import examples


@pytest.mark.parametrize("name", TARGETS)
def test_fuzzed_inputs_have_the_outcomes_of_refused_ones(name: str, pytestconfig: pytest.Config) -> None:
    outcomes = fuzz(TARGETS[name](), pytestconfig.option.seed, 0, examples(3000))
    print(outcomes)
    assert len(outcomes) > 5, "the fuzzer makes too few kinds of inputs"


def test_failing_input_is_named_so_that_it_can_be_repeated() -> None:
    class Broken:
        name = "broken"

        def check(self, rng: Random) -> str:
            if rng.randrange(10) == 3:
                raise ValueError("wrong")
            return "right"

    with pytest.raises(AssertionError, match=r"broken, seed 1, input \d+: ValueError\('wrong'\)") as failed:
        fuzz(Broken(), 1, 0, 1000)
    number = int(str(failed.value).split("input ")[1].split(":")[0])
    with pytest.raises(AssertionError):
        fuzz(Broken(), 1, number, 1)
