"""Our encoder against Hugging Face's on the same weights, and attention backends against each other."""

from __future__ import annotations

import pytest
import torch

from vlprep.errors import SettingsError
from vlprep.pretrain.attention import Layout, attend
from vlprep.pretrain.encoder import Encoder, EncoderConfig

CONFIG = EncoderConfig(layers=3, hidden=48, heads=4, intermediate=96, dropout=0.0, attention_dropout=0.0)
LENGTHS = torch.tensor([7, 3, 12, 1])


def layout(lengths: torch.Tensor = LENGTHS, backend: str = "padded", mask: torch.Tensor | None = None) -> Layout:
    return Layout(lengths, torch.device("cpu"), backend, mask)


@pytest.fixture
def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder(CONFIG).eval()


def test_equals_hugging_faces_bert(encoder: Encoder) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=96,
        vocab_size=50,
        attn_implementation="eager",
    )
    theirs = transformers.BertModel(config).eval()
    theirs.encoder.load_state_dict(encoder.state_dict())  # strict: the names are the same
    ids = [torch.randint(50, (int(length),)) for length in LENGTHS]
    padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
    real = torch.arange(12)[None] < LENGTHS[:, None]
    with torch.no_grad():
        embedded = theirs.embeddings(padded)
        expected = theirs(input_ids=padded, attention_mask=real.long()).last_hidden_state[real]
        got = encoder(embedded[real], layout())
    torch.testing.assert_close(got, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("lengths", [LENGTHS, torch.tensor([5, 5, 5])])
def test_jagged_equals_padded_forward_and_backward(encoder: Encoder, lengths: torch.Tensor) -> None:
    results = []
    for backend in ("padded", "jagged"):
        torch.manual_seed(1)
        hidden = torch.randn(int(lengths.sum()), 48, requires_grad=True)
        encoded = encoder(hidden, layout(lengths, backend))
        encoded.square().sum().backward()
        results.append((encoded, hidden.grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_sequences_do_not_see_each_other(encoder: Encoder) -> None:
    torch.manual_seed(2)
    hidden = torch.randn(23, 48)
    alone = encoder(hidden[7:10], layout(torch.tensor([3])))
    torch.testing.assert_close(encoder(hidden, layout())[7:10], alone, rtol=1e-5, atol=1e-6)


def test_a_mask_hides_keys() -> None:
    torch.manual_seed(3)
    query, key, value = torch.randn(3, 6, 2, 8)
    causal = torch.ones(1, 6, 6, dtype=torch.bool).tril()
    attended = attend(query, key, value, layout(torch.tensor([6]), mask=causal), 0.0)
    torch.testing.assert_close(attended[0], value[0])
    with pytest.raises(SettingsError, match="padded"):
        attend(query, key, value, layout(torch.tensor([6]), "jagged", causal), 0.0)


def test_heads_must_divide_the_hidden_size() -> None:
    with pytest.raises(SettingsError, match="heads=5"):
        EncoderConfig(hidden=48, heads=5)
