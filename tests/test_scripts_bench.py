"""What scripts/bench reads and writes: wrk's output and script, nginx's configurations, medians and ratios."""

import subprocess
from pathlib import Path

import pytest

from scripts.benchmarks import load, nginx, passing, programs, report, serving
from scripts.benchmarks.cold_start import ColdStart
from scripts.benchmarks.contests import GATEWAY, Contest, instant
from scripts.benchmarks.load import BadRunError, Load, Post, Seen

# wrk 4.1.0 of Debian 12, as it printed them.
PADDING = " "  # wrk pads a unit of one letter
GOOD = f"""\
Running 2s test @ http://127.0.0.1:8080/v1/chat/completions
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     2.08ms    1.99ms  30.86ms   92.59%
    Req/Sec    17.41k     3.25k   22.23k    75.00%
  Latency Distribution
     50%  842.00us
     75%    2.32ms
     90%    3.72ms
     99%    1.01s{PADDING}
  34685 requests in 2.00s, 29.44MB read
Requests/sec:  17325.52
Transfer/sec:     14.71MB
"""
REFUSED = GOOD.replace("Requests/sec", "  Non-2xx or 3xx responses: 34685\nRequests/sec")
BROKEN = GOOD.replace("Requests/sec", "  Socket errors: connect 0, read 12, write 0, timeout 3\nRequests/sec")
NOTHING = """\
Running 1s test @ http://127.0.0.1:9/
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     0.00us    0.00us   0.00us    -nan%
    Req/Sec     0.00      0.00     0.00      -nan%
  Latency Distribution
     50%    0.00us
     75%    0.00us
     90%    0.00us
     99%    0.00us
  0 requests in 1.10s, 0.00B read
Requests/sec:      0.00
Transfer/sec:       0.00B
"""


def test_wrk_is_read() -> None:
    """The rate, the count and the percentiles are found, whatever unit wrk chose for each."""
    assert load.parse(GOOD) == Seen(answers=34685, per_s=17325.52, p50_ms=0.842, p99_ms=1010.0)


@pytest.mark.parametrize(
    ("output", "told"),
    [(REFUSED, "Non-2xx or 3xx responses: 34685"), (BROKEN, "timeout 3"), (NOTHING, "no figures"), ("", "no figures")],
)
def test_a_run_with_errors_has_no_figures(output: str, told: str) -> None:
    """Refused requests, broken connections and silence are errors of the run, never a low or high rate."""
    with pytest.raises(BadRunError, match=told):
        load.parse(output)


def test_wrk_script_escapes_what_lua_would_read() -> None:
    """A body with quotes, line ends and letters beyond ASCII reaches wrk as one Lua string of the same UTF-8 bytes."""
    script = load.lua(Post("/", {"X-A": 'b"'}, '{"a": "\\n é"}'))
    assert script.splitlines() == [
        'wrk.method = "POST"',
        r'wrk.body = "{\034a\034: \034\092n \195\169\034}"',
        r'wrk.headers["X-A"] = "b\034"',
    ]


def test_nginx_configurations_are_sound(tmp_path: Path) -> None:
    """The real nginx accepts each configuration, where it is installed."""
    try:
        program = programs.find("nginx")
    except programs.MissingProgramError as error:
        pytest.skip(str(error))
    port = programs.free_port()
    origin = f"127.0.0.1:{port}"
    for number, text in enumerate(
        (instant(tmp_path, port), nginx.caching(tmp_path, port, origin), nginx.passing(tmp_path, port, origin))
    ):
        file = tmp_path / f"{number}.conf"
        file.write_text(text, encoding="utf-8")
        tested = subprocess.run(
            [program, "-t", "-e", "stderr", "-c", str(file)], capture_output=True, text=True, timeout=240, check=False
        )
        assert tested.returncode == 0, tested.stderr


def test_nginx_cache_is_keyed_on_the_body(tmp_path: Path) -> None:
    """Two requests that differ in their body alone are two entries, and a POST is cached at all."""
    text = nginx.caching(tmp_path, 8081, "127.0.0.1:8082")
    assert 'proxy_cache_key "$request_uri|$request_body";' in text
    assert "proxy_cache_methods POST;" in text


def test_nginx_strings_are_quoted(tmp_path: Path) -> None:
    """Quotes and backslashes are escaped, and a dollar, which nginx would replace, is refused."""
    assert r"return 200 'it\'s \\n';" in nginx.instant(tmp_path, 1, "it's \\n")
    with pytest.raises(ValueError, match="\\$"):
        nginx.instant(tmp_path, 1, "5 $")


def test_ratios_are_of_rounds_not_of_medians() -> None:
    """A round in which everybody was slow counts like any other, since its ratio is of its own two runs."""
    ours = [Load(100, 1, 2, 50), Load(30, 1, 2, 50), Load(90, 1, 2, 60)]
    theirs = [Load(200, 1, 2, 25), Load(60, 1, 2, 25), Load(100, 1, 2, 20)]
    (_, rival) = report.bearers(Contest("x", {GATEWAY: ours, "rival": theirs}))
    assert (rival.per_s, rival.rate_ratio, rival.cpu_ratio) == (100, 0.5, 0.5)


def test_cold_start_is_a_multiple_of_the_session() -> None:
    """The whole wait of the client counts, against both ways to build the session."""
    start = report.start_of([ColdStart(0.6, 0.5, 0.4, 0.2)])
    assert (start.session_ratio, start.again_ratio) == (pytest.approx(1.5), pytest.approx(3.0))


def test_the_measured_gateway_has_everything_on(tmp_path: Path) -> None:
    """The configuration holds the digest of the key that the requests carry, never the key, and both caches."""
    text = serving.config(tmp_path, Path("var/models"))
    assert serving.KEY not in text
    assert "semantic:" in text
    assert "exact:" in text
    assert serving.chat("atlas", "x").headers["Authorization"] == f"Bearer {serving.KEY}"


def test_passing_through_is_measured_without_a_cache() -> None:
    """The key has limits, and the route's answers are neither kept nor shared between requests in flight."""
    text = passing.config("http://127.0.0.1:9")
    assert serving.KEY not in text
    assert "requests_per_minute: 1000000000, tokens_per_minute: 1000000000" in text
    assert "cache: {enabled: false}" in text


def test_the_first_byte_is_compared_round_by_round() -> None:
    """What the gateway adds is the median of the rounds' differences."""
    assert passing.FirstBytes([0.1, 0.5, 0.2], [0.2, 0.6, 0.4]).added_s == pytest.approx(0.1)
