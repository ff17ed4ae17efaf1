# Two scales, prototypes learned and correlated across scales; tables S-C (last row) and S-D (K0 300, K1 300).
# Published: 79.9 VOC07 linear mAP. Not reproduced here.
# Command: tools/dist_train.sh configs/ssprl/r50_coco_200e_2scales.py 8
_base_ = "./r50_coco_200e.py"

model = dict(pyramid=dict(s1=dict(num_prototypes=300, alpha=0.5, beta=0.5), s2=None))
