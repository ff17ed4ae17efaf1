# Two scales with K0 300 and K1 150 prototypes; table S-D.
# Published: 79.9 VOC07 linear mAP. Not reproduced here.
# Command: tools/dist_train.sh configs/ssprl/r50_coco_200e_2scales_k300_k150.py 8
_base_ = "./r50_coco_200e_2scales.py"

model = dict(pyramid=dict(s0=dict(num_prototypes=300), s1=dict(num_prototypes=150)))
