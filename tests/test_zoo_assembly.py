"""A model directory is made whole or not at all, and only when its inputs changed."""

from pathlib import Path

import pytest

from backends.zoo.assembly import Recipe, assemble, digests


def writing(content: str, inputs: dict[str, str]) -> Recipe:
    """Return a recipe for a directory with one file."""
    return Recipe("model", inputs, lambda target: (target / "file").write_text(content) and None)


def failing(target: Path) -> None:
    """Write half of a model and fail."""
    (target / "file").write_text("half")
    raise OSError("disk full")


def test_a_model_is_made_once_for_the_same_inputs(tmp_path):
    """The second time there is nothing to do, and the files stay as they are."""
    models = tmp_path / "models"

    assert assemble(writing("old", {"a": "1"}), models)
    assert not assemble(writing("new", {"a": "1"}), models)
    assert (models / "model" / "file").read_text() == "old"


def test_other_inputs_replace_the_whole_directory(tmp_path):
    """Nothing of the old directory is left."""
    assemble(writing("old", {"a": "1"}), tmp_path)
    (tmp_path / "model" / "left").touch()

    assert assemble(writing("new", {"a": "2"}), tmp_path)

    assert (tmp_path / "model" / "file").read_text() == "new"
    assert not (tmp_path / "model" / "left").exists()


def test_a_directory_without_a_stamp_is_replaced(tmp_path):
    """What another hand put there is not taken for a model."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "file").write_text("foreign")

    assert assemble(writing("new", {}), tmp_path)
    assert (tmp_path / "model" / "file").read_text() == "new"


def test_a_failed_build_leaves_the_old_model_and_no_remains(tmp_path):
    """A model in use outlives a failure to make its successor."""
    assemble(writing("old", {"a": "1"}), tmp_path)

    with pytest.raises(OSError, match="disk full"):
        assemble(Recipe("model", {"a": "2"}, failing), tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model" / "file").read_text() == "old"


def test_digests_change_with_the_content_and_leave_out_what_is_missing(tmp_path):
    """A missing input is the build's error to name."""
    (tmp_path / "a").write_text("1")
    before = digests([tmp_path / "a", tmp_path / "b"])
    (tmp_path / "a").write_text("2")

    assert before.keys() == {"a"}
    assert digests([tmp_path / "a"]) != before
