"""The ring buffer against a plain list."""

import pytest
import torch

from sspyr_mm.models import FeatureQueue
from sspyr_mm.models.assigners import feature_queue


def rows(num, start, num_views=2, dim=3):
    """(V, N, D), every row recognisable: sample number, plus 1000 in view 1."""
    numbers = torch.arange(start, start + num).float()[None, :, None]
    return numbers.expand(num_views, num, dim) + 1000 * torch.arange(num_views)[:, None, None]


def sorted_rows(stored):
    """Per view the first channel of its rows, sorted: order in the buffer is free."""
    return stored[..., 0].sort(dim=1).values


@pytest.mark.parametrize(
    "pushes", [[4, 4, 4, 4, 4], [3, 5, 2, 7, 1, 6], [10, 10], [13], [25, 3], [1] * 23, [9, 12, 4], [0, 10, 0]]
)
def test_holds_the_last_rows_of_each_view(pushes):
    queue = FeatureQueue(10, 3)
    pushed = 0
    for num in pushes:
        queue.push(rows(num, start=pushed + 1))
        pushed += num
        assert queue.num_pushed == pushed
        assert queue.is_full == (pushed >= 10)
        kept = min(pushed, 10)
        expected = rows(kept, start=pushed - kept + 1)
        filled = sorted_rows(queue.embeddings)[:, 10 - kept :]
        assert torch.equal(filled, sorted_rows(expected))
        assert torch.equal(queue.shard(), queue.embeddings[:, : 10 if pushed >= 10 else 0])


def test_overwrites_the_oldest_rows_in_place():
    queue = FeatureQueue(5, 3)
    address = queue.embeddings.data_ptr()
    queue.push(rows(3, start=1))
    queue.push(rows(4, start=4))
    assert queue.embeddings[0, :, 0].tolist() == [6, 7, 3, 4, 5]
    assert queue.embeddings.data_ptr() == address


def test_stores_copies_without_gradient():
    queue = FeatureQueue(4, 3)
    new = rows(4, start=1).clone().requires_grad_()
    queue.push(new)
    with torch.no_grad():
        new.zero_()
    assert not queue.embeddings.requires_grad
    assert torch.equal(queue.embeddings, rows(4, start=1))


def test_half_precision_rows_are_stored_as_float32():
    queue = FeatureQueue(4, 3)
    queue.push(rows(4, start=1).bfloat16())
    assert queue.embeddings.dtype == torch.float32
    assert torch.equal(queue.embeddings, rows(4, start=1).bfloat16().float())


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_shards_hold_every_row_once(monkeypatch, world_size):
    queue = FeatureQueue(10, 3)
    queue.push(rows(10, start=1))
    monkeypatch.setattr(feature_queue, "get_world_size", lambda: world_size)
    shards = []
    for rank in range(world_size):
        monkeypatch.setattr(feature_queue, "get_rank", lambda rank=rank: rank)
        shards.append(queue.shard())
    assert max(s.shape[1] for s in shards) - min(s.shape[1] for s in shards) <= 1
    assert torch.equal(sorted_rows(torch.cat(shards, dim=1)), sorted_rows(rows(10, start=1)))


@pytest.mark.parametrize("pushed", [0, 4, 10, 17])
def test_restored_queue_continues_like_the_original(pushed, tmp_path):
    queue, restored = FeatureQueue(10, 3), FeatureQueue(10, 3)
    queue.push(rows(pushed, start=1))
    torch.save(queue.state_dict(), tmp_path / "queue.pth")
    restored.load_state_dict(torch.load(tmp_path / "queue.pth"))
    for q in (queue, restored):
        q.push(rows(4, start=pushed + 1))
    assert restored.num_pushed == queue.num_pushed == pushed + 4
    assert torch.equal(restored.embeddings, queue.embeddings)


@pytest.mark.parametrize("length", [0, -1])
def test_bad_length(length):
    with pytest.raises(ValueError, match=f"length must be >= 1, got {length}.*queue_length=0"):
        FeatureQueue(length, 3)
