"""The language model against the reference's logits and ids, its padding, its cache, and that it trains."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sottovoce.export.checkpoint.reader import Checkpoint
from sottovoce.export.config import LanguageModelConfig
from sottovoce.export.modules.language_model import LanguageModel
from sottovoce.export.modules.llama_layer import KVCache, Rotary

SMALL = LanguageModelConfig(
    hidden_size=48,
    intermediate_size=80,
    num_layers=2,
    num_heads=6,
    num_kv_heads=2,
    head_size=8,
    vocab_size=60,
    max_positions=128,
)
PROMPTS = ("text", "audio", "image_audio")
SURE_MARGIN = 1e-3


def random_model(config: LanguageModelConfig = SMALL) -> LanguageModel:
    """A model whose biases and norms also differ from their initial values."""
    torch.manual_seed(7)
    model = LanguageModel(config).eval()
    for parameter in model.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def tiny_model(tiny_checkpoint: Path) -> LanguageModel:
    checkpoint = Checkpoint.open(tiny_checkpoint)
    model = LanguageModel(checkpoint.config.language_model).eval()
    model.load_state_dict(dict(checkpoint.component_state("language_model")))
    return model


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_decoding_is_the_references(
    prompt: str, tiny_model: LanguageModel, golden: dict[str, np.ndarray], golden_json: dict[str, Any]
) -> None:
    expected = golden_json["llm"][prompt]
    ids, logits = tiny_model.greedy(torch.from_numpy(golden[f"llm.{prompt}.embeddings"])[None], len(expected["greedy"]))
    np.testing.assert_allclose(logits.numpy(), golden[f"llm.{prompt}.step_logits"], rtol=0, atol=1e-4)
    sure = [margin > SURE_MARGIN for margin in expected["margin"]]
    assert [i for i, s in zip(ids, sure, strict=True) if s] == [
        i for i, s in zip(expected["greedy"], sure, strict=True) if s
    ]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_teacher_forcing_gives_the_references_step_logits(
    prompt: str, tiny_model: LanguageModel, golden: dict[str, np.ndarray], golden_json: dict[str, Any]
) -> None:
    spliced = torch.from_numpy(golden[f"llm.{prompt}.embeddings"])[None]
    replies = tiny_model.embed(torch.tensor([golden_json["llm"][prompt]["greedy"][:-1]]))
    with torch.no_grad():
        logits = tiny_model(torch.cat([spliced, replies], dim=1))[0, spliced.shape[1] - 1 :]
    np.testing.assert_allclose(logits.numpy(), golden[f"llm.{prompt}.step_logits"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("tied", [False, True])
def test_a_tied_head_is_the_embedding_table(tied: bool) -> None:
    model = LanguageModel(replace(SMALL, tie_word_embeddings=tied))
    assert ("lm_head.weight" in model.state_dict()) is not tied
    hidden = torch.randn(1, 3, 48)
    table = model.model.embed_tokens.weight if tied else model.lm_head.weight
    torch.testing.assert_close(model.logits(hidden), hidden @ table.T)


def test_a_padded_batch_equals_single_sequences() -> None:
    model = random_model()
    lengths = [13, 1, 8]
    embeddings = torch.randn(3, 13, 48)
    mask = torch.arange(13)[None] < torch.tensor(lengths)[:, None]
    poisoned = torch.where(mask[:, :, None], embeddings, torch.nan)
    with torch.no_grad():
        logits = model(poisoned, mask)
        for item, length in enumerate(lengths):
            alone = model(embeddings[item : item + 1, :length])[0]
            torch.testing.assert_close(logits[item, :length], alone, rtol=0, atol=1e-5)
    assert logits.isfinite().all()


def test_a_cache_filled_in_any_pieces_gives_the_same_logits() -> None:
    model = random_model()
    embeddings = torch.randn(1, 12, 48)
    cache = KVCache()
    with torch.no_grad():
        whole = model(embeddings)
        pieces = [model(embeddings[:, a:b], cache=cache) for a, b in [(0, 5), (5, 6), (6, 11), (11, 12)]]
        torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=0, atol=1e-5)
        assert cache.length == 12
        cache.rewind(6)
        assert cache.length == 6
        torch.testing.assert_close(model(embeddings[:, 6:], cache=cache), whole[:, 6:], rtol=0, atol=1e-5)
        cache.reset()
        assert cache.length == 0
        torch.testing.assert_close(model(embeddings, cache=cache), whole, rtol=0, atol=1e-5)


def test_a_mask_together_with_a_cache_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be used with a cache"):
        random_model()(torch.randn(1, 2, 48), torch.ones(1, 2, dtype=torch.bool), KVCache())


def test_greedy_stops_at_a_stop_id_and_keeps_it() -> None:
    model = random_model()
    embeddings = torch.randn(1, 4, 48)
    ids, _ = model.greedy(embeddings, 10)
    stop = ids[3]
    stopped, logits = model.greedy(embeddings, 10, (stop,))
    assert stopped == ids[: ids.index(stop) + 1]
    assert len(logits) == len(stopped)


def test_rotary_scores_depend_on_distance_alone() -> None:
    torch.manual_seed(8)
    query, key = torch.randn(1, 1, 1, 8).double(), torch.randn(1, 1, 1, 8).double()

    def score(query_place: int, key_place: int) -> float:
        turned = [
            Rotary.at(torch.tensor([[place]]), 8, 1e4, torch.float64).apply(vector)
            for vector, place in ((query, query_place), (key, key_place))
        ]
        return float((turned[0] * turned[1]).sum())

    assert score(9, 4) == pytest.approx(score(105, 100), abs=1e-5)
    assert score(9, 4) != pytest.approx(score(9, 5), abs=1e-3)


def test_training_lowers_the_loss_and_reaches_every_parameter() -> None:
    torch.manual_seed(9)
    model = LanguageModel(replace(SMALL, attention_dropout=0.1)).train()
    ids = torch.randint(0, 60, (4, 12))
    mask = torch.arange(12)[None] < torch.tensor([12, 5, 9, 12])[:, None]
    labels = torch.where(mask, ids, -100)[:, 1:]
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    losses = []
    for _ in range(15):
        logits = model(model.embed(ids), mask)[:, :-1]
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert all(value.grad is not None and value.grad.any() for value in model.parameters())
