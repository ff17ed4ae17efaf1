"""Momentum contrast, float64, one query and one negative at a time."""

import math

import torch


def nce_of_one(query, key, negatives, temperature):
    """-log of the softmax probability of the key of one query."""
    terms = [torch.dot(query, key) / temperature]
    terms += [torch.dot(query, negative) / temperature for negative in negatives]
    highest = max(term.item() for term in terms)
    total = sum(torch.exp(term - highest) for term in terms)
    return highest + torch.log(total) - terms[0]


def nce(queries, keys, negatives, temperature):
    """Mean over queries; inputs of any precision."""
    q, k, n = (x.double() for x in (queries, keys.detach(), negatives.detach()))
    return sum(nce_of_one(q[i], k[i], n, temperature) for i in range(len(q))) / len(q)


def nce_gradient(queries, keys, negatives, temperature):
    """Derivative by the queries, by hand: (sum_j p_j n_j + p_0 k - k) / (T N)."""
    q, k, n = (x.detach().double() for x in (queries, keys, negatives))
    rows = []
    for i in range(len(q)):
        logits = [torch.dot(q[i], x).item() / temperature for x in (k[i], *n)]
        highest = max(logits)
        weights = [math.exp(x - highest) for x in logits]
        share = [w / sum(weights) for w in weights]
        mean = share[0] * k[i] + sum(p * x for p, x in zip(share[1:], n, strict=True))
        rows.append((mean - k[i]) / (temperature * len(q)))
    return torch.stack(rows)


def grouped_batch_norm(x, weight, bias, sizes, eps=1e-5):
    """Normalises each group of rows by its own statistics; returns the groups' means and unbiased variances, too."""
    parts, means, variances = [], [], []
    for part in x.double().split(sizes):
        axes = [0, *range(2, part.ndim)]
        shape = [1, -1] + [1] * (part.ndim - 2)
        mean = part.mean(axes)
        squares = ((part - mean.view(shape)) ** 2).sum(axes)
        count = part.numel() // part.shape[1]
        scaled = (part - mean.view(shape)) / torch.sqrt(squares.view(shape) / count + eps)
        parts.append(scaled * weight.double().view(shape) + bias.double().view(shape))
        means.append(mean)
        variances.append(squares / (count - 1))
    return torch.cat(parts), torch.stack(means), torch.stack(variances)
