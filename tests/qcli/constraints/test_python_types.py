"""Types of Python: the schemas that they make, and the objects that come of answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, NotRequired, TypedDict
from uuid import UUID

import pytest

from qcli.constraints.constraint import constraint
from qcli.constraints.python_types import object_of, schema_of
from qcli.errors import QcliError, UsageError


class Size(Enum):
    SMALL = 1
    LARGE = "large"


@dataclass
class Part:
    name: str
    parts: list[Part] = field(default_factory=list)


@dataclass
class Order:
    part: Part
    size: Size
    price: float
    note: str | None = None


class Place(TypedDict):
    street: str
    number: NotRequired[int]


class Model:
    """As pydantic's are."""

    def __init__(self, value):
        self.value = value

    @classmethod
    def model_json_schema(cls):
        numbers = {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}  # as of a set
        return {"type": "object", "properties": {"a": numbers}, "required": ["a"]}

    @classmethod
    def model_validate(cls, value):
        return cls(value)


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (int, 3, 3),
        (int, 3.0, 3),
        (float, 3, 3.0),
        (None, None, None),
        (Any, {"a": [1]}, {"a": [1]}),
        (str | int, "a", "a"),
        (Literal["a", 2], 2, 2),
        (Size, "large", Size.LARGE),
        (list[int], [1, 2], [1, 2]),
        (tuple[int, str], [1, "a"], (1, "a")),
        (dict[str, float], {"a": 1}, {"a": 1.0}),
        (tuple[int, ...], [1, 2, 1], (1, 2, 1)),
        (set[str], ["a", "b", "a"], {"a", "b"}),
        (date, "2024-03-05", date(2024, 3, 5)),
        (datetime, "2024-03-05T12:00:00Z", datetime(2024, 3, 5, 12, tzinfo=UTC)),
        (Decimal, 0.5, Decimal("0.5")),
        (UUID, str(UUID(int=7)), UUID(int=7)),
        (Annotated[bool, "whether"], True, True),
        (Place, {"street": "Elm"}, {"street": "Elm"}),
        (Part, {"name": "a", "parts": [{"name": "b"}]}, Part("a", [Part("b")])),
        (
            Order,
            {"part": {"name": "a"}, "size": 1, "price": 2, "note": None},
            Order(Part("a"), Size.SMALL, 2.0),
        ),
    ],
)
def test_there_and_back(kind, value, expected):
    assert constraint(schema=kind if kind is not None else {"type": "null"}).is_json
    assert object_of(kind, value) == expected
    assert type(object_of(kind, value)) is type(expected)


def test_what_has_no_default_is_required():
    shared = schema_of(Order)["$defs"]
    assert shared["Order"]["required"] == ["part", "size", "price"]
    assert shared["Order"]["additionalProperties"] is False
    assert shared["Part"]["properties"]["parts"]["items"] == {"$ref": "#/$defs/Part"}
    assert schema_of(Place)["$defs"]["Place"]["required"] == ["street"]


def test_models_that_make_a_schema_themselves():
    assert constraint(schema=Model).is_json
    assert object_of(Model, {"a": [1]}).value == {"a": [1]}


@pytest.mark.parametrize("kind", [complex, dict[int, str], bytes, object()])
def test_types_without_json(kind):
    with pytest.raises(UsageError, match="has no JSON"):
        schema_of(kind)


@pytest.mark.parametrize(
    ("kind", "value"),
    [(int, "a"), (int, True), (Size, "tiny"), (list[int], ["a"]), (Part, {}), (str | None, 1), (date, "2024-02-31")],
)
def test_values_of_another_type(kind, value):
    with pytest.raises(QcliError, match="the answer is no"):
        object_of(kind, value)
