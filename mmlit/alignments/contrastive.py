"""Contrastive alignment: two heads and a softmax over the global batch, both ways."""

from torch import Tensor

from mmlit.contracts import Alignment, Encoded, ImageSpec, Pairs, TextSpec
from mmlit.layers.heads import HeadKind, SharedSpace
from mmlit.layers.similarity import Temperature, cosine, pooled_only
from mmlit.losses.reweighted_info_nce import check_reweighting, reweighted_info_nce
from mmlit.losses.tiled_info_nce import tiled_info_nce


class Contrastive(Alignment):
    """Symmetric InfoNCE on cosines; every pair of the batch with one image id is a positive.

    Args:
        image: the image encoder's spec.
        text: the text encoder's spec.
        dim: E, or None for the width of the side whose head is `identity`.
        image_head: the image side's head.
        text_head: the text side's head.
        dropout: in the heads, in [0, 1).
        temperature: divides the cosines; the start value where it is learned, then in [0.01, 1].
        learn_temperature: whether it is learned.
        label_smoothing: share of each row's target that is spread over the whole batch, in [0, 1).
        hardness: β ≥ 0: other items count in proportion to e^(β · score), so that the hardest ones count most.
        decoupled: whether positives are left out of the denominator.

    Raises:
        ValueError: if a number is out of range, or the heads do not fit.

    Source: Radford et al. 2021, Fig. 3, arXiv 2103.00020; Zhang et al. 2020 (ConVIRT), Eq. 2–3, arXiv 2010.00747. Label
    smoothing: Szegedy et al. 2016, Sec. 7, arXiv 1512.00567; hardness: Robinson et al. 2020, Sec. 3, arXiv 2010.04592,
    for image–text pairs Radenovic et al. 2023 (DiHT, HN-NCE), arXiv 2301.02280; decoupled: Yeh et al. 2021, "Decoupled
    contrastive learning", Sec. 3, arXiv 2110.06848.
    Differs: several positives per row (see `mmlit.losses.info_nce`), none of which is ever among the others that
    hardness weighs; one β for both directions.
    When: the first choice, and the one to beat: cheap to train, ranked by one matrix product.
    """

    def __init__(
        self,
        *,
        image: ImageSpec,
        text: TextSpec,
        dim: int | None,
        image_head: HeadKind,
        text_head: HeadKind,
        dropout: float,
        temperature: float,
        learn_temperature: bool,
        label_smoothing: float,
        hardness: float,
        decoupled: bool,
    ) -> None:
        super().__init__()
        check_reweighting(label_smoothing, hardness)
        self.space = SharedSpace(
            image=image, text=text, dim=dim, image_head=image_head, text_head=text_head, dropout=dropout
        )
        self.temperature = Temperature(initial=temperature, learn=learn_temperature)
        self.label_smoothing, self.hardness, self.decoupled = label_smoothing, hardness, decoupled

    def embed_image(self, image: Encoded) -> Encoded:
        """Unit vector of each image."""
        return pooled_only(self.space.embed_image(image.pooled))

    def embed_text(self, text: Encoded) -> Encoded:
        """Unit vector of each text."""
        return pooled_only(self.space.embed_text(text.pooled))

    def losses(self, pairs: Pairs) -> dict[str, Tensor]:
        """Half of the cross-entropy of each image's row and half of each text's."""
        scale, smoothing = self.temperature.scale(), self.label_smoothing
        if smoothing or self.hardness or self.decoupled:
            i2t, t2i = reweighted_info_nce(
                pairs, scale, label_smoothing=smoothing, hardness=self.hardness, decoupled=self.decoupled
            )
        else:
            i2t, t2i = tiled_info_nce(pairs, scale)
        return {"i2t": 0.5 * i2t, "t2i": 0.5 * t2i}

    def score(self, image: Encoded, text: Encoded) -> Tensor:
        """Cosine of the two unit vectors."""
        return cosine(image.pooled, text.pooled)

    def after_step(self, pairs: Pairs) -> None:
        """Keeps the learned temperature in bounds."""
        self.temperature.clamp()
