"""What each field of a request is to the caches: one table a wire, which its decoder goes by. Knows no reply.

A field that is in no table is part of the key: what nobody knows may change the answer. `docs/http.md` says why each of
the others is none. Source of the names: the request types of the `openai` and `anthropic` Python clients, and the texts
of the Open Inference Protocol and of its extension for generation.
"""

from collections.abc import Mapping
from enum import Enum

_Names = frozenset[str]


class Role(Enum):
    """A field's part in whether two requests are the same."""

    KEY = "key"
    """The answer depends on it."""
    REPLY = "reply"
    """It shapes the reply: each client's is encoded from the same answer."""
    CLIENT = "client"
    """It tells of the client, or of how it is served and billed: the same answer, whatever it says."""
    MODEL = "model"
    """It names the model or route; the version of what answers is in the key in its place."""
    REFUSED = "refused"
    """It asks for what is not done here; a value that asks for nothing is taken."""


class Roles(dict[str, Role]):
    """A wire's table. It stays as it was made, so that what every request asks of it is worked out once."""

    def __init__(self, roles: Mapping[str, Role]) -> None:
        super().__init__(roles)
        self.outside_key: _Names = frozenset({name for name, role in roles.items() if role is not Role.KEY})
        self.shaping: _Names = self.outside_key - {"model", "stream"}


def outside_key(roles: Roles) -> _Names:
    """Return the fields that are no part of the key."""
    return roles.outside_key


def shaping(roles: Roles) -> _Names:
    """Return the fields that are no part of the key, but may show in the reply of an upstream that is sent them."""
    return roles.shaping


def _of(*, key: str, reply: str = "", client: str = "", refused: str = "") -> Roles:
    said = {Role.KEY: key, Role.REPLY: reply, Role.CLIENT: client, Role.REFUSED: refused}
    return Roles({"model": Role.MODEL, **{name: role for role, names in said.items() for name in names.split()}})


# Who asks, for which of its own users, to be kept or found by it later, at which price and from which prompt cache.
_OPENAI_CLIENT = (
    "user safety_identifier metadata store service_tier prompt_cache_key prompt_cache_options prompt_cache_retention"
)
_SAMPLING = "temperature top_p seed stop max_tokens frequency_penalty presence_penalty logit_bias"

CHAT = _of(
    key=f"messages {_SAMPLING} max_completion_tokens n tools tool_choice parallel_tool_calls functions function_call"
    " response_format logprobs top_logprobs reasoning_effort verbosity modalities audio prediction web_search_options"
    " moderation",
    reply="stream stream_options",
    client=_OPENAI_CLIENT,
)
COMPLETION = _of(
    key=f"prompt {_SAMPLING} n best_of echo suffix logprobs",
    reply="stream stream_options",
    client=_OPENAI_CLIENT,
)
EMBEDDING = _of(key="input dimensions", reply="encoding_format", client=_OPENAI_CLIENT)

# Its fields become those of a chat, and count as those do. `include` becomes `logprobs`; what else it names is made by
# tools of OpenAI's own, which are refused, as `max_tool_calls` bounds those alone.
RESPONSES = _of(
    key="input instructions tools tool_choice parallel_tool_calls text reasoning include top_logprobs max_output_tokens"
    " temperature top_p moderation image access_programs",
    reply="stream stream_options max_tool_calls",
    client=_OPENAI_CLIENT,
    refused="previous_response_id conversation background prompt context_management truncation",
)

MESSAGES = _of(
    key="messages system max_tokens temperature top_p top_k stop_sequences thinking tools tool_choice output_config"
    " output_format container context_management mcp_servers inference_geo speed diagnostics user_profile_id"
    " workspace_id compaction thread fallbacks fallback_credit_token billing_policy",
    reply="stream",
    client="metadata service_tier cache_control",
)

PREDICT = _of(key="input")
EMBED = _of(key="inputs")
GENERATE = _of(key="prompt messages max_tokens temperature top_p seed stop", reply="stream")

# The body of `generate`; whatever else is in it is a parameter.
OIP_GENERATE = Roles({"id": Role.CLIENT, "text_input": Role.KEY, "parameters": Role.KEY})
# Those of `infer` that are known; `outputs` and `inputs` with their data are the question itself.
OIP_PARAMETERS = Roles(
    {
        "binary_data_output": Role.REPLY,
        "stream": Role.REPLY,
        "triton_enable_empty_final_response": Role.REPLY,
        "priority": Role.CLIENT,
        "timeout": Role.CLIENT,
        "sequence_id": Role.REFUSED,
    }
)

# A reranking is one score for each document, so that these two say which of the scores go into the reply.
RERANK = _of(key="query documents return_documents", reply="top_n", client="user")
