"""Data sets of pictures with labels and masks: the accepted kinds, and their preparation for a model."""

from classspace_widgets.data.boxes import box_folder
from classspace_widgets.data.coco import coco
from classspace_widgets.data.sets import ArrayDataset, RowDataset, image_folder, imagenet_s
from classspace_widgets.data.shards import Shards, tar_shards
from classspace_widgets.data.voc import voc
from classspace_widgets.masks import DatasetError as DatasetError
from classspace_widgets.masks import token_mask

__all__ = [
    "ArrayDataset",
    "RowDataset",
    "Shards",
    "box_folder",
    "coco",
    "image_folder",
    "imagenet_s",
    "tar_shards",
    "token_mask",
    "voc",
]
