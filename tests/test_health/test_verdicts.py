"""Verdicts on measures: each sign alone, and none for a healthy run."""

import pytest

from sspyr_mm.health import judge

# Measured on a healthy run of r18_toy_scenes_40e.py at 48 px, 320 iterations.
HEALTHY = dict(
    ratio=0.956, used=59, prototypes=60, codes=320, entropy=0.59, deviation=0.36, rank=4.6, alignment=0.89, position=0.1
)


def test_healthy_measures_show_no_sign():
    assert judge(HEALTHY, "advice") is None
    assert (
        judge(dict(contrast=0.6, image_rank=18.5, image_deviation=0.5, cell_rank=30, cell_deviation=0.5), None) is None
    )
    assert judge({}, None) is None


@pytest.mark.parametrize(
    ("changes", "sign", "remedy"),
    [
        (dict(ratio=1.004), "stuck", "advice"),
        (dict(ratio=0.991), "stuck", "advice"),
        (dict(entropy=0.95), "stuck", "advice"),
        (dict(ratio=1.2), "worse than uniform", "lr"),
        (dict(deviation=0.16), "collapsed", "lr"),
        (dict(used=2), "few prototypes", "num_iterations"),
        (dict(used=1, entropy=1.0, deviation=0.0), "stuck", "advice"),  # equal embeddings: ties of codes
        (dict(used=3, codes=320, prototypes=3000), "few prototypes", "num_iterations"),
        (dict(alignment=0.999), "equal views", "jitter"),
        (dict(position=0.29), "position", "layouts"),
        (dict(position_share=0.78), "position", "padding_mode"),
        (dict(rank=1.2), "few dimensions", "augmentation"),
        (dict(contrast=0.01), "blank images", "browse_views"),
        (dict(queue_steps=20, epoch_steps=8), "old queue", "queue_length"),
    ],
)
def test_sign_is_found_with_its_remedy(changes, sign, remedy):
    finding = judge({**HEALTHY, **changes}, "advice")
    assert finding.sign == sign and remedy in finding.advice


def test_few_used_prototypes_are_healthy_among_few_codes():
    assert judge({**HEALTHY, "used": 40, "codes": 64, "prototypes": 3000}, "advice") is None


def test_loss_that_cannot_be_judged_yet_shows_no_sign():
    """The queue of contrast still holds random vectors."""
    assert judge(dict(ratio=1.0), None) is None
    assert judge(dict(ratio=1.07), None) is None
