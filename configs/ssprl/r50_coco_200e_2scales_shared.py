# Two scales that share one set of prototypes: 77.8 VOC07 linear mAP (table S-C, second row).
# Command: tools/dist_train.sh configs/ssprl/r50_coco_200e_2scales_shared.py 8
_base_ = "./r50_coco_200e_2scales.py"

model = dict(head=dict(shared_prototypes=True))
