"""The built minilm gives the vectors of all-MiniLM-L6-v2."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from tokenizers import Tokenizer

DIRECTORY = Path(__file__).parent.parent / "var" / "models" / "minilm"
FRANCE, PARAPHRASE = "What is the capital of France?", "Tell me the capital city of France"
BREAD = "How do I bake bread?"


@pytest.fixture(scope="module")
def tokenizer():
    """Load the tokenizer in the model's directory as it is there."""
    if not (DIRECTORY / "model.onnx").exists():
        pytest.skip("var/models/minilm is missing: run scripts/setup")
    return Tokenizer.from_file(str(DIRECTORY / "tokenizer.json"))


@pytest.fixture(scope="module")
def embed(tokenizer):
    """Embed texts as one batch; `pad` adds columns of padding."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(DIRECTORY / "model.onnx", options, providers=["CPUExecutionProvider"])

    def run(*texts: str, pad: int = 0) -> np.ndarray:
        rows = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
        longest = max(map(len, rows)) + pad
        ids = np.array([row + [0] * (longest - len(row)) for row in rows])
        mask = np.array([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        return session.run(["embedding"], {"input_ids": ids, "attention_mask": mask})[0]

    return run


def test_the_cosines_are_those_of_the_published_model(embed):
    """A paraphrase is near and another question is far, to the published figures."""
    france, paraphrase, bread = embed(FRANCE, PARAPHRASE, BREAD)

    assert france @ paraphrase == pytest.approx(0.923, abs=0.005)
    assert france @ bread == pytest.approx(0.148, abs=0.01)


def test_vectors_have_length_one(embed):
    """A dot product of two vectors is their cosine."""
    vectors = embed(FRANCE, BREAD)

    assert (vectors.dtype, vectors.shape) == (np.float32, (2, 384))
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1], abs=1e-5)


def test_padding_and_company_do_not_move_a_vector(embed):
    """What shares a batch with a text, and how wide the batch is, changes nothing."""
    alone = embed(FRANCE)[0]

    assert np.abs(embed(FRANCE, BREAD * 20)[0] - alone).max() < 1e-5
    assert np.abs(embed(FRANCE, pad=9)[0] - alone).max() < 1e-5


def test_the_tokenizer_cuts_at_the_limit_and_does_not_pad(tokenizer, embed):
    """The longest text that the model takes is 256 tokens, and the model takes it."""
    assert len(tokenizer.encode("bread").ids) == 3
    assert len(tokenizer.encode("bread " * 300).ids) == 256
    assert embed("bread " * 300).shape == (1, 384)
