# SwAV, ResNet-50 on COCO train2014 without labels; row "SwAV" of the paper's tables S-A and S-B (COCO).
# Command: tools/dist_train.sh configs/swav/r50_coco_200e.py 2      (2 x 64 images)
# It is scale 0 of SS-PRL as the authors' code trains it, with SwAV's 3 000 prototypes; their number for COCO and the
# learning rate for a batch of 128 were not published: a choice. Not reproduced here.
# Prototypes are frozen for one epoch as in SwAV: 646 batches of 128. (The SS-PRL authors' script says 648.)
_base_ = "../ssprl/r50_coco_200e_official.py"

model = dict(pyramid=dict(s0=dict(num_prototypes=3000), s1=None, s2=None))
default_hooks = dict(
    freeze_prototypes=dict(num_iters=646),
    queue=dict(start_epoch=15),
)
