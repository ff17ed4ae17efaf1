# Scale 0 alone, the baseline of tables S-C (first row) and S-D (K0 300, K1 0).
# Published: 79.2 VOC07 linear mAP. Not reproduced here.
# Command: tools/dist_train.sh configs/ssprl/r50_coco_200e_1scale.py 8
_base_ = "./r50_coco_200e.py"

model = dict(pyramid=dict(s1=None, s2=None))
