"""Plain values: what is hoped for is given as it is, and nothing raises."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventflow.plain import as_list, as_mapping, as_number, as_sent, as_text

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(VALUES)
def test_values_when_of_any_kind(value: Any) -> None:
    """What is of the kind that is asked for is given itself; everything else is an empty one, and never an error."""
    assert as_mapping(value) is value if isinstance(value, dict) else as_mapping(value) == {}
    assert as_list(value) is value if isinstance(value, list) else as_list(value) == []
    assert as_text(value) is value if isinstance(value, str) else as_text(value) == ""
    number = as_number(value)
    assert number is None or (type(number) is int and number == int(value))
    assert number is not None or not isinstance(value, int)


def test_list_when_it_is_a_tuple() -> None:
    """A caller's tuple is as good as a list."""
    assert as_list((1, "two")) == [1, "two"]
    assert as_list(()) == []


@pytest.mark.parametrize(
    ("value", "number"), [(3, 3), (3.9, 3), (-3.9, -3), (float("inf"), None), (float("nan"), None), ("3", None)]
)
def test_number_when_it_is_no_integer(value: Any, number: int | None) -> None:
    """Some servers count in floats; what is behind the point is cut off, and what is not finite is no number."""
    assert as_number(value) == number


class Model:
    """As pydantic's."""

    def model_dump(self, **options: Any) -> dict[str, Any]:
        """Show how it was asked."""
        return options


def test_objects_when_they_are_to_be_sent() -> None:
    """A mapping is an object of JSON, and so is what pydantic makes of its own: by alias, and what was set."""
    assert as_sent(MappingProxyType({"a": 1})) == {"a": 1}
    assert as_sent(Model()) == {"mode": "json", "by_alias": True, "exclude_unset": True, "warnings": False}
    with pytest.raises(TypeError, match="an object of type complex cannot be sent"):
        as_sent(1j)
