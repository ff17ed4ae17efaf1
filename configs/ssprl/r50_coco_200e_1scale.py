# Scale 0 alone, the baseline: 79.2 VOC07 linear mAP (table S-C, first row; table S-D, K0 300, K1 0).
# Command: tools/dist_train.sh configs/ssprl/r50_coco_200e_1scale.py 8
_base_ = "./r50_coco_200e.py"

model = dict(pyramid=dict(s1=None, s2=None))
