# Two scales that share one set of prototypes; table S-C (second row).
# Published: 77.8 VOC07 linear mAP. Not reproduced here.
# Command: tools/dist_train.sh configs/ssprl/r50_coco_200e_2scales_shared.py 8
_base_ = "./r50_coco_200e_2scales.py"

model = dict(head=dict(shared_prototypes=True))
