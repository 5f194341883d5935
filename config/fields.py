"""The types of single settings: how each is read, how it is written again, and what a JSON Schema says of it."""

from hashlib import blake2s
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, PlainSerializer, PlainValidator, SecretStr, WithJsonSchema

from config import parsing
from config.hours import DAYS_PATTERN, HOURS_PATTERN, days_text, hours_text, parse_days, parse_hours, parse_zone
from config.problems import suggestion
from config.units import (
    SHARE_PATTERN,
    SIZE_PATTERN,
    TIME_PATTERN,
    Allowance,
    allowance_text,
    duration_text,
    parse_allowance,
    parse_duration,
    parse_share,
    parse_size,
    share_text,
    size_text,
)

# What a hidden value is written as begins so; the rest tells two values apart, and not what they are.
HIDDEN_MARK = "hidden:"


def hidden(value: SecretStr | str) -> str:
    """Return what stands for a value that must not be shown: the same text for the same value alone."""
    text = value if isinstance(value, str) else value.get_secret_value()
    return HIDDEN_MARK + blake2s(text.encode(errors="surrogateescape"), digest_size=8, person=b"warmgate").hexdigest()


def whole(minimum: int, maximum: int = 10**9) -> PlainValidator:
    """Return a validator of whole numbers from `minimum` to `maximum`."""

    def parse(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
            raise ValueError(f"is not a whole number ≥ {minimum}")
        if value > maximum:
            raise ValueError(f"is not a whole number ≤ {maximum}")
        return value

    return PlainValidator(parse, json_schema_input_type=Annotated[int, Field(ge=minimum, le=maximum)])


def size_from(minimum: str) -> PlainValidator:
    """Return a validator of sizes of at least `minimum`, such as `1KiB`."""

    def parse(value: object) -> int:
        size_bytes = parse_size(value)
        if size_bytes < parse_size(minimum):
            raise ValueError(f"is less than {minimum}")
        return size_bytes

    return PlainValidator(parse, json_schema_input_type=_text_or_zero(SIZE_PATTERN, minimum))


def duration_from(minimum: str) -> PlainValidator:
    """Return a validator of times of at least `minimum`, such as `1s`."""

    def parse(value: object) -> float:
        duration_s = parse_duration(value)
        if duration_s < parse_duration(minimum):
            raise ValueError(f"is less than {minimum}")
        return duration_s

    return PlainValidator(parse, json_schema_input_type=_text_or_zero(TIME_PATTERN, minimum))


def one_of(*words: str) -> PlainValidator:
    """Return a validator of one of these words."""

    def parse(value: object) -> str:
        if not isinstance(value, str) or value not in words:
            near = suggestion(value, words) if isinstance(value, str) else ""
            raise ValueError(f"is not one of {', '.join(words)}{near}")
        return value

    return PlainValidator(parse, json_schema_input_type=Annotated[str, Field(json_schema_extra={"enum": [*words]})])


def exactly_one(*keys: str) -> dict[str, JsonValue]:
    """Return what a JSON Schema says of a section that has exactly one of these keys."""
    return {"oneOf": [{"required": [key]} for key in keys]}


def _text_or_zero(pattern: str, minimum: str) -> Any:
    """Return the type of a quantity in a JSON Schema; 0 needs no unit where it is allowed."""
    text = Annotated[str, Field(pattern=pattern)]
    return text | Literal[0] if minimum.startswith("0") else text


def _schema(**keywords: Any) -> WithJsonSchema:
    return WithJsonSchema(keywords)


def _keep_warm_text(duration_s: float | None) -> str:
    return "predict" if duration_s is None else duration_text(duration_s)


_TEXT = _schema(type="string", minLength=1)
_NAME_PATTERN = rf"^{parsing.NAME}$"
_INDICES: dict[str, Any] = {
    "type": "array",
    "items": {"type": "integer", "minimum": 0},
    "minItems": 1,
    "uniqueItems": True,
}
_MEMORY: list[dict[str, Any]] = [
    {"type": "string", "pattern": SIZE_PATTERN},
    {"type": "string", "pattern": SHARE_PATTERN},
    {"const": 0},
]
_ONE_DAY: dict[str, Any] = {"type": "string", "pattern": DAYS_PATTERN}
_THRESHOLD: dict[str, Any] = {"type": "number", "exclusiveMinimum": 0, "maximum": 1}

Size = Annotated[int, PlainSerializer(size_text)]
Duration = Annotated[float, PlainSerializer(duration_text)]
Listen = Annotated[
    parsing.ListenAddress,
    PlainValidator(parsing.parse_listen),
    PlainSerializer(str),
    _schema(type="string", pattern=r"^.+:[0-9]{1,5}$"),
]
Gpus = Annotated[
    Literal["none", "all"] | tuple[int, ...],
    PlainValidator(parsing.parse_gpus),
    _schema(anyOf=[{"enum": ["none", "all"]}, _INDICES]),
]
KeepWarm = Annotated[
    float | None,
    PlainValidator(parsing.parse_keep_warm),
    PlainSerializer(_keep_warm_text),
    _schema(anyOf=[{"type": "string", "pattern": TIME_PATTERN}, {"enum": ["predict", 0]}]),
]
Days = Annotated[
    tuple[int, ...],
    PlainValidator(parse_days),
    PlainSerializer(days_text),
    _schema(anyOf=[_ONE_DAY, {"type": "array", "items": _ONE_DAY, "minItems": 1}]),
]
Hours = Annotated[
    tuple[int, int],
    PlainValidator(parse_hours),
    PlainSerializer(hours_text),
    _schema(type="string", pattern=HOURS_PATTERN),
]
Zone = Annotated[str, PlainValidator(parse_zone), _TEXT]
Memory = Annotated[Allowance, PlainValidator(parse_allowance), PlainSerializer(allowance_text), _schema(anyOf=_MEMORY)]
Threshold = Annotated[float, PlainValidator(parsing.parse_threshold), WithJsonSchema(_THRESHOLD)]
Share = Annotated[
    float, PlainValidator(parse_share), PlainSerializer(share_text), _schema(type="string", pattern=SHARE_PATTERN)
]
Switch = Annotated[bool, PlainValidator(parsing.parse_switch), _schema(type="boolean")]
Url = Annotated[str, PlainValidator(parsing.parse_url), _schema(type="string", pattern="^https?://[^@?#]+$")]
UrlPath = Annotated[str, PlainValidator(parsing.parse_url_path), _schema(type="string", pattern="^/[!-~]*$")]
CommandLine = Annotated[str, PlainValidator(parsing.parse_command), _schema(type="string", pattern=r"\{port\}")]
Digest = Annotated[
    str,
    PlainValidator(parsing.parse_digest),
    PlainSerializer(hidden),
    _schema(type="string", pattern="^[0-9A-Fa-f]{64}$"),
]
HostName = Annotated[str, PlainValidator(parsing.parse_host), _schema(type="string", pattern=f"^{parsing.HOST_NAME}$")]
FilePath = Annotated[Path, PlainValidator(parsing.parse_path), PlainSerializer(str), _TEXT]
Name = Annotated[str, PlainValidator(parsing.parse_name), _schema(type="string", pattern=_NAME_PATTERN)]
NameOrAny = Annotated[
    str,
    PlainValidator(parsing.parse_name_or_any),
    _schema(anyOf=[{"const": "*"}, {"type": "string", "pattern": _NAME_PATTERN}]),
]
Text = Annotated[str, PlainValidator(parsing.parse_text), _TEXT]
Variable = Annotated[
    str, PlainValidator(parsing.parse_variable), _schema(type="string", pattern=f"^{parsing.VARIABLE}$")
]
Secret = Annotated[SecretStr, PlainValidator(parsing.parse_secret), PlainSerializer(hidden), _TEXT]
SharedUrl = Annotated[
    SecretStr,
    PlainValidator(parsing.parse_shared_url),
    PlainSerializer(hidden),
    _schema(type="string", pattern="^(rediss?://.+|unix:/.+)$"),
]
