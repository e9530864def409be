"""The archives of COCO: where they lie, and what was published about them."""

from typing import NamedTuple


class Archive(NamedTuple):
    """A zip file that somebody else published.

    Attributes:
        url: where it is fetched from.
        size: its length in bytes, as published.
        sha256: of the whole file, as published.
        holds: names at its top that are unpacked; what else is in it stays there.
        unpacked: bytes that these names hold at most. A bound of our own: room for it is asked for, more is refused.
    """

    url: str
    size: int
    sha256: str
    holds: tuple[str, ...]
    unpacked: int

    @property
    def name(self) -> str:
        """The file's name, the last part of its address."""
        return self.url.rpartition("/")[2]


#: where every size and every SHA-256 below stands, the seven together in one file
SOURCE = "github.com/tensorflow/datasets, tensorflow_datasets/url_checksums/coco_captions.txt, commit 2a3f49a71e89"

_ZIPS = "http://images.cocodataset.org/zips"
_ANNOTATIONS = "http://images.cocodataset.org/annotations"
_KARPATHY = "https://cs.stanford.edu/people/karpathy/deepimagesent"

#: Source: sizes and SHA-256 from the list that `SOURCE` names; addresses from it and cocodataset.org/#download.
#: The bounds: pictures do not compress, so the archive and a tenth; JSON from the sizes known of annotations of 2014
#: (845 MB in all) and of a split file of that shape (docs/coco.md), with room to spare.
COCO: dict[str, tuple[Archive, ...]] = {
    "2014": (
        Archive(
            f"{_ZIPS}/train2014.zip",
            13_510_573_713,
            "ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775",
            ("train2014",),
            14_900_000_000,
        ),
        Archive(
            f"{_ZIPS}/val2014.zip",
            6_645_013_297,
            "fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0",
            ("val2014",),
            7_300_000_000,
        ),
        Archive(
            f"{_ANNOTATIONS}/annotations_trainval2014.zip",
            252_872_794,
            "031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009",
            ("annotations",),
            1_000_000_000,
        ),
        Archive(
            f"{_KARPATHY}/caption_datasets.zip",
            36_745_453,
            "4cfd70132527b80933105e5829dc9034eaab9573482e2e680abbab6130244817",
            ("dataset_coco.json",),
            300_000_000,
        ),
    ),
    "2017": (
        Archive(
            f"{_ZIPS}/train2017.zip",
            19_336_861_798,
            "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
            ("train2017",),
            21_300_000_000,
        ),
        Archive(
            f"{_ZIPS}/val2017.zip",
            815_585_330,
            "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
            ("val2017",),
            900_000_000,
        ),
        Archive(
            f"{_ANNOTATIONS}/annotations_trainval2017.zip",
            252_907_541,
            "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
            ("annotations",),
            1_000_000_000,
        ),
    ),
}
