"""An independent, slow forward pass of a timm ``VisionTransformer``: one token, head and edge at a time, in numpy."""

from __future__ import annotations

import math

import numpy as np


def array(tensor):
    return tensor.detach().double().numpy()


def norm(module, x):
    weight, bias = array(module.weight), array(module.bias)
    return (x - x.mean()) / math.sqrt(x.var() + module.eps) * weight + bias


def gelu(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def linear(module, x):
    return array(module.weight) @ x + array(module.bias)


def slow_forward(model, embedded, *, keep=None, before=None, renormalise=False, dead_heads=(), dead=(), patches=()):
    """Streams after every block and logits for embedded tokens ``[T, D]``.

    keep(block, head, reader, source) -> bool: what is not kept is 0 after the softmax (with renormalise: masked before
    it); before: the same, always masked before the softmax; dead_heads: (block, head); dead: (block, "attention"|"mlp");
    patches: (block, token, vector).
    """
    if renormalise:
        before, keep = keep, None
    x = list(embedded)
    count, heads = len(x), model.blocks[0].attn.num_heads
    streams = []
    for number, block in enumerate(model.blocks, start=1):
        normed = [norm(block.norm1, row) for row in x]
        qkv = [linear(block.attn.qkv, row) for row in normed]
        width = len(x[0])
        size = width // heads
        added = []
        for t in range(count):
            joined = np.zeros(width)
            for h in range(heads):
                cut = slice(h * size, (h + 1) * size)
                query = qkv[t][:width][cut]
                scores = []
                for s in range(count):
                    score = query @ qkv[s][width : 2 * width][cut] / math.sqrt(size)
                    if before is not None and not before(number, h, t, s):
                        score = -math.inf
                    scores.append(score)
                weights = np.exp(np.array(scores) - max(scores))
                weights /= weights.sum()
                for s in range(count):
                    if keep is None or keep(number, h, t, s):
                        joined[cut] += weights[s] * qkv[s][2 * width :][cut]
                if (number, h) in dead_heads:
                    joined[cut] = 0
            a = linear(block.attn.proj, joined)
            if hasattr(block.ls1, "gamma"):
                a = a * array(block.ls1.gamma)
            added.append(np.zeros(width) if (number, "attention") in dead else a)
        x = [x[t] + added[t] for t in range(count)]
        for t in range(count):
            m = linear(block.mlp.fc2, gelu(linear(block.mlp.fc1, norm(block.norm2, x[t]))))
            if hasattr(block.ls2, "gamma"):
                m = m * array(block.ls2.gamma)
            x[t] = x[t] + (np.zeros(len(m)) if (number, "mlp") in dead else m)
        for at, token, vector in patches:
            if at == number:
                x[token] = np.array(vector, dtype=float)
        streams.append(np.stack(x))
    return streams, linear(model.head, norm(model.norm, x[0]))
