"""What the description promises, held against the running program with bodies that fit it and bodies that do not.

Nothing is drawn: the same description, run among the same tests, sends the same requests.
"""

from collections.abc import Iterator

import orjson
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from gateway.openapi.document import document, operations
from scripts.running_gateway import RunningGateway
from tests.e2e.program import INTENTS, MINILM, SERVER, call, chat, needs, serving, text_of

EXAMPLES = 8
CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]
ECHO = f'{{task: chat, command: {{run: "{SERVER}", concurrency: 8}}, pool: {{min: 1, max: 1, queue: 100}}}}'
SPARE = ECHO.replace("min: 1", "min: 0")  # a model that is promised may not be unloaded where all shall be ready
# Who answers what; the others are for chats.
MODELS = {"/v1/embeddings": "minilm", "/api/v1/embed": "minilm", "/api/v1/predict": "intents"}
RESTING = ("/v2/repository/models/{model}/load", "/v2/repository/models/{model}/unload")
ROUTES = [(method, path) for path, methods in operations().items() for method in methods]


@pytest.fixture(scope="module")
def gateway() -> Iterator[RunningGateway]:
    """Serve a model for each task, one that may be unloaded, and check that all was well in the end."""
    needs("minilm", "intents")
    with serving(MINILM, INTENTS, f"  echo: {ECHO}", f"  spare: {SPARE}", server="max_body: 64KiB") as running:
        yield running
        assert text_of(chat(running.url, "echo", "still there?")) == "echo: still there?"
        assert "unexpected error" not in running.log_text()


def test_description_is_served(gateway: RunningGateway) -> None:
    """The document is at the path that tools look for."""
    assert call(gateway.url, "GET", "/openapi.json").json() == orjson.loads(document())


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["fitting", "unfitting"])
@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_replies_are_as_described(gateway: RunningGateway, method: str, path: str, mode: GenerationMode) -> None:
    """Whatever is asked, the reply has a status, a content type and a body that the description names."""
    model = "spare" if path in RESTING else MODELS.get(path, "echo")
    described = orjson.loads(document())
    described["components"]["schemas"]["ModelName"] = {"type": "string", "enum": [model, "nobody"]}
    # A deadline that is too short, or a cache that has nothing, is a 504 without anything being wrong.
    described["components"]["parameters"]["RequestTimeout"]["schema"] = {"type": "number", "minimum": 60}
    described["components"]["parameters"]["CacheControl"]["schema"] = {"enum": ["no-cache", "no-store", "max-age=1"]}
    operation = schemathesis.openapi.from_dict(described)[path][method]

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Case) -> None:
        response = case.call(base_url=gateway.url)
        # 501 is for what a protocol knows and nobody here does; 502 tells of an upstream's own error.
        own = response.status_code not in (501, 502)
        case.validate_response(response, checks=[not_a_server_error, *CHECKS] if own else CHECKS)

    try:
        ask()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE, "there is nothing that does not fit"
