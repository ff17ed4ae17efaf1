# Two scales, prototypes learned and correlated across scales: 79.9 VOC07 linear mAP (tables S-C, S-D: K0 300, K1 300).
# Command: tools/dist_train.sh configs/ssprl/r50_coco_200e_2scales.py 8
_base_ = "./r50_coco_200e.py"

model = dict(pyramid=dict(s1=dict(num_prototypes=300, alpha=0.5, beta=0.5), s2=None))
