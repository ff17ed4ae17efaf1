"""An atlas whose images, prototypes and places on the map are known."""

import numpy as np
from PIL import ExifTags, Image

from sspyr_mm.checkpoints import load_pretraining
from sspyr_mm.reports.atlas.atlas_map import ScaleMap, compute_map
from sspyr_mm.reports.atlas.scale_atlas import ScaleAtlas, measure_atlas

COLOURS = ((200, 40, 40), (40, 160, 60), (50, 70, 210), (220, 200, 60))


def make_atlas(folder):
    """Ten images of 80 x 60 pixels, whose four quarters have colours; a prototype of scale s1 is a colour.

    Image 7 is stored turned, with an EXIF orientation.
    """
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 3, (10, 4))
    colours[4, 3] = 3
    paths = []
    for number, quarters in enumerate(colours):
        image = np.zeros((60, 80, 3), np.uint8)
        for cell, colour in enumerate(quarters):
            y, x = divmod(cell, 2)
            image[30 * y : 30 * y + 30, 40 * x : 40 * x + 40] = COLOURS[colour]
        paths.append(str(folder / f"{number}, <b>ü.png"))
        stored = Image.fromarray(image)
        exif = stored.getexif()
        if number == 7:
            stored = stored.transpose(Image.Transpose.ROTATE_90)
            exif[ExifTags.Base.Orientation] = 6
        stored.save(paths[-1], exif=exif)
    whole = np.tile([0, 0, 80, 60], (10, 1))
    quarters = np.tile([[0, 0, 40, 30], [40, 0, 80, 30], [0, 30, 40, 60], [40, 30, 80, 60]], (10, 1))
    score = np.linspace(0.9, 0.5, 40)
    score[[0, 35]] = score[[35, 0]]  # the order of cosines is not that of files
    first = ScaleAtlas("s0", 1, 3, whole, np.arange(10) % 2, score[:10], score[:10] / 10)
    second = ScaleAtlas("s1", 4, 6, quarters, colours.ravel(), score, score / 10)
    weights = np.zeros((3, 6), np.float32)
    weights[0, [1, 3, 5]], weights[1, 2] = (0.5, 0.25, 0.9), 0.75  # no cell has 5
    return [first, second], paths, {"s1": weights}, colours


def make_maps(colours):
    """A map of the cells of the first nine images in s1: each colour is in a corner."""
    rows = np.arange(36)
    corners = np.array([[-0.7, 0.7], [0.7, 0.7], [-0.7, -0.7], [0.7, -0.7]])
    place = corners[colours.ravel()[rows]] + np.random.default_rng(0).uniform(-0.1, 0.1, (36, 2))
    neighbours = (rows[:, None] + [1, 2]) % 36
    return {"s1": ScaleMap(rows, place.astype(np.float32), neighbours)}


def measure_maps(checkpoint, paths, num_mapped):
    """Returns a network, its atlas of images, and the maps of ``num_mapped`` cells."""
    _, model = load_pretraining(str(checkpoint))
    atlas = measure_atlas(model, paths, num_mapped=num_mapped)
    return model, atlas, {part.scale: compute_map(part) for part in atlas}
