"""The parts that answer, put together: embeddings of words, pictures and sound into one sequence, and its loss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from sottovoce.demos.miniature.model import build_language_model, build_vision_encoder, use_bfloat16
from sottovoce.demos.miniature.prompts import AUDIO_ID, IGNORED, IMAGE_ID, Batch, Row, collate_rows
from sottovoce.export.modules.language_model import LanguageModel
from sottovoce.export.modules.llama_layer import KVCache
from sottovoce.export.modules.vision_encoder import VisionEncoder


class Learner(nn.Module):
    """Language model and vision encoder around the frozen embedding table; in fp32 throughout when not `training`."""

    def __init__(self, table: NDArray[np.float32], blank: int, training: bool = True) -> None:
        super().__init__()
        self.blank = blank
        self.llm: LanguageModel = build_language_model(len(table), torch.from_numpy(table))
        self.vision: VisionEncoder = build_vision_encoder()
        if training:
            use_bfloat16(self)

    def embed(self, batch: Batch, pixels: Tensor, heard: Tensor | None = None) -> Tensor:
        """(B, T) ids with placeholders → (B, T, 256).

        Args:
            batch: rows; made-up sound is in it.
            pixels: (tiles, 3, S, S), tiles in their order of appearance.
            heard: (n, 256) embeddings of the audio encoder, end to end, in their order of appearance.
        """
        embeddings = self.llm.embed(batch.ids.clamp(min=0))
        if len(pixels):
            embeddings = embeddings.index_put(((batch.ids == IMAGE_ID).nonzero(as_tuple=True)),
                                              self.vision(pixels).flatten(0, 1).to(embeddings.dtype))  # fmt: skip
        if len(batch.made_up):
            embeddings = embeddings.index_put(batch.made_up_places.nonzero(as_tuple=True), batch.made_up)
        if heard is not None:
            places = (batch.ids == AUDIO_ID) & ~batch.made_up_places
            embeddings = embeddings.index_put(places.nonzero(as_tuple=True), heard.to(embeddings.dtype))
        return embeddings

    def reply_loss(self, rows: Sequence[Row], pixels: Tensor, heard: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Cross-entropy of the replies' tokens, and (B,) whether each reply is right throughout (teacher-forced)."""
        batch = collate_rows(rows, self.blank, self.llm.config.hidden_size)
        logits = self.llm(self.embed(batch, pixels, heard))
        target = batch.labels[:, 1:]
        learned = target != IGNORED
        chosen = logits[:, :-1][learned]
        # Every reply counts the same, however long: it is right or wrong as a whole.
        losses = F.cross_entropy(chosen.float(), target[learned], reduction="none")
        replies = torch.tensor([row.replies for row in rows])[:, None]
        a_reply = (learned.sum(1, keepdim=True) / replies).expand(learned.shape)[learned]
        loss = 0.5 * losses.mean() + 0.5 * (losses / a_reply).sum() / replies.sum()
        with torch.no_grad():
            wrong = torch.zeros_like(learned)
            wrong[learned] = chosen.argmax(-1) != target[learned]
        return loss, ~wrong.any(1)

    @torch.no_grad()
    def answer(
        self, rows: Sequence[Row], pixels: Tensor, heard: Tensor | None, end: int, steps: int = 40
    ) -> list[list[int]]:
        """Greedy replies to prompts, all at once: prompts are grouped by length, since the cache knows no padding."""
        batch = collate_rows(rows, self.blank, self.llm.config.hidden_size)
        embeddings = self.embed(batch, pixels, heard)
        replies: list[list[int]] = [[] for _ in rows]
        lengths = torch.tensor([len(row.ids) for row in rows])
        for length in lengths.unique().tolist():
            places = (lengths == length).nonzero().flatten().tolist()
            for place, reply in zip(places, self._greedy(embeddings[places, :length], end, steps), strict=True):
                replies[place] = reply
        return replies

    def _greedy(self, embeddings: Tensor, end: int, steps: int) -> list[list[int]]:
        cache = KVCache()
        logits = self.llm(embeddings, cache=cache)[:, -1]
        replies: list[list[int]] = [[] for _ in range(len(embeddings))]
        going = torch.ones(len(embeddings), dtype=torch.bool)
        for _ in range(steps):
            ids = logits.argmax(-1)
            going &= ids != end
            if not going.any():
                break
            for i in going.nonzero().flatten().tolist():
                replies[i].append(int(ids[i]))
            logits = self.llm(self.llm.embed(ids[:, None]), cache=cache)[:, -1]
        return replies
