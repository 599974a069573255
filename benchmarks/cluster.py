"""How fast and how good the visual vocabulary is, beside flat k-means and scikit-learn: ratios from one run.

    python benchmarks/cluster.py            # about two minutes of CPU
    python benchmarks/cluster.py --full     # a million vectors, 20 736 leaves; 5 GB of memory

Everything runs in one thread and is measured in CPU seconds, so that a busy machine changes little. The vectors are a
mixture with structure at several scales: a random tree of centres (branching 6, unevenly filled), each step half a
scale smaller than the one above, and noise that makes neighbours overlap; all with the decaying spectrum of features.

Shape suffixes: N vectors, D numbers a vector, L nodes of a level.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from _measure import save
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans

from vlprep.cluster.assign import Assigner, AssignRule
from vlprep.cluster.polish import polish
from vlprep.cluster.train import TrainSettings, train
from vlprep.cluster.vocabulary import Vocabulary

BRANCHING = 12
BLOCK = 16384
Half = NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class Sizes:
    vectors: int
    depth: int
    dim: int = 1024
    iterations: int = 20
    growth: tuple[int, ...] = (21_000, 42_000)
    """Vectors on which flat k-means is run with as many centroids as the tree has leaves."""
    flat_iterations: int = 1
    quality: int = 32_768
    quality_depth: int = 3


DEFAULT = Sizes(vectors=100_000, depth=4, iterations=10, growth=(21_000,))
FULL = Sizes(vectors=1_000_000, depth=4)


@dataclass(slots=True)
class Findings:
    values: dict[str, Any] = field(default_factory=dict)

    def say(self, name: str, value: float, what: str, target: str = "") -> None:
        self.values[name] = value
        print(f"{name:<34}{value:>12.4g}   {what}" + (f"   [target: {target}]" if target else ""), flush=True)


def mixture(count: int, dim: int, seed: int, *, branching: int = 6, depth: int = 6, noise: float = 0.3) -> Half:
    """(N, D) float16. The centres are the same for every seed."""
    centres, rng = np.random.default_rng(1234), np.random.default_rng(seed)
    spectrum_D = np.arange(1, dim + 1, dtype=np.float32) ** -0.75
    spectrum_D /= np.linalg.norm(spectrum_D)
    share = np.arange(1, branching + 1) ** -0.5
    share /= share.sum()
    nodes_N = np.zeros(count, np.int64)
    paths = []
    for level in range(depth):
        shares = centres.permuted(np.tile(share, (branching**level, 1)), axis=1).cumsum(axis=1)
        digit = (rng.random(count)[:, None] > shares[nodes_N]).sum(axis=1).clip(0, branching - 1)
        nodes_N = nodes_N * branching + digit
        paths.append(nodes_N)
    steps = [
        centres.standard_normal((branching ** (level + 1), dim), dtype=np.float32) * spectrum_D * 0.75**level
        for level in range(depth)
    ]
    vectors_ND = np.empty((count, dim), np.float16)
    for start in range(0, count, BLOCK):
        block = slice(start, start + BLOCK)
        rows = rng.standard_normal((len(nodes_N[block]), dim), dtype=np.float32) * (spectrum_D * noise)
        for path, step in zip(paths, steps, strict=True):
            rows += step[path[block]]
        vectors_ND[block] = rows
    return vectors_ND


def cpu_seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.process_time()
    result = work()
    return time.process_time() - began, result


def assign_all(vectors_ND: Half, vocabulary: Vocabulary, rule: str) -> tuple[NDArray[np.uint16], float]:
    """Tokens, and the mean squared distance."""
    assigner = Assigner(vocabulary, AssignRule.parse(rule))
    tokens_N, total = np.empty(len(vectors_ND), np.uint16), 0.0
    for start in range(0, len(vectors_ND), BLOCK):
        found, distances = assigner(vectors_ND[start : start + BLOCK])
        tokens_N[start : start + BLOCK] = found
        total += float(distances.sum(dtype=np.float64))
    return tokens_N, total / len(vectors_ND)


def tree_seconds(vectors_ND: Half, settings: TrainSettings) -> tuple[float, float, Vocabulary]:
    """CPU seconds of training and of assigning everything by tree descent."""
    training, vocabulary = cpu_seconds(lambda: train(vectors_ND, settings))
    assigning, _ = cpu_seconds(lambda: assign_all(vectors_ND, vocabulary, "tree"))
    return training, assigning, vocabulary


def flat_kmeans(vectors_ND: Half, centroids: int, iterations: int) -> faiss.Kmeans:
    kmeans = faiss.Kmeans(
        vectors_ND.shape[1],
        centroids,
        niter=iterations,
        seed=1,
        min_points_per_centroid=1,
        max_points_per_centroid=len(vectors_ND),
    )
    kmeans.train(vectors_ND.astype(np.float32))
    return kmeans


@contextmanager
def peak_memory(findings: Findings, name: str, target: str) -> Iterator[None]:
    """Gigabytes that were resident at most within the block, above what was there before."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    except OSError:
        yield
        return
    before = _status("VmRSS")
    yield
    findings.say(name, (_status("VmHWM") - before) / 1e6, "GB beyond the sample, at most", target)


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


class CountingKmeans(faiss.Kmeans):
    """Counts the rows that all k-means together went over, iterations that convergence saved not included."""

    rows = rows_iterated = 0

    def train(self, x: NDArray[np.float32], *args: Any, **options: Any) -> float:
        error: float = super().train(x, *args, **options)
        CountingKmeans.rows += len(x)
        CountingKmeans.rows_iterated += len(x) * len(self.obj)
        return error


def measure_tree(vectors_ND: Half, sizes: Sizes, findings: Findings) -> float:
    settings = TrainSettings(branching=BRANCHING, depth=sizes.depth, iterations=sizes.iterations)
    original, faiss.Kmeans = faiss.Kmeans, CountingKmeans
    with peak_memory(findings, "tree.memory", "<= 1.5"):
        training, assigning, _ = tree_seconds(vectors_ND, settings)
    faiss.Kmeans = original
    leaves = BRANCHING**sizes.depth
    findings.say("tree.train", training, f"CPU s: {len(vectors_ND):,} x {sizes.dim}, {leaves:,} leaves")
    findings.say("tree.assign", assigning, "CPU s")
    bound = least_seconds(vectors_ND, sizes.depth)
    findings.say("tree.over_passes", (training + assigning) / bound, "times the passes it must make", "<= 2")
    return training + assigning


def least_seconds(vectors_ND: Half, depth: int) -> float:
    """What FAISS's iterations and searches and plain copies of the rows alone take, by their prices of this moment.

    Rows that a node trains on are copied to float32 once and iterated over; all rows are copied and searched once a
    level to be passed down, and again to be assigned.
    """
    rows = vectors_ND[: 3 * BLOCK]
    points = np.empty(rows.shape, np.float32)
    source, target = torch.from_numpy(rows), torch.from_numpy(points)
    target.copy_(source)  # touches the memory
    copy, _ = cpu_seconds(lambda: target.copy_(source))
    one, _ = cpu_seconds(lambda: _twelve(points, 1))
    eleven, kmeans = cpu_seconds(lambda: _twelve(points, 11))
    search, _ = cpu_seconds(lambda: kmeans.index.search(points, 1))
    passed = 2 * depth * len(vectors_ND)
    copied, iterated = CountingKmeans.rows + passed, CountingKmeans.rows_iterated
    return (copied * copy + iterated * (eleven - one) / 10 + passed * search) / len(rows)


def _twelve(points: NDArray[np.float32], iterations: int) -> faiss.Kmeans:
    kmeans = faiss.Kmeans(points.shape[1], BRANCHING, niter=iterations, seed=1, max_points_per_centroid=len(points))
    kmeans.train(points)
    return kmeans


def measure_flat(vectors_ND: Half, sizes: Sizes, tree: float, findings: Findings) -> None:
    """Flat k-means where it finishes, the tree at the same sizes, and what both come to at the full size."""
    leaves = BRANCHING**sizes.depth
    prices = []
    for count in sizes.growth:
        rows = vectors_ND[:count]
        flat, _ = cpu_seconds(lambda rows=rows: flat_kmeans(rows, leaves, sizes.flat_iterations))
        ours, assigning, _ = tree_seconds(
            rows, TrainSettings(branching=BRANCHING, depth=sizes.depth, iterations=sizes.flat_iterations)
        )
        prices.append(flat / count / sizes.flat_iterations)
        what = f"{count:,} vectors, {leaves:,} centroids, {sizes.flat_iterations} iteration(s)"
        findings.say(f"flat.{count}", flat, f"CPU s of flat k-means: {what}")
        findings.say(f"tree.{count}", ours + assigning, "CPU s of the tree, assigning included: the same")
        findings.say(f"speedup.{count}", flat / (ours + assigning), "times faster, both measured")
    flat_all = min(prices) * len(vectors_ND) * sizes.iterations
    what = f"{len(vectors_ND):,} vectors, {sizes.iterations} iterations"
    findings.say("flat.projected", flat_all, f"CPU s of flat k-means, projected from the cheapest of these: {what}")
    findings.say("speedup", flat_all / tree, "times faster than flat k-means: the same", ">= 60")


def measure_quality(sizes: Sizes, findings: Findings) -> None:
    """Error on vectors that no one trained on, over that of flat k-means with as many centroids."""
    seen, unseen = (mixture(count, sizes.dim, seed) for count, seed in ((sizes.quality, 2), (8192, 3)))
    leaves = BRANCHING**sizes.quality_depth
    settings = TrainSettings(branching=BRANCHING, depth=sizes.quality_depth, iterations=10)
    kmeans = flat_kmeans(seen, leaves, settings.iterations)
    flat = float(kmeans.index.search(unseen.astype(np.float32), 1)[0].mean())
    variance = float(unseen.astype(np.float32).var(axis=0).sum())
    what = f"error over variance of flat k-means: {sizes.quality:,} vectors, {leaves:,} centroids"
    findings.say("error.flat", flat / variance, what)
    plain = train(seen, settings)
    polished = polish(seen, plain, 4)
    for name, vocabulary, rule, target in (
        ("tree", plain, "tree", ""),
        ("beam:8", plain, "beam:8", ""),
        ("leaves, exhaustively", plain, "flat", ""),
        ("beam:8, polish 4", polished, "beam:8", "<= 1.08"),
    ):
        error = assign_all(unseen, vocabulary, rule)[1]
        findings.say(f"error.{name}", error / flat, "times flat k-means' error", target)
    tree, flat_tokens = assign_all(unseen, plain, "tree")[0], assign_all(unseen, plain, "flat")[0]
    findings.say("agreement", float((tree == flat_tokens).mean()), "of tokens are the same by tree and exhaustively")


def measure_sklearn(vectors_ND: Half, sizes: Sizes, findings: Findings) -> None:
    """MiniBatchKMeans at each node: as hkmeans-minibatch drives it for VideoBERT, and left to stop by itself."""
    points_ND = vectors_ND.astype(np.float32)
    settings = TrainSettings(branching=BRANCHING, depth=sizes.depth, iterations=sizes.iterations)
    ours, assigning, _ = tree_seconds(vectors_ND, settings)
    what = f"{len(vectors_ND):,} vectors, {BRANCHING**sizes.depth:,} leaves"
    for name, fit, target in (("passes", _in_batches_of_500(sizes.iterations), ">= 5"), ("defaults", _by_itself, "")):
        theirs, _ = cpu_seconds(lambda fit=fit: _minibatch_tree(points_ND, sizes.depth, fit))
        how = f"{sizes.iterations} passes in batches of 500" if name == "passes" else "its own stopping rule"
        findings.say(f"sklearn.{name}", theirs, f"CPU s of MiniBatchKMeans at each node, {how}: {what}")
        findings.say(f"speedup.sklearn.{name}", theirs / (ours + assigning), "times faster, assigning included", target)


def _minibatch_tree(points_ND: NDArray[np.float32], depth: int, fit: Callable[[Any], MiniBatchKMeans]) -> None:
    if depth == 0 or len(points_ND) < BRANCHING:
        return
    labels_N = fit(points_ND).predict(points_ND)
    for child in range(BRANCHING):
        _minibatch_tree(points_ND[labels_N == child], depth - 1, fit)


def _in_batches_of_500(passes: int) -> Callable[[Any], MiniBatchKMeans]:
    def fit(points_ND: NDArray[np.float32]) -> MiniBatchKMeans:
        kmeans = MiniBatchKMeans(BRANCHING, batch_size=500, n_init=1, random_state=0)
        for _ in range(passes):
            for start in range(0, max(1, len(points_ND) - BRANCHING), 500):
                kmeans.partial_fit(points_ND[start : start + 500])
        return kmeans

    return fit


def _by_itself(points_ND: NDArray[np.float32]) -> MiniBatchKMeans:
    return MiniBatchKMeans(BRANCHING, random_state=0).fit(points_ND)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="a million vectors and 20 iterations")
    parser.add_argument("--vectors", type=int, help="how many, instead")
    options = parser.parse_args()
    faiss.omp_set_num_threads(1)
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)  # that so many leaves are too many for these vectors
    sizes = FULL if options.full else DEFAULT
    len_all = options.vectors or sizes.vectors
    vectors_ND = mixture(len_all, sizes.dim, seed=1)
    findings = Findings()
    tree = measure_tree(vectors_ND, sizes, findings)
    measure_flat(vectors_ND, sizes, tree, findings)
    measure_sklearn(vectors_ND[:50_000], sizes, findings)
    del vectors_ND
    measure_quality(sizes, findings)
    save("cluster", {"vectors": len_all, "sizes": asdict(sizes), "findings": findings.values})


if __name__ == "__main__":
    main()
