"""A plain ``VisionTransformer`` with its attention weights, norm scales and gates held, as explicit matrices in float64.

The residual stream is one long vector of all tokens, every step a matrix ``[T D, T D]`` and a bias; an entry is written one
token, head and edge at a time.  Nothing is taken from the package.
"""

from __future__ import annotations

import math

import numpy as np
from slow_vit import array, gelu, linear, norm


def norm_matrix(module, x):
    """The norm of one token with its scale held: ``[D, D]`` and its bias."""
    width = len(x)
    scale = math.sqrt(x.var() + module.eps)
    return np.diag(array(module.weight)) @ (np.eye(width) - 1 / width) / scale, array(module.bias)


def gain(scale, width):
    return array(scale.gamma) if hasattr(scale, "gamma") else np.ones(width)


def attention_map(block, tokens):
    """What attention adds to all tokens: a matrix and a bias, and the matrix and bias of every head alone."""
    count, (width,) = len(tokens), tokens[0].shape
    heads = block.attn.num_heads
    size = width // heads
    qkv, bias = array(block.attn.qkv.weight), array(block.attn.qkv.bias)
    projection, gamma = array(block.attn.proj.weight), gain(block.ls1, width)
    normed = [linear(block.attn.qkv, norm(block.norm1, token)) for token in tokens]
    parts = []
    for h in range(heads):
        cut = slice(h * size, (h + 1) * size)
        value = slice(2 * width + h * size, 2 * width + (h + 1) * size)
        matrix, added = np.zeros((count * width, count * width)), np.zeros(count * width)
        for t in range(count):
            scores = np.array([normed[t][:width][cut] @ normed[s][width : 2 * width][cut] for s in range(count)])
            weights = np.exp(scores / math.sqrt(size))
            weights /= weights.sum()
            for s in range(count):
                slope, shift = norm_matrix(block.norm1, tokens[s])
                moved = gamma[:, None] * projection[:, cut] * weights[s]
                rows, columns = slice(t * width, (t + 1) * width), slice(s * width, (s + 1) * width)
                matrix[rows, columns] += moved @ qkv[value] @ slope
                added[rows] += moved @ (qkv[value] @ shift + bias[value])
        parts.append((matrix, added))
    rest = np.tile(gamma * array(block.attn.proj.bias), count)
    return sum(p[0] for p in parts), sum(p[1] for p in parts) + rest, parts


def mlp_map(block, tokens):
    """What the MLP adds to all tokens: a matrix and a bias."""
    count, (width,) = len(tokens), tokens[0].shape
    gamma = gain(block.ls2, width)
    matrix, added = np.zeros((count * width, count * width)), np.zeros(count * width)
    for t in range(count):
        slope, shift = norm_matrix(block.norm2, tokens[t])
        before = linear(block.mlp.fc1, norm(block.norm2, tokens[t]))
        gated = gamma[:, None] * array(block.mlp.fc2.weight) * (gelu(before) / before)
        rows = slice(t * width, (t + 1) * width)
        matrix[rows, rows] = gated @ array(block.mlp.fc1.weight) @ slope
        added[rows] = gated @ (array(block.mlp.fc1.weight) @ shift + array(block.mlp.fc1.bias))
        added[rows] += gamma * array(block.mlp.fc2.bias)
    return matrix, added


def slow_flow(model, embedded, wanted):
    """Values ``[T]`` and bias at every point of the residual stream, and what passes through heads by source ``[L][H][T]``."""
    count, width = embedded.shape
    steps, streams = [], [embedded.ravel()]
    for block in model.blocks:
        for kind in ("attention", "mlp"):
            tokens = streams[-1].reshape(count, width)
            matrix, added, *parts = (attention_map if kind == "attention" else mlp_map)(block, tokens)
            steps.append((matrix, added, parts[0] if parts else None))
            streams.append(streams[-1] + matrix @ streams[-1] + added)
    slope, shift = norm_matrix(model.norm, streams[-1].reshape(count, width)[0])
    row = np.zeros(count * width)
    row[:width] = array(model.head.weight)[wanted] @ slope
    bias = array(model.head.weight)[wanted] @ shift + array(model.head.bias)[wanted]
    found, heads = [((row * streams[-1]).reshape(count, width).sum(axis=1), bias)], []
    for (matrix, added, parts), before in zip(reversed(steps), reversed(streams[:-1]), strict=True):
        if parts is not None:
            by_source = [(row @ part * before).reshape(count, width).sum(axis=1) for part, _ in parts]
            heads.append((by_source, [row @ own for _, own in parts]))
        bias = bias + row @ added
        row = row + row @ matrix
        found.append(((row * before).reshape(count, width).sum(axis=1), bias))
    return found[::-1], heads[::-1]
