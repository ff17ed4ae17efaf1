"""The contact sheet shows the inputs of the encoder."""

import torch

from sspyr_mm.models import PyramidAugment
from sspyr_mm.reports.sheets import draw_contact_sheet

PYRAMID = {
    "s0": {"region": 40, "patch": 40, "num_prototypes": 8, "alpha": 1.0},
    "s1": {"region": 80, "patch": 40, "grid": 2, "num_prototypes": 6, "alpha": 0.25, "beta": 0.25},
}


def test_regions_and_patches_of_every_image_are_drawn():
    augment = PyramidAugment(PYRAMID, flip_prob=0, jitter_prob=0, gray_prob=0, blur_prob=0)
    colours = torch.tensor([[200, 30, 30], [30, 200, 30], [30, 30, 200], [200, 200, 30]])
    cells = torch.zeros(1, 1, 80, 80, 3, dtype=torch.uint8)
    for m, colour in enumerate(colours):
        top, left = 40 * (m // 2), 40 * (m % 2)
        cells[:, :, top : top + 40, left : left + 40] = colour
    whole = torch.full((2, 2, 40, 40, 3), 90, dtype=torch.uint8)
    inputs = {"s0": whole, "s1": cells.repeat(2, 1, 1, 1, 1), "seed": torch.tensor([1, 2])}
    sheet = draw_contact_sheet(augment, inputs)
    rows, columns = 2, 2 + 2 + 1 + 2
    assert sheet.shape[0] % rows == 0 and sheet.shape[1] % columns == 0
    height, width = sheet.shape[0] // rows, sheet.shape[1] // columns

    def centre(row, column, dy=0.0, dx=0.0):
        return sheet[int(height * (row + 0.55 + dy)), int(width * (column + 0.48 + dx))]

    for row in range(rows):
        for column in range(4):
            assert abs(int(centre(row, column)[0]) - 90) <= 1
        # The region of scale 1, then the patches of V and V': cell m keeps its place and colour.
        for column in (4, 5, 6):
            for m, colour in enumerate(colours):
                dy, dx = (-0.2 if m < 2 else 0.2), (-0.2 if m % 2 == 0 else 0.2)
                shown = torch.tensor(centre(row, column, dy, dx).astype(int))
                assert (shown - colour).abs().max() <= 1
