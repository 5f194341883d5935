"""The settings of the caches: what is remembered, where, for how long, and what may be served of it."""

from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field

from config.fields import (
    Duration,
    FilePath,
    Name,
    Share,
    SharedUrl,
    Size,
    Switch,
    Threshold,
    duration_from,
    one_of,
    size_from,
    whole,
)
from config.section import Section

Compare = Literal["exact", "judge", "embedding"]
CachePolicy = Literal["store", "bypass"]

MIB = 2**20
GIB = 2**30


class ExactSettings(Section):
    """The cache of identical requests."""

    memory_bytes: Annotated[Size, size_from("1MiB")] = Field(
        default=256 * MIB, alias="memory", description="Answers kept in memory."
    )
    disk_bytes: Annotated[Size, size_from("0B")] = Field(
        default=4 * GIB, alias="disk", description="Answers kept on disk, also over a restart; 0 switches the disk off."
    )
    ttl_s: Annotated[Duration, duration_from("1s")] = Field(
        default=3600.0, alias="ttl", description="How long an answer is served after it was made."
    )
    jitter: Share = Field(
        default=0.1, description="By up to so much shorter `ttl` is, for each answer: those made together end apart."
    )
    max_stale_s: Annotated[Duration, duration_from("0s")] = Field(
        default=3600.0,
        alias="max_stale",
        description="How long after its `ttl` an answer is still served to who asks for stale ones; 0 to nobody.",
    )


class SharedSettings(Section):
    """The tier that several gateways share, on a Redis or Valkey server."""

    url: SharedUrl = Field(
        description="Where it is: `redis://`, `rediss://` (TLS) or `unix://`; write `${NAME}` in it for a password."
    )
    timeout_s: Annotated[Duration, duration_from("1ms")] = Field(
        default=0.05, alias="timeout", description="How long a request waits for the server; then it goes on without."
    )
    single_flight: Switch = Field(
        default=True, description="Whether a request waits for another gateway that is making its answer."
    )
    wait_s: Annotated[Duration, duration_from("100ms")] = Field(
        default=10.0, alias="wait", description="How long it waits so; then it asks the model itself."
    )


class AuditSettings(Section):
    """How served answers are checked against the model's own, off the request's path."""

    share: Share = Field(
        default=0.05, description="How many of the answers found by meaning are checked once there is a certificate."
    )
    start_share: Share = Field(
        default=0.5, description="How many are checked before, and again as soon as one of late was wrong."
    )
    max_per_minute: Annotated[int, whole(1)] = Field(
        default=60,
        description="Checks in a minute. Without a certificate no more is served than these allow to watch over.",
    )
    compare: Annotated[Compare, one_of(*get_args(Compare))] = Field(
        default="exact",
        description="How texts are compared: `exact`, but for spaces and case; `judge`, asking a chat model; or "
        "`embedding`, by their vectors.",
    )
    judge: Name | None = Field(
        default=None, description="The chat model that is asked whether two answers say the same."
    )
    similarity: Threshold = Field(
        default=0.95, description="The least cosine of two answers that say the same, where they are compared by it."
    )


class SemanticSettings(Section):
    """The cache of questions that mean the same."""

    embedder: Name = Field(description="The model of task `embed` that turns questions into vectors.")
    verifier: Name | None = Field(
        default=None,
        description="The model of task `infer` that judges whether one answer serves two questions. Left out: their "
        "cosine and the strict guards do.",
    )
    ttl_s: Annotated[Duration, duration_from("1s")] = Field(
        default=3600.0, alias="ttl", description="How long an answer is served for another wording."
    )
    threshold: Threshold | None = Field(
        default=None,
        description="The least cosine of two questions that share an answer, or the verifier's least confidence. Left "
        "out: the cache's own.",
    )
    budget_s: Annotated[Duration, duration_from("1ms")] = Field(
        default=0.015,
        alias="budget",
        description="How long a request waits for an answer to be found by meaning before the model is asked.",
    )
    memory_bytes: Annotated[Size, size_from("1MiB")] = Field(
        default=256 * MIB, alias="memory", description="What the vectors of questions may take in memory."
    )
    max_wrong_hits: Share | None = Field(
        default=None,
        description="How many of the answers found by meaning may be wrong; what is served is learned from checks, and "
        "begins at `threshold`. Left out: what reaches `threshold` is served.",
    )
    audit: AuditSettings = Field(
        default=AuditSettings(), description="How served answers are checked, where `max_wrong_hits` is written."
    )


class CacheSettings(Section):
    """What is remembered, and where."""

    directory: FilePath = Field(
        default=Path("var/cache"), description="Where the cache and the learned costs keep their files."
    )
    graphs_bytes: Annotated[Size, size_from("0B")] = Field(
        default=4 * GIB,
        alias="graphs",
        description="Optimised graphs of models kept there, where starts gain from them; 0 keeps none.",
    )
    exact: ExactSettings = Field(default=ExactSettings(), description="The cache of identical requests.")
    shared: SharedSettings | None = Field(
        default=None, description="The tier that several gateways share. Left out: off."
    )
    semantic: SemanticSettings | None = Field(
        default=None, description="The cache of questions that mean the same. Left out: off."
    )


class RouteCacheSettings(Section):
    """What of a route's answers the cache keeps."""

    enabled: Switch = Field(default=True, description="Whether its answers are cached at all.")
    sampled: Annotated[CachePolicy, one_of(*get_args(CachePolicy))] = Field(
        default="bypass",
        description="`store` or `bypass` where the client asks for a temperature above 0 without a seed.",
    )
    unstated: Annotated[CachePolicy, one_of(*get_args(CachePolicy))] = Field(
        default="store", description="`store` or `bypass` where the client states no temperature."
    )
    truncated: Annotated[CachePolicy, one_of(*get_args(CachePolicy))] = Field(
        default="bypass",
        description="`store` or `bypass` where an answer ended at its limit of tokens (`finish_reason` `length`).",
    )
    ttl_s: Annotated[Duration, duration_from("1s")] | None = Field(
        default=None, alias="ttl", description="How long its answers are served. Left out: as `cache.exact.ttl` says."
    )
    tags: tuple[Name, ...] = Field(default=(), description="Tags of its answers, by which they can be purged.")
    fallback: Switch = Field(
        default=True, description="Whether a repeat is served what a fallback answered, where no model above it has."
    )
    items: Switch = Field(
        default=True, description="Whether what has several inputs is kept by each input, or as a whole."
    )
    semantic: Switch = Field(
        default=True,
        description="Whether its questions may be answered by their meaning, where there is `cache.semantic`.",
    )
    obey_upstream: Switch = Field(
        default=False, description="Whether an answer is not kept where its upstream says `Cache-Control: no-store`."
    )
