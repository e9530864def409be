"""From ranks to numbers."""

from mmlit.evaluation.ranking import Ranking

KS = (1, 5, 10)


def summarize(ranking: Ranking) -> dict[str, float]:
    """R@1, 5, 10 in percent and median rank of both directions, and rsum, the sum of the six recalls."""
    metrics: dict[str, float] = {}
    for direction, rank in (("i2t", ranking.i2t_rank), ("t2i", ranking.t2i_rank)):
        for k in KS:
            metrics[f"{direction}_r{k}"] = 100 * (rank <= k).double().mean().item()
        # the mean of the middle two, where their number is even; torch.median takes the lower one
        metrics[f"{direction}_median_rank"] = rank.double().quantile(0.5).item()
    metrics["rsum"] = sum(value for name, value in metrics.items() if "_r" in name and "rank" not in name)
    return metrics
