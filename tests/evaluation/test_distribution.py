"""rFID, KID and the Inception score against their formulae, on features that need no network."""

import numpy as np
import pytest
import scipy.linalg
import torch

from vistok.evaluation.distribution import (
    DistributionMetrics,
    frechet_distance,
    inception_score,
    kernel_distance,
)

from .small_inception import SmallInception


@pytest.fixture(scope="module")
def features():
    generator = torch.Generator().manual_seed(0)
    references = torch.randn(300, 16, generator=generator).abs()
    return references + 0.2 * torch.randn(300, 16, generator=generator), references


def test_frechet_distance_is_that_of_scipy(features):
    a, b = (x.double().numpy() for x in features)
    root = scipy.linalg.sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root)
    metric = frechet_distance(16)
    for part in range(0, 300, 70):
        metric.update(features[1][part : part + 70].double(), real=True)
        metric.update(features[0][part : part + 70].double(), real=False)
    assert float(metric.compute()) == pytest.approx(expected, rel=1e-6)


def test_kernel_distance_is_the_unbiased_estimate_of_all_pictures(features):
    # Fewer than 1,000 pictures: each draw is all of them.
    a, b = (x.double() for x in features)
    kernel = lambda x, y: (x @ y.T / 16 + 1) ** 3  # noqa: E731
    n = len(a)
    within = sum((kernel(x, x).sum() - kernel(x, x).diag().sum()) / (n * (n - 1)) for x in (a, b))
    expected = within - 2 * kernel(a, b).mean()
    assert kernel_distance(*features) == pytest.approx(float(expected), rel=1e-3)


def test_inception_score_is_the_mean_over_ten_shuffled_shares():
    logits = torch.randn(200, 7, generator=torch.Generator().manual_seed(1)).double() * 2
    order = torch.randperm(200, generator=torch.Generator().manual_seed(2020))
    scores = []
    for share in logits[order].softmax(1).chunk(10):
        mean = share.mean(0)
        scores.append(np.exp(float((share * (share.log() - mean.log())).sum(1).mean())))
    assert inception_score(logits) == pytest.approx(np.mean(scores), rel=1e-9)


def test_chance_is_the_callers(features):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = kernel_distance(*features)
    assert torch.equal(torch.rand(3), expected)
    assert kernel_distance(*features) == first


@pytest.mark.parametrize("order", [range(9), [8, 0, 3, 1, 7, 2, 6, 5, 4]])
def test_neither_batches_nor_their_order_change_a_number(order):
    pictures = torch.randint(
        0, 256, (9, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    references = pictures.flip(-1) // 2
    names = ["rfid", "kid", "inception_score"]

    def measure(rows):
        metrics = DistributionMetrics(SmallInception(), names)
        for part in rows:
            metrics.update(torch.tensor(part), pictures[part], references[part])
        return metrics.compute()

    whole = measure([list(range(9))])
    single = measure([[row] for row in order])
    assert list(whole) == names
    assert single["kid"] == whole["kid"]
    assert single["inception_score"] == whole["inception_score"]
    assert single["rfid"] == pytest.approx(whole["rfid"], rel=1e-9)


def test_equal_pictures_have_no_distance():
    pictures = torch.randint(0, 256, (9, 3, 8, 8), dtype=torch.uint8)
    metrics = DistributionMetrics(SmallInception(), ["rfid"])
    metrics.update(torch.arange(9), pictures, pictures)
    assert abs(metrics.compute()["rfid"]) < 1e-6
