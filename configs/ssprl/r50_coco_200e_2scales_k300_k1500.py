# Two scales with K0 300 and K1 1500 prototypes; table S-D.
# Published: 79.6 VOC07 linear mAP. Not reproduced here.
# Command: tools/dist_train.sh configs/ssprl/r50_coco_200e_2scales_k300_k1500.py 8
_base_ = "./r50_coco_200e_2scales.py"

model = dict(pyramid=dict(s0=dict(num_prototypes=300), s1=dict(num_prototypes=1500)))
