"""The formats of data sets in files: COCO's JSON, YOLO, label images and Pascal VOC."""
