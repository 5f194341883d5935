"""Every setting, with its type, default and meaning. Knows nothing of YAML, nor of what the settings drive.

An attribute carries its unit (`ttl_s`); its alias is the key of the file (`ttl`), where the value has the unit.
Relative paths are kept as they are written, and so count from the working directory.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, get_args, get_origin

from pydantic import ConfigDict, Field
from pydantic.fields import FieldInfo

from config.caching import CacheSettings, RouteCacheSettings
from config.fields import (
    CommandLine,
    Days,
    Digest,
    Duration,
    FilePath,
    Gpus,
    HostName,
    Hours,
    KeepWarm,
    Listen,
    Memory,
    Name,
    NameOrAny,
    Secret,
    Size,
    Switch,
    Text,
    Url,
    UrlPath,
    Variable,
    Zone,
    duration_from,
    exactly_one,
    one_of,
    size_from,
    whole,
)
from config.parsing import ListenAddress
from config.section import Section
from config.units import Allowance

Task = Literal["chat", "completion", "embed", "predict", "infer", "relay"]
Api = Literal["openai", "anthropic"]

MIB = 2**20


class KeySettings(Section):
    """A key that clients may call with."""

    name: Name = Field(description="Its tenant in the caches: what one key was answered is never served to another.")
    sha256: Digest = Field(description="SHA-256 digest of the key, in hexadecimal: the key itself is written nowhere.")
    models: tuple[NameOrAny, ...] = Field(
        default=("*",), description="Models and routes that the key may call; `*` stands for all."
    )
    requests_per_minute: Annotated[int, whole(1)] | None = Field(
        default=None, description="Requests that it may send in a minute. Left out: as many as it likes."
    )
    tokens_per_minute: Annotated[int, whole(1)] | None = Field(
        default=None, description="Tokens that its requests and their answers may take in a minute. Left out: any."
    )
    concurrency: Annotated[int, whole(1)] | None = Field(
        default=None, description="Requests that it may have in flight at a time. Left out: as many as it likes."
    )


class TlsSettings(Section):
    """The files that clients over HTTPS are answered with."""

    certificate: FilePath = Field(description="PEM file with the certificate, and those between it and its authority.")
    key: FilePath = Field(description="PEM file with the certificate's private key, without a password.")


class ServerSettings(Section):
    """Where and how the gateway answers."""

    listen: Listen = Field(
        default=ListenAddress("127.0.0.1", 8080),
        description="Address and port; port 0 takes any free one. IPv6 in brackets: `[::1]:8080`.",
    )
    hosts: tuple[HostName, ...] = Field(
        default=(),
        description="Names, without port, that clients on this machine reach it by, besides `localhost`, that of"
        " `listen`, and addresses: with any other in `Host`, `/admin` refuses them, and without `keys` all does.",
    )
    grpc: Listen | None = Field(
        default=None, description="Address and port of the Open Inference Protocol over gRPC. Left out: off."
    )
    tls: TlsSettings | None = Field(default=None, description="HTTPS, and TLS for gRPC. Left out: without encryption.")
    max_body_bytes: Annotated[Size, size_from("1KiB")] = Field(
        default=32 * MIB, alias="max_body", description="The largest request body that is read."
    )
    max_connections: Annotated[int, whole(1)] = Field(
        default=4096, description="Clients that may be connected over HTTP at a time; who comes then is told 503."
    )
    request_timeout_s: Annotated[Duration, duration_from("100ms")] = Field(
        default=600.0, alias="request_timeout", description="The longest that a request may take, its stream included."
    )
    shutdown_timeout_s: Annotated[Duration, duration_from("0s")] = Field(
        default=30.0, alias="shutdown_timeout", description="How long a stop waits for the requests in flight."
    )
    access_log: FilePath | None = Field(
        default=None,
        description="File that gets one JSON line for each request to a model or route, with neither its text nor its"
        " key. Left out: none.",
    )
    keys: tuple[KeySettings, ...] = Field(
        default=(), description="Keys of the clients. None: only callers on this machine (loopback) are served."
    )


class DeviceSettings(Section):
    """What the models may use of this machine."""

    gpus: Gpus = Field(default="none", description="`none`, `all`, or a list of device indices such as `[0, 1]`.")
    gpu_memory: Memory = Field(
        default=Allowance(share=0.9),
        description="Memory of each GPU that all replicas may hold together: a size, or a share of it.",
    )
    host_memory: Memory = Field(
        default=Allowance(share=0.8),
        description="Memory that all workers may hold together: a size, or a share of the machine's.",
    )
    hint_memory_bytes: Annotated[Size, size_from("0B")] = Field(
        default=8 * 1024 * MIB,
        alias="hint_memory",
        description="Memory that the hints of one caller may keep warm for an hour a day. 0: hints are refused.",
    )


class OnnxSettings(Section):
    """A model that our own worker processes run with ONNX Runtime."""

    path: FilePath = Field(description="Directory with `model.onnx`, `model.yaml` and the tokenizer.")
    threads: Annotated[int, whole(1, 1024)] = Field(default=1, description="Threads of one worker's inference.")


class CommandSettings(Section):
    """A server that the gateway starts, watches and stops, and speaks OpenAI's HTTP with."""

    run: CommandLine = Field(
        description="Command line, split into words without a shell; `{port}` becomes the port that it must listen on."
    )
    ready: UrlPath = Field(default="/health", description="Path that answers 200 once the server is ready.")
    model: Text | None = Field(
        default=None, description="Name of the model in requests to it. Left out: the name here."
    )
    env: Mapping[Variable, Secret] = Field(
        default_factory=dict, description="Environment variables of the command, `${NAME}` taken from ours."
    )
    concurrency: Annotated[int, whole(1)] = Field(default=16, description="Requests that one replica takes at a time.")
    sleep: Annotated[int, whole(0, 2)] = Field(
        default=1,
        description="vLLM's level that an idle server sleeps at, where it offers `/sleep`. 0: it never sleeps.",
    )


class HttpSettings(Section):
    """An upstream that somebody else runs."""

    url: Url = Field(description="Base URL, such as `https://api.example.com/v1`.")
    api: Annotated[Api, one_of(*get_args(Api))] = Field(
        default="openai", description="The HTTP that it speaks: `openai`, or `anthropic` (for the task `chat`)."
    )
    key: Secret | None = Field(
        default=None,
        description="Key sent with each request, as its API wants it; write `${NAME}` to take it from the environment.",
    )
    model: Text | None = Field(
        default=None, description="Name of the model in requests to it. Left out: the name here."
    )
    concurrency: Annotated[int, whole(1)] = Field(default=64, description="Requests in flight to it at a time.")


class ScheduleSettings(Section):
    """Hours in which more replicas run than `min` says."""

    days: Days = Field(
        default=(0, 1, 2, 3, 4, 5, 6), description="Days that it begins on: `mon-fri`, `sat`, or a list of these."
    )
    hours: Hours = Field(description="Hours of the day such as `8-18` or `22:30-6`, which ends on the next day.")
    min: Annotated[int, whole(1)] = Field(description="Replicas that run at least within these hours.")
    time_zone: Zone = Field(default="UTC", description="Whose clocks count, such as `Europe/Berlin`.")


class PoolSettings(Section):
    """How many replicas of a model run, and who waits for them."""

    min: Annotated[int, whole(0)] = Field(
        default=0, description="Replicas that always run; the semantic cache's embedder and verifier have at least one."
    )
    max: Annotated[int, whole(1)] = Field(default=1, description="The most replicas that may run.")
    queue: Annotated[int, whole(1)] = Field(
        default=256, description="Requests that may wait; one more is refused (429)."
    )
    start_timeout_s: Annotated[Duration, duration_from("100ms")] = Field(
        default=60.0, alias="start_timeout", description="The longest that a replica may take to start."
    )
    start_wait_s: Annotated[Duration, duration_from("0s")] | None = Field(
        default=None,
        alias="start_wait",
        description="The longest that a request may be expected to wait for a replica to come up; where it would be"
        " more, it is answered 503 with `Retry-After`. `Prefer: wait` of a request goes before. Left out: it waits.",
    )
    keep_warm_s: KeepWarm = Field(
        default=None,
        alias="keep_warm",
        description="How long an idle replica above `min` stays: `predict` (by demand), or a fixed time such as `10m`.",
    )
    gpus: Annotated[int, whole(0)] | None = Field(
        default=None, description="GPUs that each replica needs. Left out: one, where `devices.gpus` has any."
    )
    start_time_s: Annotated[Duration, duration_from("1ms")] | None = Field(
        default=None, alias="start_time", description="What a start takes, until one was measured. Left out: 5 s."
    )
    wake_time_s: Annotated[Duration, duration_from("1ms")] | None = Field(
        default=None,
        alias="wake_time",
        description="What waking from sleep takes, until it was measured. Left out: a tenth of a start.",
    )
    host_memory_bytes: Annotated[Size, size_from("0B")] | None = Field(
        default=None,
        alias="host_memory",
        description="Host memory of one replica, until it was measured. Left out: what its files tell.",
    )
    gpu_memory_bytes: Annotated[Size, size_from("0B")] | None = Field(
        default=None,
        alias="gpu_memory",
        description="GPU memory of one replica, until it was measured. Left out: none.",
    )
    schedule: tuple[ScheduleSettings, ...] = Field(
        default=(), description="Hours in which at least so many replicas run; they are up when these begin."
    )


class ModelSettings(Section):
    """A model: its task, exactly one engine (`onnx`, `command` or `http`), and its pool."""

    model_config = ConfigDict(json_schema_extra=exactly_one("onnx", "command", "http"))

    task: Annotated[Task, one_of(*get_args(Task))] = Field(
        description="`chat`, `completion`, `embed`, `predict`, `infer` (tensors alone, with `onnx`) or `relay`"
        " (what is passed through, such as images and audio; with `command` or `http`)."
    )
    onnx: OnnxSettings | None = Field(default=None, description="Engine: our own workers.")
    command: CommandSettings | None = Field(default=None, description="Engine: a server that we start.")
    http: HttpSettings | None = Field(default=None, description="Engine: an upstream.")
    pool: PoolSettings = Field(default=PoolSettings(), description="Its replicas.")


class RouteSettings(Section):
    """A name that clients use like a model, and the models that answer for it: exactly one of `split`, `candidates`."""

    model_config = ConfigDict(json_schema_extra=exactly_one("split", "candidates"))

    split: Mapping[Name, Annotated[int, whole(1)]] | None = Field(
        default=None, description="Models with their weights: each gets its part of the requests."
    )
    candidates: tuple[Name, ...] | None = Field(
        default=None, description="Models of which the one with the least expected time to an answer gets the request."
    )
    fallback: tuple[Name, ...] = Field(
        default=(), description="Models tried in this order when those above fail or would miss the deadline."
    )
    cache: RouteCacheSettings = Field(default=RouteCacheSettings(), description="What of its answers the cache keeps.")


class BatchSettings(Section):
    """The queue of work that no client waits for; it outlives a restart and yields to live traffic."""

    directory: FilePath = Field(default=Path("var/batch"), description="Where the queue and its results keep files.")
    max_items: Annotated[int, whole(1)] = Field(
        default=100_000, description="Inputs that may wait; a batch with more than there is room for is refused (429)."
    )
    max_bytes: Annotated[Size, size_from("1KiB")] = Field(
        default=256 * MIB, description="Size of the inputs that may wait, together."
    )
    concurrency: Annotated[int, whole(1)] = Field(default=4, description="Inputs that are worked on at a time.")
    keep_s: Annotated[Duration, duration_from("1m")] = Field(
        default=7 * 86400.0, alias="keep", description="How long a finished batch and its results are kept."
    )
    file_roots: tuple[FilePath, ...] = Field(
        default=(), description="Directories, absolute, under which `file://` inputs may lie. None: no such inputs."
    )
    callback_secret: Secret | None = Field(
        default=None, description="Secret that callbacks are signed with (HMAC-SHA256). Left out: no callbacks."
    )
    allow_private: Switch = Field(
        default=False, description="Whether inputs and callbacks may be at private addresses, such as `10.0.0.1`."
    )
    s3_buckets: tuple[Text, ...] = Field(
        default=(), description="Buckets that `s3://` inputs may come from. None: no such inputs."
    )
    s3_endpoint: Url | None = Field(
        default=None, description="URL of the S3 service that `s3://` inputs come from. Left out: Amazon's own."
    )


class Settings(Section):
    """The whole file."""

    server: ServerSettings = Field(default=ServerSettings(), description="Where and how the gateway answers.")
    cache: CacheSettings | None = Field(default=None, description="What is remembered. Left out: nothing.")
    devices: DeviceSettings = Field(default=DeviceSettings(), description="What the models may use of this machine.")
    models: Mapping[Name, ModelSettings] = Field(description="The models by name.")
    routes: Mapping[Name, RouteSettings] = Field(
        default_factory=dict, description="Names that clients use like a model. A model's own name is a route as well."
    )
    batch: BatchSettings | None = Field(
        default=None, description="The queue of work that no client waits for. Left out: no batches."
    )


def fields_of(section: type[Section]) -> dict[str, FieldInfo]:
    """Return a section's fields by the keys that the operator writes."""
    return {field.alias or name: field for name, field in section.model_fields.items()}


def section_at(path: Sequence[str | int]) -> type[Section]:
    """Return the class of the section at `path`, such as `models.atlas.pool`. Raises `KeyError` where there is none."""
    section: type[Section] = Settings
    is_name = False
    for step in path:
        if not is_name:
            annotation = fields_of(section)[str(step)].annotation
            section = section_in(annotation) or section
            is_name = get_origin(annotation) in (Mapping, tuple)
        else:
            is_name = False
    return section


def section_in(annotation: object) -> type[Section] | None:
    """Return the section that a field's type holds, alone or in a mapping or list; None where it holds none."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next((found for part in get_args(annotation) if (found := section_in(part))), None)
