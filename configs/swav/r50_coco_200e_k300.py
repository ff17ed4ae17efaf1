# SwAV on COCO with 300 prototypes, as many as scale 0 of SS-PRL has: a choice, and no row of the paper. Other numbers:
# r50_coco_200e.py. Not reproduced here.
# Command: tools/dist_train.sh configs/swav/r50_coco_200e_k300.py 2      (2 x 64 images)
_base_ = "./r50_coco_200e.py"

model = dict(pyramid=dict(s0=dict(num_prototypes=300)))
