# Scales 0, 1, 2 of the paper (section B): 1, 4 and 9 patches a view. Sizes in pixels.
model = dict(
    pyramid=dict(
        s0=dict(grid=1, region=224, patch=224, area=(0.14, 1.0), num_prototypes=300, alpha=1.0),
        s1=dict(
            grid=2,
            region=314,
            patch=112,
            area=(0.6, 1.0),
            num_prototypes=150,
            alpha=0.25,
            beta=0.25,
        ),
        s2=dict(grid=3, region=383, patch=96, area=(0.6, 1.0), num_prototypes=150, alpha=0.25, beta=0.25),
    )
)
