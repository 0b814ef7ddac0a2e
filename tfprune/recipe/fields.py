"""What the sections of a recipe are made of: a strict model, names that must be in a table, budgets."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, WithJsonSchema
from pydantic_core import PydanticCustomError

from tfprune.budget import parse_budget
from tfprune.errors import InputError, unknown_name


def one_of(kind: str, accepted: Collection[str]) -> Any:
    """Return the type of a name that must be in a table."""

    def check(given: str) -> str:
        if given not in accepted:
            raise PydanticCustomError("unknown_name", "{text}", {"text": str(unknown_name(kind, given, accepted))})
        return given

    return Annotated[str, AfterValidator(check), WithJsonSchema({"type": "string", "enum": list(accepted)})]


def _check_budget(given: str) -> str:
    try:
        parse_budget(given)
    except InputError as error:
        raise PydanticCustomError("budget", "{text}", {"text": str(error)}) from None
    return given


Budget = Annotated[str, AfterValidator(_check_budget)]


class Section(BaseModel):
    """A part of a recipe: frozen, without conversions, and without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
