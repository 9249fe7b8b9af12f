"""Data sets and slow, obvious reference measurements for the studies' tests."""

from __future__ import annotations

import numpy as np
import torch

from classspace_widgets.studies.readings import Readings


class Pictures:
    """Random pixels, labels and masks; ``broken`` positions raise."""

    name = "random pictures"

    def __init__(self, count=13, classes=7, size=32, broken=(), masks=True, start=0):
        self.count, self.classes, self.size = count, classes, size
        self.broken, self.masks, self.start = set(broken), masks, start
        self.reads = []

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.reads.append(index)
        if index in self.broken:
            raise OSError(f"truncated file {index}")
        place = index + self.start
        generator = torch.Generator().manual_seed(place)
        pixels = torch.randn(3, self.size, self.size, generator=generator)
        label = int(torch.randint(self.classes, (), generator=generator))
        if not self.masks:
            return pixels, label
        mask = np.zeros((self.size, self.size), np.uint8)
        mask[: self.size // 2, : 8 * (1 + place % 3)] = 1
        return pixels, label, mask


def readings_of(space, dataset, indices, **options):
    """One batch of a data set as `Readings`, the plain way."""
    from classspace_widgets.studies.engine import read_batch

    rows = [dataset[i] for i in indices]
    pixels = torch.stack([r[0] for r in rows])
    labels = torch.tensor([r[1] for r in rows])
    masks = None
    if dataset.masks:
        masks = torch.stack([torch.from_numpy(slow_token_mask(r[2], space.adapter.grid)) for r in rows])
    needs = options.pop("needs", frozenset({"active", "mid"}))
    batch = read_batch(space, pixels, labels, masks, np.asarray(indices), needs=needs)
    assert isinstance(batch, Readings)
    return batch


def slow_token_mask(mask, grid):
    rows, columns = grid
    high, wide = mask.shape[0] // rows, mask.shape[1] // columns
    tokens = np.zeros(rows * columns, np.int8)
    for r in range(rows):
        for c in range(columns):
            patch = mask[r * high : (r + 1) * high, c * wide : (c + 1) * wide]
            tokens[r * columns + c] = int((patch == 1).mean() >= 0.5)
    return tokens


def slow_logits(space, batch, block, stream):
    """Class logits [B, T', C] of a stream: the model's own norm and classifier on summed increments."""
    increments = [i.double() for i in batch.trace.increments]
    if stream == "attention":
        vectors = increments[2 * block - 1]
    elif stream == "mlp":
        vectors = increments[2 * block]
    elif stream == "mid":
        vectors = sum(increments[: 2 * block])
    else:
        vectors = sum(increments[: 2 * block + 1])
    model = space.model
    norm = model.fc_norm if not isinstance(model.fc_norm, torch.nn.Identity) else model.norm
    if batch.trace.pooling == "mean_norm":
        vectors = torch.cat([vectors, vectors[:, len(batch.trace.prefix) :].mean(1, keepdim=True)], dim=1)
    weight = norm.weight.detach().double()
    bias = norm.bias.detach().double()
    with torch.no_grad():
        normed = torch.nn.functional.layer_norm(vectors, (vectors.shape[-1],), weight, bias, norm.eps)
        logits = normed @ model.head.weight.double().T + model.head.bias.double()
        if batch.trace.pooling == "norm_mean":
            logits = torch.cat([logits, logits[:, len(batch.trace.prefix) :].mean(1, keepdim=True)], dim=1)
    return logits.numpy()


def slow_rank(logits, label):
    """Classes with a strictly larger logit, one token."""
    return sum(1 for value in logits if value > logits[label])


def slow_groups(batch, b):
    """Token numbers of each group for one picture."""
    prefix, tokens = len(batch.trace.prefix), batch.trace.n_tokens
    groups = {"image": list(range(prefix, tokens))}
    if prefix:
        groups["[CLS]"] = [0]
    if batch.token_masks is not None:
        groups["class"] = [t for t in groups["image"] if batch.token_masks[b, t - prefix] == 1]
        groups["context"] = [t for t in groups["image"] if batch.token_masks[b, t - prefix] == 0]
    if batch.trace.pooling not in ("token", "distilled"):
        groups["pooled"] = [tokens]
    return groups
