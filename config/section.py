"""A mapping of the file, as a class of settings. Knows no key."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A mapping of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
