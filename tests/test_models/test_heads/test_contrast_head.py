"""The head of momentum contrast: terms, queues, checkpoints."""

import math
import re

import pytest
import torch
from references.contrast import nce
from torch.nn import functional as F

from sspyr_mm.models import ContrastHead

D, LENGTH = 8, 12
TERMS = dict(
    image={},
    patch=dict(weight=0.5),
    across=dict(query="patch", key="image", weight=0.25),
)


def unit(*shape, seed):
    return F.normalize(torch.randn(shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_terms_take_the_queries_keys_and_queues_of_their_names():
    head = ContrastHead(D, queue_length=LENGTH, temperature=0.3, terms=TERMS)
    assert list(head.queues) == ["image", "patch"]
    queries = {"image": unit(5, D, seed=1), "patch": unit(7, D, seed=2)[:5]}
    keys = {"image": unit(5, D, seed=3), "patch": unit(5, D, seed=4)}
    losses = head.loss(queries, keys)
    queue = {name: q.embeddings[0] for name, q in head.queues.items()}
    expected = {
        "image": (1, nce(queries["image"], keys["image"], queue["image"], 0.3)),
        "patch": (0.5, nce(queries["patch"], keys["patch"], queue["patch"], 0.3)),
        "across": (0.25, nce(queries["patch"], keys["image"], queue["image"], 0.3)),
    }
    for name, (weight, value) in expected.items():
        assert losses[f"loss_{name}"].item() == pytest.approx(weight * value.item(), rel=1e-5)
        assert losses[f"nce_ratio_{name}"].item() == pytest.approx(value.item() / math.log(1 + LENGTH), rel=1e-5)
    assert list(losses) == [f"{kind}_{n}" for kind in ("loss", "nce_ratio") for n in TERMS]


def test_queues_start_with_different_unit_vectors_that_are_the_same_in_every_process():
    torch.manual_seed(1)
    head = ContrastHead(D, queue_length=LENGTH, terms=TERMS)
    torch.manual_seed(2)
    other = ContrastHead(D, queue_length=LENGTH, terms=TERMS)
    for name, queue in head.queues.items():
        assert torch.equal(queue.embeddings, other.queues[name].embeddings)
        torch.testing.assert_close(queue.embeddings.norm(dim=-1), torch.ones(1, LENGTH))
        assert not queue.is_full
    assert not torch.equal(head.queues["image"].embeddings, head.queues["patch"].embeddings)


def test_half_precision_embeddings_are_compared_in_float32():
    head = ContrastHead(D, queue_length=LENGTH)
    queries, keys = unit(5, D, seed=1), unit(5, D, seed=2)
    plain = head.loss({"main": queries}, {"main": keys})["loss_main"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(head.loss({"main": queries}, {"main": keys})["loss_main"], plain)


def test_advice_waits_until_the_queue_holds_keys():
    head = ContrastHead(D, queue_length=LENGTH)
    for _ in range(3):
        assert head.stuck_advice("main") is None
        head.push({"main": unit(4, D, seed=0)})
    assert "norm_cfg=dict(type='GroupedBN'" in head.stuck_advice("main")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(temperature=0), "temperature must be > 0, got 0"),
        (dict(queue_length=0), "queue_length must be an integer >= 1, got 0; MoCo"),
        (dict(queue_length=1e3), "queue_length must be an integer >= 1, got 1000.0"),
        (dict(temperature="0.1"), "temperature must be > 0, got '0.1'"),
        (dict(terms=dict(loss={})), "terms.loss: a name must not contain 'loss' or a dot"),
        (dict(terms=dict(a=dict(weight="1"))), "terms.a.weight must be a number >= 0, got '1'"),
        (dict(terms=dict(a=dict(weight=-1))), "terms.a.weight must be a number >= 0, got -1"),
        (dict(terms=dict(a=dict(querry="b"))), "terms.a has unknown fields ['querry']: allowed are ['query'"),
    ],
)
def test_invalid_arguments_are_rejected(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        ContrastHead(D, **arguments)


@pytest.mark.parametrize("terms", [["main"], dict(main=1.0)])
def test_terms_of_another_type_are_rejected(terms):
    with pytest.raises(TypeError, match=r"terms(\.main)? must be a dict"):
        ContrastHead(D, terms=terms)


def test_a_checkpoint_with_another_queue_is_rejected():
    state = ContrastHead(D, queue_length=LENGTH).state_dict()
    with pytest.raises(ValueError, match=r"queues\.main\.embeddings: \(1, 12, 8\) in the checkpoint, \(1, 6, 8\)"):
        ContrastHead(D, queue_length=6).load_state_dict(state)
    restored = ContrastHead(D, queue_length=LENGTH)
    restored.push({"main": unit(5, D, seed=0)})
    restored.load_state_dict(state)
    assert restored.queues["main"].num_pushed == 0
