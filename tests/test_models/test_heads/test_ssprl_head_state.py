"""The head's state in a checkpoint: restored with its queues, and rejected where the pyramid or variant differs."""

import pytest
import torch
from small_head import LOSSES, D, make_embeddings, make_pyramid

from sspyr_mm.models import SSPRLHead


@pytest.mark.parametrize("variant", LOSSES)
def test_state_dict_restores_queues_and_losses(variant, tmp_path):
    torch.manual_seed(0)
    pyramid = make_pyramid(2, queues=True)
    head, restored = (SSPRLHead(pyramid, D, variant=variant) for _ in range(2))
    for step in range(2):
        head.loss(make_embeddings(2, seed=step))
    torch.save(head.state_dict(), tmp_path / "head.pth")
    restored.load_state_dict(torch.load(tmp_path / "head.pth"))
    for step in range(2, 5):
        expected = head.loss(make_embeddings(2, seed=step))
        output = restored.loss(make_embeddings(2, seed=step))
        assert {n: v.item() for n, v in output.items()} == {n: v.item() for n, v in expected.items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(num_prototypes=9), r"prototypes.s1.weight: \(5, 8\) in the checkpoint, \(9, 8\) in the model"),
        (dict(queue_length=3), "queues.s1.embeddings"),
        (dict(queue_length=0), "queues.s1.embeddings: in the checkpoint, not in the model"),
        (None, "prototypes.s1.weight: in the checkpoint, not in the model"),
    ],
)
def test_a_checkpoint_of_another_pyramid_is_refused(change, message):
    pyramid = make_pyramid(2, queues=True)
    state = SSPRLHead(pyramid, D).state_dict()
    other = {**pyramid, "s1": None if change is None else {**pyramid["s1"], **change}}
    head = SSPRLHead(other, D)
    for strict in (True, False):
        with pytest.raises(ValueError, match=message):
            head.load_state_dict(state, strict=strict)
    SSPRLHead(pyramid, D).load_state_dict(state)


def test_a_checkpoint_of_the_other_variant_is_refused():
    pyramid = make_pyramid(2)
    state = SSPRLHead(pyramid, D).state_dict()
    with pytest.raises(ValueError, match=r"correlation\.s1\.linear\.bias: in the checkpoint, not in the model"):
        SSPRLHead(pyramid, D, variant="official").load_state_dict(state, strict=False)
