"""Operations on whole regions: cells of a jigsaw, pasting, boxes."""

import torch
from torch import Tensor

from sspyr_mm.views import GroupSpec


def cut_cells(regions: Tensor, top: Tensor, left: Tensor, group: GroupSpec) -> Tensor:
    """Cuts the patches of a jigsaw from augmented regions.

    Args:
        regions: (V, B, 1, 3, R, R).
        top: (V * B * M,) int64, in pixels.
        left: Likewise.
        group: The group.

    Returns:
        (V, B, M, 3, P, P).
    """
    num_images, along = regions.shape[1], torch.arange(group.patch, device=regions.device)
    image = torch.arange(group.num_views * num_images, device=regions.device).repeat_interleave(group.num_patches)
    pixels = (image[:, None, None], (top[:, None] + along)[:, :, None], (left[:, None] + along)[:, None, :])
    patches = regions.flatten(0, 2).permute(0, 2, 3, 1)[pixels].permute(0, 3, 1, 2).contiguous()
    return patches.unflatten(0, (group.num_views, num_images, group.num_patches))


def paste(canvases: Tensor, boxes: Tensor) -> Tensor:
    """Puts the foreground of every image on the background of another image of the batch.

    View v of image b has the background of image b - v - 1.

    Args:
        canvases: (B, V + 1, R, R, 3) uint8: foregrounds on empty canvases, then the image as a background.
        boxes: (B, V, n, 4), of which the first is the foreground's; integers.

    Returns:
        (B, V, R, R, 3) uint8.

    Raises:
        ValueError: If the batch has too few images for two different backgrounds.
    """
    num_images, num_views = boxes.shape[:2]
    if num_images <= num_views:
        raise ValueError(
            f"Pasting needs at least {num_views + 1} images per process, so that the {num_views} views of an image "
            f"have different backgrounds, got {num_images}: set train_dataloader.batch_size={num_views + 1} or more"
        )
    along = torch.arange(canvases.shape[2], device=canvases.device)
    left, top, right, bottom = boxes[:, :, 0].unbind(-1)
    rows = (along >= top[..., None]) & (along < bottom[..., None])
    columns = (along >= left[..., None]) & (along < right[..., None])
    inside = rows[..., :, None, None] & columns[..., None, :, None]
    grounds = torch.stack([canvases[:, -1].roll(view + 1, 0) for view in range(num_views)], dim=1)
    return torch.where(inside, canvases[:, :num_views], grounds)


def flip_boxes(boxes: Tensor, flip: Tensor, side: int) -> Tensor:
    """Mirrors the boxes of flipped patches.

    Args:
        boxes: (V, B, n, 4).
        flip: (V * B,) mask of flipped patches.
        side: Side of a region in pixels.

    Returns:
        (V, B, n, 4).
    """
    left, top, right, bottom = boxes.unbind(-1)
    mirrored = torch.stack([side - right, top, side - left, bottom], dim=-1)
    return torch.where(flip.view(*boxes.shape[:2], 1, 1), mirrored, boxes)
