"""N-CARS: cars and background, as an ATIS camera behind a windscreen saw them."""

from ..registry import EventSet, register_dataset

register_dataset(
    EventSet(
        name="ncars", num_classes=2, size=(100, 120), classes=("background", "cars"), samples=(15422, 8607),
        tree="NCARS/{train,test}/{background,cars}/*.dat",
        source="unpack Prophesee_Dataset_n_cars.zip of prophesee.ai, and the two archives in it",
        citation="Sironi et al., HATS: Histograms of Averaged Time Surfaces for Robust Event-based Object "
        "Classification (CVPR 2018)",
        folders=("ncars", "NCARS", "Prophesee_Dataset_n_cars", "DVS/NCARS/NCARS", "."), split_folders=("train", "test"),
        endings=(".dat",), top_left=True,
    )
)  # fmt: skip
