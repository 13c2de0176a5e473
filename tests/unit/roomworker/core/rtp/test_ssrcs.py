"""SSRCs as properties of any producer's number."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roomworker.core.rtp.ssrcs import MAX_ENCODINGS, SSRC_BLOCKS, derive_ssrcs

NUMBERS = st.integers(0, SSRC_BLOCKS - 1)


@settings(deadline=None)
@given(one=NUMBERS, other=NUMBERS)
def test_ssrc_blocks_do_not_overlap(one: int, other: int) -> None:
    blocks = [derive_ssrcs(number, MAX_ENCODINGS) for number in {one, other}]
    taken = [ssrc for block in blocks for ssrc in (*block.mapped, block.consumer, block.rtx)]
    assert len(set(taken)) == len(taken)
    assert all(0 < ssrc < 2**32 for ssrc in taken)


@settings(deadline=None)
@given(number=NUMBERS, encodings=st.integers(0, MAX_ENCODINGS))
def test_ssrcs_do_not_depend_on_the_number_of_encodings(number: int, encodings: int) -> None:
    every = derive_ssrcs(number, MAX_ENCODINGS)
    some = derive_ssrcs(number, encodings)
    assert some == (every.mapped[:encodings], every.consumer, every.rtx)


@pytest.mark.parametrize(("number", "encodings"), [(-1, 1), (SSRC_BLOCKS, 1), (0, 17), (0, -1)])
def test_number_beyond_the_range_has_no_ssrcs(number: int, encodings: int) -> None:
    with pytest.raises(ValueError, match="no SSRCs"):
        derive_ssrcs(number, encodings)
