"""What is served at a path: exact ones, and patterns with names, for whatever text a client puts there."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.openapi.document import operations
from gateway.paths import Paths

PATHS = Paths({path: path for path in operations()})


@pytest.mark.parametrize(
    ("path", "served", "names"),
    [
        ("/v1/models", "/v1/models", {}),
        ("/v1/models/org/name", "/v1/models/{model}", {"model": "org/name"}),
        ("/v2/models/stats", "/v2/models/stats", {}),
        ("/v2/models/m/stats", "/v2/models/{model}/stats", {"model": "m"}),
        ("/v2/models/a/b/infer", "/v2/models/{model}/infer", {"model": "a/b"}),
        (
            "/v2/models/a/b/versions/1/infer",
            "/v2/models/{model}/versions/{version}/infer",
            {"model": "a/b", "version": "1"},
        ),
    ],
)
def test_most_literal_pattern_wins(path: str, served: str, names: dict[str, str]) -> None:
    """A first name may have slashes, and what is said literally goes before what has a name."""
    assert PATHS.find(path) == (served, names)


@pytest.mark.parametrize("path", ["", "/", "/v1/models/", "/v1/model", "/V1/models", "/v2/models//infer/x\n"])
def test_other_paths_are_not_served(path: str) -> None:
    """What only looks like a path that is served is none."""
    found = PATHS.find(path)
    assert found is None or path.startswith("/v2/models/")


@given(model=st.text(min_size=1).filter(lambda text: not re.search(r"/(versions|infer|trace)", text)))
def test_name_may_be_any_text(model: str) -> None:
    """Whatever a name consists of, line ends included, it is what the client wrote."""
    assert PATHS.find(f"/v2/models/{model}/infer") == ("/v2/models/{model}/infer", {"model": model})


@pytest.mark.parametrize("piece", ["/versions/", "/infer", "/versions/1/infer", "/", "x", "\n"])
def test_time_to_match_grows_with_the_length_alone(piece: str) -> None:
    """A path of what patterns look for takes about four times as long as a quarter of it."""
    whole = "/v2/models/" + piece * (16_000 // len(piece)) + "#"
    seconds = [min(_time(whole[:size]) for _ in range(3)) for size in (len(whole) // 4, len(whole))]

    assert seconds[1] < 0.005 + 8 * seconds[0]


def _time(path: str) -> float:
    started = time.process_time()
    PATHS.find(path)
    return time.process_time() - started
