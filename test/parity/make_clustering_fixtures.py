"""Makes the fixtures of the clustering parity tests: k-means and residual encoding as faiss computes them.

Writes, below fixtures/clustering/:
  kmeans.safetensors    rows, initial centroids; after 1 and after 8 Lloyd iterations: centroids, the objective of each
                        iteration, the rows' assignment to the final centroids
  residual.safetensors  rows, codebooks; the codes of a beam of 1 and of 5, and each one's mean squared error

Made with Python 3.11, faiss-cpu 1.15.1, numpy, safetensors (versions recorded in the files' metadata).
Usage: python3 make_clustering_fixtures.py
"""
import importlib.metadata
import pathlib

import faiss
import numpy as np
from safetensors.numpy import save_file

FIXTURES = pathlib.Path(__file__).resolve().parent / "fixtures" / "clustering"
PINNED = "1.15.1"
ROWS, DIM, CLUSTERS, ITERATIONS = 600, 24, 20, (1, 8)
LEVELS, BITS, BEAMS = 4, 5, (1, 5)


def clustered(random, rows):
    centres = random.standard_normal((30, DIM), dtype=np.float32)
    return centres[random.integers(0, 30, rows)] + 0.6 * random.standard_normal((rows, DIM), dtype=np.float32)


def kmeans(random):
    rows = clustered(random, ROWS)
    initial = rows[random.choice(ROWS, CLUSTERS, replace=False)].copy()
    tensors = dict(rows=rows, initial=initial)
    for iterations in ITERATIONS:
        model = faiss.Kmeans(DIM, CLUSTERS, niter=iterations, max_points_per_centroid=10**9, min_points_per_centroid=1)
        model.train(rows, init_centroids=initial)
        _, nearest = model.index.search(rows, 1)
        assert len(np.unique(nearest)) == CLUSTERS, "an empty cluster: faiss splits, we re-seed; take other rows"
        tensors[f"centroids_{iterations}"] = model.centroids
        tensors[f"objective_{iterations}"] = np.asarray(model.obj, dtype=np.float32)
        tensors[f"assignment_{iterations}"] = nearest[:, 0].astype(np.int32)
    return tensors


def residual(random):
    codes_count = 1 << BITS
    rows = clustered(random, ROWS)
    codebooks = np.stack([0.7**level * random.standard_normal((codes_count, DIM), dtype=np.float32) for level in range(LEVELS)])
    tensors = dict(rows=rows, codebooks=codebooks)
    for beam in BEAMS:
        quantizer = faiss.ResidualQuantizer(DIM, LEVELS, BITS)
        faiss.copy_array_to_vector(codebooks.ravel(), quantizer.codebooks)
        quantizer.is_trained = True
        quantizer.max_beam_size = beam
        packed = quantizer.compute_codes(rows)
        codes = faiss.unpack_bitstrings(packed, LEVELS, BITS).astype(np.int32)
        decoded = codebooks[np.arange(LEVELS), codes].astype(np.float64).sum(1)
        tensors[f"codes_{beam}"] = codes
        tensors[f"error_{beam}"] = np.array([((rows - decoded) ** 2).sum(1).mean()], dtype=np.float32)
    return tensors


def main():
    if faiss.__version__ != PINNED:
        raise SystemExit(f"expected faiss-cpu {PINNED}, got {faiss.__version__}; install the pinned version")
    faiss.omp_set_num_threads(1)
    metadata = {name: importlib.metadata.version(name) for name in ("faiss-cpu", "numpy", "safetensors")}
    FIXTURES.mkdir(parents=True, exist_ok=True)
    for name, make, seed in [("kmeans", kmeans, 1), ("residual", residual, 2)]:
        tensors = {key: np.ascontiguousarray(value) for key, value in make(np.random.default_rng(seed)).items()}
        save_file(tensors, FIXTURES / f"{name}.safetensors", metadata=metadata)


if __name__ == "__main__":
    main()
