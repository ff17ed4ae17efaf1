"""InsLoc and MaskCo: levels, boxes and masks against code written out."""

import copy
import math

import pytest
import torch
from references.contrast import nce
from small_contrast import batch_of, build, total
from torch.nn import functional as F

from sspyr_mm.models.layers import crop_map
from sspyr_mm.models.selfsup.maskco import mask


def bilinear(feats, y, x):
    """Value of a map (C, H, W) at a point, as RoIAlign reads it."""
    _, height, width = feats.shape
    if y < -1 or y > height or x < -1 or x > width:
        return torch.zeros(feats.shape[0], dtype=feats.dtype)
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    v, u = y - top, x - left
    upper = (1 - u) * feats[:, top, left] + u * feats[:, top, right]
    return (1 - v) * upper + v * ((1 - u) * feats[:, bottom, left] + u * feats[:, bottom, right])


def crop_by_loops(feats, box, scale, size):
    left, top, right, bottom = (value * scale - 0.5 for value in box)
    bin_h, bin_w = (bottom - top) / size, (right - left) / size
    rows, columns = math.ceil(bin_h), math.ceil(bin_w)
    out = torch.zeros(feats.shape[0], size, size, dtype=feats.dtype)
    for i in range(size):
        for j in range(size):
            for v in range(rows):
                for u in range(columns):
                    y = top + (i + (v + 0.5) / rows) * bin_h
                    x = left + (j + (u + 0.5) / columns) * bin_w
                    out[:, i, j] += bilinear(feats, y, x) / (rows * columns)
    return out


def test_regions_are_bilinear_samples_also_beyond_the_border():
    feats = torch.randn(4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[3.0, 5.0, 40.0, 50.0], [0, 0, 64, 64], [-20, -8, 30, 70], [10, 10, 12, 11]]).double()
    got = crop_map(feats, boxes, 64, size=3)
    for i in range(4):
        expected = crop_by_loops(feats[i], boxes[i].tolist(), 8 / 64, 3)
        torch.testing.assert_close(got[i], expected, rtol=1e-9, atol=1e-12)


def test_insloc_takes_the_similar_box_at_the_last_level_of_the_query_alone():
    model = build("InsLoc").double()
    inputs = batch_of(0, 4, model)
    queue = {name: q.embeddings[0].clone() for name, q in model.head.queues.items()}
    other = copy.deepcopy(model)
    order = inputs["seed"].argsort()

    def embed(backbone, neck, view, rows):
        images, boxes = inputs["main"][view, rows, 0], inputs["main_boxes"][view, rows]
        levels = list(neck.fpn({str(i): x for i, x in enumerate(backbone(images))}).values())
        assert len(levels) == 4
        regions = []
        for number, level in enumerate(levels):
            box = boxes[:, 1] if view == 0 and number == 3 else boxes[:, 0]
            regions.append(crop_map(level, box, 64, size=7))
        for module in neck.head.modules():
            if hasattr(module, "group_size"):
                module.group_size = 16  # four levels of four images
        z = neck.head(torch.stack(regions, dim=1).flatten(0, 1)).unflatten(0, (4, 4))
        return {f"p{i}": F.normalize(z[:, i], dim=1) for i in range(4)}

    queries = embed(other.backbone, other.neck, 0, torch.arange(4))
    with torch.no_grad():
        shuffled = embed(other.momentum["backbone"], other.momentum["neck"], 1, order)
    keys = {}
    for name, k in shuffled.items():
        keys[name] = torch.empty_like(k)
        keys[name][order] = k
    losses = model.loss(inputs)
    for name in queue:
        wanted = nce(queries[name], keys[name], queue[name], 0.2)
        assert losses[f"loss_{name}"].item() == pytest.approx(wanted.item(), rel=1e-9)
    assert sorted(queue) == ["p0", "p1", "p2", "p3"] and len(losses) == 8


def test_equal_embeddings_of_four_levels_cost_what_is_known():
    assert 4 * math.log(1 + 65536) == pytest.approx(44.36, abs=0.005)
    model = build("InsLoc")
    same = torch.eye(1, 8).expand(4, -1)
    for queue in model.head.queues.values():
        queue.embeddings[:] = same[0]
    embedded = {f"p{i}": same for i in range(4)}
    assert total(model.head.loss(embedded, embedded)).item() == pytest.approx(4 * math.log(21), rel=1e-5)


def test_masks_fill_the_box_exactly():
    patches = torch.ones(2, 3, 8, 8)
    boxes = torch.tensor([[2.0, 1.0, 5.0, 8.0], [1.4, 0.0, 3.6, 2.5]])
    masked = mask(patches, boxes)
    assert patches.all()
    expected = torch.ones(2, 8, 8)
    expected[0, 1:8, 2:5] = 0
    expected[1, 0:2, 1:4] = 0  # centres .5, 1.5 in rows; 1.5, 2.5, 3.5 in columns
    assert torch.equal(masked, expected[:, None].expand(-1, 3, -1, -1))


def test_maskco_hides_the_region_from_the_query_and_predicts_it_there_alone():
    model = build("MaskCo").double()
    with torch.no_grad():
        for block in model.mask_predictor:
            block.bn3.weight.fill_(0.7)
    inputs = batch_of(0, 4, model)
    inputs["seed"] = torch.arange(4)
    queue = model.head.queues["main"].embeddings[0].clone()
    other = copy.deepcopy(model)
    view, boxes = inputs["main"][:, :, 0], inputs["main_boxes"][:, :, 0]
    hidden = view[0].clone()
    for image, (left, top, right, bottom) in enumerate(boxes[0].tolist()):
        for y in range(hidden.shape[-2]):
            for x in range(hidden.shape[-1]):
                if left < x + 0.5 < right and top < y + 0.5 < bottom:
                    hidden[image, :, y, x] = 0
    feats = other.mask_predictor(other.backbone(hidden)[-1])
    queries = other.neck(crop_map(feats, boxes[0], 96, size=3).mean(dim=(2, 3)))
    with torch.no_grad():
        whole = other.momentum["backbone"](view[1])[-1]
        keys = other.momentum["neck"](crop_map(whole, boxes[1], 96, size=3).mean(dim=(2, 3)))
    expected = nce(F.normalize(queries, dim=1), F.normalize(keys, dim=1), queue, 0.2)
    losses = model.loss(inputs)
    assert losses["loss_main"].item() == pytest.approx(expected.item(), rel=1e-9)
    total(losses).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.mask_predictor.parameters())


def test_prediction_head_starts_as_the_identity():
    model = build("MaskCo")
    feats = torch.rand(4, 64, 3, 3)
    assert torch.equal(model.mask_predictor(feats), feats)
    assert not any(name.startswith("momentum.mask_predictor") for name in model.state_dict())
