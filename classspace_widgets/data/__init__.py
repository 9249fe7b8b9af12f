"""Data sets of pictures with labels and masks: the accepted kinds, and their preparation for a model."""

from classspace_widgets.data.classes import ClassMismatchError, match_classes
from classspace_widgets.data.sets import ArrayDataset, PictureFiles, RowDataset, as_dataset, image_folder, imagenet_s
from classspace_widgets.masks import DatasetError, token_mask

__all__ = [
    "ArrayDataset",
    "ClassMismatchError",
    "DatasetError",
    "PictureFiles",
    "RowDataset",
    "as_dataset",
    "image_folder",
    "imagenet_s",
    "match_classes",
    "token_mask",
]
