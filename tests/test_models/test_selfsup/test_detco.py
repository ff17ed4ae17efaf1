"""DetCo: twelve terms by loops, and the jigsaw from pixels to patches."""

import math

import numpy as np
import pytest
import torch
from mmpretrain.registry import MODELS
from references.contrast import nce
from small_contrast import MODELS_BY_NAME, batch_of, build, config_of, total
from torch.nn import functional as F

from sspyr_mm.models import PyramidAugment
from sspyr_mm.models.data_preprocessors.augment_params import draw_cells

JIGSAW = MODELS_BY_NAME["DetCo"]["views"]


def test_losses_equal_twelve_terms_written_out():
    model = build("DetCo").double()
    inputs = batch_of(0, 4, model)
    queue = {name: q.embeddings[0].clone() for name, q in model.head.queues.items()}
    assert list(queue) == [f"{kind}{i}" for kind in "gl" for i in range(4)]

    def embed(backbone, neck, view):
        whole = backbone(inputs["main"][view, :, 0])
        parts = [backbone(inputs["jigsaw"][view].flatten(0, 1))]
        found = {}
        for i in range(4):
            found[f"g{i}"] = neck.global_mlps[i](whole[i].mean(dim=(2, 3)))
            rows = parts[0][i].mean(dim=(2, 3))
            together = torch.stack([torch.cat([rows[9 * b + m] for m in range(9)]) for b in range(4)])
            found[f"l{i}"] = neck.local_mlps[i](together)
        return {name: F.normalize(z, dim=1) for name, z in found.items()}

    # Groups of four images: all whole images, all patches.
    for module in model.modules():
        if hasattr(module, "group_size"):
            module.group_size = 36
    queries = embed(model.backbone, model.neck, 0)
    with torch.no_grad():
        keys = embed(model.momentum["backbone"], model.momentum["neck"], 1)
    for module in model.modules():
        if hasattr(module, "group_size"):
            module.group_size = 4
    losses = model.loss(inputs)
    for i in range(4):
        weight = (i + 1) / 4
        g, k, local, local_key = queries[f"g{i}"], keys[f"g{i}"], queries[f"l{i}"], keys[f"l{i}"]
        expected = {
            f"loss_image{i}": weight * nce(g, k, queue[f"g{i}"], 0.2),
            f"loss_patch{i}": weight * nce(local, local_key, queue[f"l{i}"], 0.2),
            f"loss_across{i}": weight * nce(local, k, queue[f"g{i}"], 0.2),
        }
        for name, value in expected.items():
            assert losses[name].item() == pytest.approx(value.item(), rel=1e-9), name
    assert len([name for name in losses if name.startswith("loss")]) == 12
    model.finish_step(0.9)
    for name, q in model.head.queues.items():
        torch.testing.assert_close(q.embeddings[0, :4], keys[name], rtol=1e-9, atol=0)


@pytest.mark.parametrize(("weights", "per_term"), [({}, 2.2), ({"level_weights": (1, 2, 3, 4)}, 10)])
def test_equal_embeddings_cost_what_the_weights_say(weights, per_term):
    """3 x 2.2 x ln(1 + L) by default: 73.20 with L = 65536."""
    cfg = {**config_of("DetCo"), **weights}
    del cfg["head"]["terms"]
    model = MODELS.build(cfg)
    assert list(model.head.queues) == [f"{kind}{i}" for kind in "gl" for i in range(4)]
    same = torch.eye(1, 8).expand(4, -1)
    for queue in model.head.queues.values():
        queue.embeddings[:] = same[0]
    losses = model.head.loss(*({f"{kind}{i}": same for kind in "gl" for i in range(4)} for _ in range(2)))
    assert total(losses).item() == pytest.approx(3 * per_term * math.log(21), rel=1e-5)


def pixels_of(num):
    """Regions whose pixels tell their row and column: 3 per row in red, 3 per column in green."""
    y, x = np.mgrid[:75, :75]
    image = np.stack([3 * y, 3 * x, np.full_like(x, 7)], axis=-1).astype(np.uint8)
    return torch.from_numpy(np.broadcast_to(image, (num, 2, 75, 75, 3)).copy())


def augment_of(**changes):
    plain = dict(flip_prob=0.0, jitter_prob=0.0, gray_prob=0.0, blur_prob=0.0, mean=(0, 0, 0), std=(255, 255, 255))
    return PyramidAugment(views=dict(jigsaw=JIGSAW["jigsaw"]), **{**plain, **changes})


def patches_of(augment, seeds):
    inputs = {"jigsaw": pixels_of(len(seeds)), "seed": torch.tensor(seeds)}
    return augment({"inputs": inputs})["inputs"]["jigsaw"]


def test_patches_are_a_shuffled_cut_of_the_region():
    seeds = list(range(60))
    augment = augment_of()
    patches = patches_of(augment, seeds) * 255
    assert patches.shape == (2, 60, 9, 3, 20, 20)
    top, left = (patches[:, :, :, c, 0, 0].round() / 3 for c in (0, 1))
    cell = (top // 25 * 3 + left // 25).long()
    assert torch.equal(cell.sort(dim=2).values, torch.arange(9).expand(2, 60, 9))  # every cell once
    assert not torch.equal(cell[0], cell[1]) and len(cell.flatten(0, 1).unique(dim=0)) > 110  # another order per view
    offset = torch.cat([(top % 25).flatten(), (left % 25).flatten()])
    assert set(offset.tolist()) == {0, 1, 2, 3, 4, 5}  # 25 px cells, 20 px patches
    # Patches are unbroken pieces of the region.
    steps = patches[..., 0, 1:, :] - patches[..., 0, :-1, :]
    assert torch.allclose(steps, torch.tensor(3.0), atol=1e-3)
    group = augment.views.groups[0]
    first, second = draw_cells(seeds, group)
    assert torch.equal(torch.from_numpy(first), top.flatten().long())
    assert torch.equal(torch.from_numpy(second), left.flatten().long())
    alone = draw_cells([seeds[7]], group)[0].reshape(2, 9)
    assert np.array_equal(alone, first.reshape(2, 60, 9)[:, 7])  # from its own seed alone


def test_the_region_is_augmented_as_a_whole():
    """All nine patches have one colour change and one flip; the mean of contrast is the region's."""
    seeds = list(range(20))
    flipped = patches_of(augment_of(flip_prob=0.5), seeds) * 255
    steps = (flipped[..., 1, :, 1:] - flipped[..., 1, :, :-1]).mean(dim=(3, 4)).round()
    assert set(steps.flatten().tolist()) == {3, -3}
    assert (steps == steps[:, :, :1]).all()
    plain = patches_of(augment_of(), seeds)
    changed = patches_of(augment_of(jitter_prob=1.0, jitter=(0, 0.5, 0, 0)), seeds)
    # Contrast: new = f * old + (1 - f) * mean of the luma of the region.
    weights = torch.tensor([0.2989, 0.587, 0.114]).view(3, 1, 1)
    mean = (pixels_of(1)[0, 0].permute(2, 0, 1) / 255 * weights).sum(0).mean()
    inside = (changed > 0.001) & (changed < 0.999) & ((plain - mean).abs() > 0.1)
    factor = torch.where(inside, (changed - mean) / (plain - mean), torch.nan).flatten(3)
    assert factor.nanmedian(dim=3).values.std(dim=2).max() < 1e-3
    assert (factor.nanmedian(dim=3).values[:, :, 0].std() > 0.1).item()


def test_both_ways_of_augmentation_give_the_same_patches(monkeypatch):
    augment = PyramidAugment(views=JIGSAW, with_seeds=True)
    rng = torch.Generator().manual_seed(0)
    inputs = {
        "main": torch.randint(0, 256, (3, 2, 32, 32, 3), generator=rng, dtype=torch.uint8),
        "jigsaw": torch.randint(0, 256, (3, 2, 75, 75, 3), generator=rng, dtype=torch.uint8),
        "seed": torch.tensor([4, 5, 6]),
    }
    one_by_one = augment({"inputs": inputs})["inputs"]
    monkeypatch.setattr(augment, "augment_one_by_one", augment.augment_in_batches)
    batches = augment({"inputs": inputs})["inputs"]
    assert list(batches) == ["jigsaw", "main", "seed"]
    for name in ("main", "jigsaw"):
        torch.testing.assert_close(one_by_one[name], batches[name], atol=2e-2, rtol=0)
    assert torch.equal(batches["seed"], inputs["seed"])
