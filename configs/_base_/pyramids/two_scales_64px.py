# Two scales for CPUs and small images. Sizes in pixels.
model = dict(
    pyramid=dict(
        s0=dict(grid=1, region=64, patch=64, area=(0.14, 1.0), num_prototypes=60, alpha=1.0),
        s1=dict(grid=2, region=96, patch=40, area=(0.6, 1.0), num_prototypes=60, alpha=0.5, beta=0.5),
    )
)
