"""43 CORINE classes to 19, by the documented indices."""

import pytest

from sar_mixmae_jax.data.bigearthnet import CLASSES_19, GROUP_OF_43, to_19
from sar_mixmae_jax.utils.errors import InputError

DOCUMENTED = {
    0: (0, 1), 1: (2,), 2: (11, 12, 13), 3: (14, 15, 16, 18), 4: (17,), 5: (19,), 6: (20,),
    7: (21,), 8: (22,), 9: (23,), 10: (24,), 11: (25, 31), 12: (26, 27), 13: (28,), 14: (29,),
    15: (33, 34), 16: (35, 36), 17: (38, 39), 18: (40, 41, 42),
}  # fmt: skip


def test_groups_are_the_documented_ones():
    assert len(CLASSES_19) == 19
    assert len(GROUP_OF_43) == 43
    groups = list(GROUP_OF_43.values())
    assert {
        group: tuple(index for index, other in enumerate(groups) if other == group)
        for group in range(19)
    } == DOCUMENTED


def test_names():
    corine = ["Sea and ocean", "Salines", "Airports", "Estuaries"]
    assert to_19(corine) == ["Coastal wetlands", "Marine waters"]


def test_unknown_name_is_refused_with_a_suggestion():
    with pytest.raises(InputError, match="did you mean 'Sea and ocean'"):
        to_19(["Sea and oceans"])
