"""The table of data sets under BrainCog's names: sizes, classes, normalisation, folders and where the files come from.

Nothing here imports torch, so that the command line can list the names at once. Class tables are constants: a label
never depends on what a folder happens to hold. A set is added by one entry here and, for a new file format, one reader
in `readers.py`.
"""

from dataclasses import dataclass, replace
from typing import Literal

from ..errors import unknown
from .classes import (
    BULLYING10K,
    CIFAR10,
    CIFAR100,
    DIGITS,
    DVSC10,
    DVSG,
    FASHION,
    HMDB51,
    NCALTECH101,
    NCARS,
    OMNIGLOT,
    SHD,
    TINY_IMAGENET,
    UCF101,
)
from .settings import Augment

__all__ = ["DATASETS", "DatasetInfo", "lookup"]


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """Describe one data set.

    Args:
        name: BrainCog's name.
        kind: pictures, event recordings, or sequences of spikes in channels without a place.
        num_classes: number of classes of the whole set.
        in_chans: channels of a picture, or polarities (OFF, ON) of events; 1 for a sequence.
        size: (H, W) that a network sees by default; for events the sensor's; (1, channels) for a sequence.
        length: steps of a sequence whose number is not chosen, None for all other data.
        mean: per channel, of training pictures in [0, 1]; empty for events, which stay raw counts.
        std: the same for the standard deviation.
        colours: where `mean` and `std` come from, and who uses others.
        classes: names in the order of the labels; empty where the folders name them (`imnet`), the files (`ssc`, in
            extra/keys) or nothing does (`esimnet`, whose lists have numbers).
        samples: (training, test) samples of the complete set; (all, 0) where there is no official test split.
        editions: the same of other complete editions.
        text_order: the classes sorted by the names of their folders as text, where checkpoints or loaders with such
            labels were published.
        tree: what must lie where below the data folder.
        source: how to get it.
        downloadable: whether `--download` fetches it.
        folder: name of its folder below the data folder.
        places: every folder below the data folder in which it is looked for, in this order.
        split_folders: folders of the official training and test split, if there is one.
        splits: named splits of a set without an official one, the default first.
        marks: files or folders of which one shows that the set lies there; by default recordings in class folders.
        endings: of the recordings' files.
        smallest: size in bytes below which a recording is passed over as empty.
        top_left: whether recordings differ in size, and are shifted to the sensor's first column and row.
        given_steps: steps that a recording comes in, for a set whose events have no other times.
        validation: whether there is a validation split besides, for `--split valid`.
        augment: what is varied in training where the user says nothing.
    """

    name: str
    kind: Literal["image", "event", "sequence"]
    num_classes: int
    in_chans: int
    size: tuple[int, int]
    length: int | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    colours: str = ""
    classes: tuple[str, ...] = ()
    samples: tuple[int, int]
    editions: tuple[tuple[int, int], ...] = ()
    text_order: tuple[int, ...] = ()
    tree: str
    source: str
    downloadable: bool = False
    folder: str = ""
    places: tuple[str, ...] = (".",)
    split_folders: tuple[str, str] | None = None
    splits: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    endings: tuple[str, ...] = ()
    smallest: int = 0
    top_left: bool = False
    given_steps: int = 0
    validation: bool = False
    augment: Augment


# Small grey digits: a flip makes another character, colour changes mean nothing.
_PLAIN = Augment(
    scale=(1.0, 1.0), ratio=(1.0, 1.0), hflip=0.0, vflip=0.0, color_jitter=0.0, aa="", reprob=0.0, remode="const",
    recount=1, train_interpolation="bicubic", interpolation="bicubic", crop_pct=1.0, event_augment="none",
)  # fmt: skip
# Spikformer's recipe (scale fixed at 1, so no random crop).
_CIFAR = Augment(
    scale=(1.0, 1.0), ratio=(1.0, 1.0), hflip=0.5, vflip=0.0, color_jitter=0.0, aa="spikformer-m9-n1-mstd0.4-inc1",
    reprob=0.25, remode="const", recount=1, train_interpolation="bicubic", interpolation="bicubic", crop_pct=1.0,
    event_augment="none",
)  # fmt: skip
_SMALL_PHOTOS = replace(_CIFAR, aa="", reprob=0.0)
# The defaults of BrainCog's command line, which are timm's.
_PHOTOS = Augment(
    scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), hflip=0.5, vflip=0.0, color_jitter=0.4, aa="rand-m9-mstd0.5-inc1",
    reprob=0.25, remode="pixel", recount=1, train_interpolation="random", interpolation="bicubic", crop_pct=0.875,
    event_augment="none",
)  # fmt: skip
_NO_EVENT_AUGMENT = Augment(hflip=0.0, vflip=0.0, event_augment="none")
# BrainCog's loader: padded random crop and flip.
_CROP_AND_FLIP = Augment(hflip=0.5, vflip=0.0, event_augment="crop")

_PIX2NVS = "unpack the archives that github.com/PIX2NVS/NVS2Graph links to"

_ENTRIES = (
    DatasetInfo(
        name="digits", kind="image", num_classes=10, in_chans=1, size=(8, 8), mean=(0.3053,), std=(0.3760,),
        classes=DIGITS, samples=(1437, 360), tree="nothing, it comes with scikit-learn",
        colours="measured on the training digits",
        source="install scikit-learn, which braincog requires", augment=_PLAIN,
    ),
    DatasetInfo(
        name="ndigits", kind="event", num_classes=10, in_chans=2, size=(34, 34), classes=DIGITS, samples=(1437, 360),
        tree="nothing, it is simulated from scikit-learn's digits at first use",
        source="install scikit-learn, which braincog requires", split_folders=("Train", "Test"), endings=(".bin",),
        augment=_NO_EVENT_AUGMENT,
    ),
    DatasetInfo(
        name="nmnist", kind="event", num_classes=10, in_chans=2, size=(34, 34), classes=DIGITS, samples=(60000, 10000),
        tree="NMNIST/Train/<0..9>/NNNNN.bin and NMNIST/Test/<0..9>/NNNNN.bin",
        source="unpack Train.zip and Test.zip of Mendeley data set 468j46mzdv (garrickorchard.com/datasets/n-mnist)",
        downloadable=True, folder="NMNIST", places=("nmnist", "NMNIST", "DVS/N-MNIST/NMNIST", "."),
        split_folders=("Train", "Test"), endings=(".bin",), augment=_NO_EVENT_AUGMENT,
    ),
    DatasetInfo(
        name="dvsc10", kind="event", num_classes=10, in_chans=2, size=(128, 128), classes=DVSC10, samples=(10000, 0),
        tree="dvsc10/<airplane..truck>/*.aedat (or *.aedat4)",
        source="unpack the ten class archives of figshare article 4724671 (.aedat), or CIFAR10DVS.zip of figshare file "
        "38023437 (.aedat4)",
        downloadable=True, folder="dvsc10", augment=_CROP_AND_FLIP,
        places=("dvsc10", "CIFAR10DVS", "DVS/DVS_Cifar10/CIFAR10DVS", "extract", "."),
        splits=("text", "tebn", "random"), endings=(".aedat", ".aedat4"),
    ),
    DatasetInfo(
        name="dvsg", kind="event", num_classes=11, in_chans=2, size=(128, 128), classes=DVSG, samples=(1176, 288),
        tree="DvsGesture/{trials_to_train.txt,trials_to_test.txt,<trial>.aedat,<trial>_labels.csv} (or tonic's "
        "DVSGesture/ibmGesture{Train,Test}/<trial>/<0..10>.npy)",
        source="unpack DvsGesture.tar.gz of research.ibm.com/dvsgesture", downloadable=True, folder="DvsGesture",
        places=(
            "DvsGesture", "dvsg", "DVSGesture", "DVS128Gesture", "DVS128Gesture/extract/DvsGesture",
            "DVS/DVSGesture/DVSGesture", ".",
        ),
        editions=((1077, 264),), text_order=tuple(sorted(range(11), key=str)),
        marks=("trials_to_train.txt", "ibmGestureTrain"),
        endings=(".aedat", ".npy"), augment=_NO_EVENT_AUGMENT,
    ),
    DatasetInfo(
        name="ncaltech101", kind="event", num_classes=101, in_chans=2, size=(180, 240), classes=NCALTECH101,
        samples=(8709, 0), tree="NCALTECH101/Caltech101/<BACKGROUND_Google..yin_yang>/image_NNNN.bin",
        source="unpack Caltech101.zip of Mendeley data set cy6cvx3ryv (garrickorchard.com/datasets/n-caltech101)",
        downloadable=True, folder="NCALTECH101",
        places=(
            "ncaltech101", "NCALTECH101/Caltech101", "NCALTECH101", "ncaltech101/Caltech101", "Caltech101",
            "DVS/NCALTECH101/NCALTECH101/Caltech101", "DVS/NCALTECH101/NCALTECH101", ".",
        ),
        splits=("stratified", "random", "text"), endings=(".bin",), top_left=True, augment=_NO_EVENT_AUGMENT,
    ),
    DatasetInfo(
        name="ncars", kind="event", num_classes=2, in_chans=2, size=(100, 120), classes=NCARS, samples=(15422, 8607),
        tree="NCARS/{train,test}/{background,cars}/*.dat",
        source="unpack Prophesee_Dataset_n_cars.zip of prophesee.ai, and the two archives in it", folder="NCARS",
        places=("ncars", "NCARS", "Prophesee_Dataset_n_cars", "DVS/NCARS/NCARS", "."), split_folders=("train", "test"),
        endings=(".dat",), top_left=True, augment=_NO_EVENT_AUGMENT,
    ),
    DatasetInfo(
        name="UCF101DVS", kind="event", num_classes=101, in_chans=2, size=(180, 240), classes=UCF101,
        samples=(9740, 3783), tree="UCF101DVS/{train,val}/<ApplyEyeMakeup..YoYo>/*.mat",
        source=f"{_PIX2NVS}, and move the recordings of UCF101's testlist01.txt to val", folder="UCF101DVS",
        places=("UCF101DVS", "UCF101DVS/UCF101DVS", "DVS/UCF101DVS/UCF101DVS", "."), split_folders=("train", "val"),
        endings=(".mat",), smallest=1024, augment=_NO_EVENT_AUGMENT,
    ),
    DatasetInfo(
        name="HMDBDVS", kind="event", num_classes=51, in_chans=2, size=(180, 240), classes=HMDB51, samples=(6765, 0),
        tree="HMDBDVS/<brush_hair..wave>/*.mat", source=_PIX2NVS, folder="HMDBDVS",
        places=("HMDBDVS", "HMDBDVS/HMDBDVS", "DVS/HMDBDVS/HMDBDVS", "."), splits=("stratified", "random", "text"),
        endings=(".mat",), smallest=1024, augment=_NO_EVENT_AUGMENT,
    ),
    DatasetInfo(
        name="bullying10k", kind="event", num_classes=10, in_chans=2, size=(260, 346), classes=BULLYING10K,
        samples=(8000, 2000), tree="Bullying10K/<fingerguess..walking>/**/*.npy (or *.aedat4)",
        source="unpack the ten class archives of Bullying10K on figshare (arxiv.org/abs/2306.11546)",
        folder="Bullying10K", places=("bullying10k", "Bullying10K", "Bullying10k", "DVS/Bullying10k", "."),
        text_order=tuple(sorted(range(10), key=BULLYING10K.__getitem__)), marks=BULLYING10K,
        endings=(".npy", ".aedat4"), augment=_NO_EVENT_AUGMENT,
    ),
    DatasetInfo(
        name="esimnet", kind="event", num_classes=1000, in_chans=2, size=(224, 224), samples=(1257035, 49881),
        tree="ES-imagenet-0.18/{train,val}/*.npz and ES-imagenet-0.18/{trainlabel,vallabel}.txt",
        source="unpack the 25 parts of ES-imagenet-0.18 at cloud.tsinghua.edu.cn/d/94873ab4ec2a4eb497b3",
        folder="ES-imagenet-0.18", places=("ES-imagenet-0.18", "esimnet", "ESimagenet", "DVS/ES-imagenet-0.18", "."),
        marks=("trainlabel.txt",), endings=(".npz",), given_steps=8, augment=_NO_EVENT_AUGMENT,
    ),
    DatasetInfo(
        name="nomni", kind="event", num_classes=1623, in_chans=2, size=(250, 250), classes=OMNIGLOT,
        samples=(24345, 8115),
        tree="NOmniglot/dvs_{background,evaluation}/<alphabet>/characterNN/{NNNN.aedat4,NNNN.csv} (or BrainCog's "
        "NOmniglot/events_npy/{background,evaluation}/<alphabet>/characterNN/NNNN_MM.npy)",
        source="unpack the archives of N-Omniglot on figshare (doi.org/10.1038/s41597-022-01851-z)",
        folder="NOmniglot", places=("NOmniglot", "nomni", "N-Omniglot", "DVS/NOmniglot", "."),
        marks=("dvs_background", "events_npy"), endings=(".aedat4", ".npy"), augment=_NO_EVENT_AUGMENT,
    ),
    DatasetInfo(
        name="ssc", kind="sequence", num_classes=35, in_chans=1, size=(1, 700), samples=(75466, 20382),
        editions=((75466, 9981),), validation=True,
        tree="SSC/ssc_train.h5, SSC/ssc_valid.h5 and SSC/ssc_test.h5 (or .h5.gz)",
        source="unpack ssc_train.h5.zip, ssc_valid.h5.zip and ssc_test.h5.zip of zenkelab.org/datasets",
        downloadable=True, folder="SSC", places=("SSC", "ssc", "DVS/SSC/SSC", "."),
        marks=("ssc_train.h5", "ssc_train.h5.gz"), augment=Augment(),
    ),
    DatasetInfo(
        name="shd", kind="sequence", num_classes=20, in_chans=1, size=(1, 700), classes=SHD, samples=(8156, 2264),
        tree="SHD/shd_train.h5 and SHD/shd_test.h5 (or .h5.gz)",
        source="unpack shd_train.h5.zip and shd_test.h5.zip of zenkelab.org/datasets", downloadable=True, folder="SHD",
        places=("SHD", "shd", "DVS/SHD/SHD", "."), marks=("shd_train.h5", "shd_train.h5.gz"), augment=Augment(),
    ),
    DatasetInfo(
        name="smnist", kind="sequence", num_classes=10, in_chans=1, size=(1, 1), length=784, mean=(0.1307,),
        std=(0.3081,), classes=DIGITS, samples=(60000, 10000), colours="as mnist",
        tree="MNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte, each picture read pixel by pixel, row after row,",
        source="torchvision fetches it", downloadable=True, folder="MNIST/raw", places=(".", "mnist"),
        marks=("MNIST/raw",), augment=Augment(),
    ),
    DatasetInfo(
        name="psmnist", kind="sequence", num_classes=10, in_chans=1, size=(1, 1), length=784, mean=(0.1307,),
        std=(0.3081,), classes=DIGITS, samples=(60000, 10000), colours="as mnist",
        tree="MNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte, the pixels of each picture read in the order "
        "numpy.random.RandomState(92916).permutation(784),",
        source="torchvision fetches it", downloadable=True, folder="MNIST/raw", places=(".", "mnist"),
        marks=("MNIST/raw",), augment=Augment(),
    ),
    DatasetInfo(
        name="scifar10", kind="sequence", num_classes=10, in_chans=1, size=(1, 3), length=1024,
        mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616), classes=CIFAR10, samples=(50000, 10000),
        colours="as cifar10", tree="cifar-10-batches-py/{data_batch_1..5,test_batch,batches.meta}, each picture "
        "read pixel by pixel, row after row,",
        source="torchvision fetches it", downloadable=True, folder="cifar-10-batches-py", places=(".", "cifar10"),
        marks=("cifar-10-batches-py",), augment=Augment(),
    ),
    DatasetInfo(
        name="mnist", kind="image", num_classes=10, in_chans=1, size=(28, 28), mean=(0.1307,), std=(0.3081,),
        classes=DIGITS, samples=(60000, 10000), tree="MNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte",
        colours="of the training pictures, as in BrainCog",
        source="torchvision fetches it", downloadable=True, folder="MNIST/raw", places=(".", "mnist"), augment=_PLAIN,
    ),
    DatasetInfo(
        name="fashion", kind="image", num_classes=10, in_chans=1, size=(28, 28), mean=(0.2860,), std=(0.3530,),
        classes=FASHION, samples=(60000, 10000),
        tree="FashionMNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte (not .gz)",
        source="torchvision fetches it", downloadable=True, folder="FashionMNIST/raw", places=(".", "fashion"),
        colours="of the training pictures; BrainCog leaves them in [0, 1]",
        augment=_PLAIN,
    ),
    DatasetInfo(
        name="cifar10", kind="image", num_classes=10, in_chans=3, size=(32, 32), mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616), classes=CIFAR10, samples=(50000, 10000),
        tree="cifar-10-batches-py/{data_batch_1..5,test_batch,batches.meta}", source="torchvision fetches it",
        colours="of the training pictures, as in the Spikformer family; SpikingResformer and BrainCog have std 0.2023, "
        "0.1994, 0.2010",
        downloadable=True, folder="cifar-10-batches-py", places=(".", "cifar10"), augment=_CIFAR,
    ),
    DatasetInfo(
        name="cifar100", kind="image", num_classes=100, in_chans=3, size=(32, 32), mean=(0.5071, 0.4867, 0.4408),
        std=(0.2675, 0.2565, 0.2761), classes=CIFAR100, samples=(50000, 10000),
        tree="cifar-100-python/{train,test,meta}", source="torchvision fetches it", downloadable=True,
        colours="of the training pictures; BrainCog uses those of CIFAR-10",
        folder="cifar-100-python", places=(".", "cifar100"), augment=_CIFAR,
    ),
    DatasetInfo(
        name="tinyimagenet", kind="image", num_classes=200, in_chans=3, size=(64, 64), mean=(0.4802, 0.4481, 0.3975),
        std=(0.2770, 0.2691, 0.2821), classes=TINY_IMAGENET, samples=(100000, 10000),
        colours="of the training pictures, as commonly quoted; BrainCog uses ImageNet's",
        tree="tiny-imagenet-200/{wnids.txt,train/<wnid>/images/*.JPEG,val/images/*.JPEG,val/val_annotations.txt}",
        source="unpack tiny-imagenet-200.zip of cs231n.stanford.edu", folder="tiny-imagenet-200",
        places=(".", "tinyimagenet", "TinyImageNet"), marks=("tiny-imagenet-200/wnids.txt",), augment=_SMALL_PHOTOS,
    ),
    DatasetInfo(
        name="imnet", kind="image", num_classes=1000, in_chans=3, size=(224, 224), mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225), samples=(1281167, 50000),
        tree="imnet/train/<class>/*.JPEG and imnet/val/<class>/*.JPEG (or validation/; or train.tar and val.tar, or "
        "folders of tars)",
        source="unpack the ILSVRC2012 archives of image-net.org and sort the validation pictures into class folders",
        colours="timm's IMAGENET_DEFAULT_MEAN and IMAGENET_DEFAULT_STD",
        folder="imnet", places=(".", "ILSVRC2012", "imnet"), augment=_PHOTOS,
    ),
)  # fmt: skip

DATASETS: dict[str, DatasetInfo] = {entry.name: entry for entry in _ENTRIES}


def lookup(name: str) -> DatasetInfo:
    """Return the entry of a data set.

    Raises:
        UserError: for a name that is not in the table.
    """
    if name not in DATASETS:
        raise unknown("data set", name, DATASETS)
    return DATASETS[name]
