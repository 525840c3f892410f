"""A small transformer that learns to write like Python's manual, letter by letter.

byzsgd local --task examples/characters.py:characters --steps 600 --learning-rate 1 \
    --batch-size 32 --attack sign-flip --server-attack equivocate
"""

from pydoc_data.topics import topics

import torch
from torch import Tensor, nn

from byzsgd.tasks.torch_task import Examples, TorchTask

LETTERS = 128
"""ASCII: the same on every node, whatever its text has."""


class Transformer(nn.Module):
    """From letters ``(n, context)`` to scores of the next letter at each place."""

    def __init__(self, context: int, width: int, layers: int) -> None:
        super().__init__()
        self.letter = nn.Embedding(LETTERS, width)
        self.place = nn.Embedding(context, width)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=True
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.mix = nn.Linear(width, width)
        self.scores = nn.Linear(width, LETTERS, bias=False)
        for table in (self.letter, self.place):
            nn.init.normal_(table.weight, std=width**-0.5)
        self.scores.weight = self.letter.weight  # Tied: one part of the vector, in two places.
        # A constant buffer: it stays on the node.
        self.register_buffer("later", torch.ones(context, context).triu(1).bool())

    def forward(self, letters: Tensor) -> Tensor:
        """Scores ``(n, context, LETTERS)``."""
        inner = self.letter(letters.long()) + self.place.weight
        for layer in self.layers:
            inner = layer(inner, src_mask=self.later)
        scores: Tensor = self.scores(self.mix(self.norm(inner)))
        return scores


def windows(text: str, context: int) -> Examples:
    """Every stretch of a text, and the same one letter further: views, so no copy is made."""
    letters = torch.frombuffer(bytearray(text.encode("ascii", "replace")), dtype=torch.uint8)
    return letters[:-1].unfold(0, context, 1), letters[1:].unfold(0, context, 1)


def loss(scores: Tensor, following: Tensor) -> Tensor:
    """Mean of minus the log-probability of the letters that follow."""
    return nn.functional.cross_entropy(scores.flatten(0, 1), following.flatten().long())


def accuracy(scores: Tensor, following: Tensor) -> float:
    """The share of letters that are foretold."""
    return float((scores.argmax(dim=2) == following).float().mean())


def characters(context: int = 32, width: int = 32, layers: int = 2) -> TorchTask:
    """The task; its arguments can be set in the cluster file, under ``[task_options]``."""
    text = " ".join(" ".join(topics[name] for name in sorted(topics)).split())
    held_out = len(text) // 50

    def test_data() -> Examples:
        letters, following = windows(text[-held_out:], context)
        return letters[::context], following[::context]

    return TorchTask(
        model=lambda: Transformer(context, width, layers),
        data=lambda _share: windows(text[:-held_out], context),
        loss=loss,
        test_data=test_data,
        accuracy=accuracy,
    )
