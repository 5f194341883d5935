"""The URL of the shared tier: what is taken, and that no part of it is shown."""

from pathlib import Path

import pytest

from config.load import load_without_secrets, parse
from config.plain import plain
from config.problems import ConfigError
from config.settings import Settings

PASSWORD = {"PASSWORD": "p@ss/word:%", "URL": "rediss://:p%40ss@host:6380/1"}


def loaded(url: str) -> Settings:
    """Load a config with this URL."""
    text = f'cache: {{shared: {{url: "{url}"}}}}\nmodels: {{a: {{task: chat, http: {{url: "http://host/v1"}}}}}}\n'
    return parse(text, PASSWORD, source="f.yaml")


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("unix:///run/redis.sock?db=1", "unix:///run/redis.sock?db=1"),
        ("rediss://:${PASSWORD}@host:6380/1", "rediss://:p%40ss%2Fword%3A%25@host:6380/1"),
        ("${URL}", "rediss://:p%40ss@host:6380/1"),
    ],
)
def test_a_password_in_the_url_is_escaped_and_a_whole_url_taken_as_it_is(written: str, read: str) -> None:
    """Whatever characters a password has, it stays the password."""
    settings = loaded(written)
    assert settings.cache is not None
    assert settings.cache.shared is not None
    assert settings.cache.shared.url.get_secret_value() == read


def test_the_url_is_shown_nowhere() -> None:
    """Neither the settings in force nor their text have any of it."""
    settings = loaded("rediss://:${PASSWORD}@host:6380/1")
    assert "6380" not in f"{plain(settings)} {settings!r}"
    assert str(plain(settings)["cache"]["shared"]["url"]).startswith("hidden:")


@pytest.mark.parametrize(
    "url", ["http://host:1", "redis://", "unix://", "redis://host:0", "redis://host:99999", "host"]
)
def test_what_is_no_redis_url_is_refused_without_being_shown(url: str) -> None:
    """The message says what is allowed, and nothing of what was written."""
    with pytest.raises(ConfigError, match=r"f\.yaml:1: cache\.shared\.url: is not a URL such as redis://") as caught:
        loaded(url)
    assert "99999" not in str(caught.value)


def test_who_needs_no_secret_reads_a_file_without_them(tmp_path: Path) -> None:
    """Where a gateway listens and keeps its cache is known though no variable is set; other faults are told."""
    file = tmp_path / "f.yaml"
    for url in ("${MISSING}", "rediss://:${MISSING}@host:6380/1"):
        file.write_text(
            f'cache: {{shared: {{url: "{url}"}}}}\n'
            'models: {a: {task: chat, http: {url: "http://host/v1", key: "${KEY}"}}}\n'
        )
        assert load_without_secrets(file, {}).models["a"].http is not None
    file.write_text("modles: {}\n")
    with pytest.raises(ConfigError, match="unknown key"):
        load_without_secrets(file, {})


def test_a_variable_that_is_not_set_is_named() -> None:
    """As with all secrets."""
    with pytest.raises(ConfigError, match="MISSING is not set"):
        loaded("redis://:${MISSING}@host/0")
