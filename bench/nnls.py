"""Non-negative least squares with a dense matrix and many columns, against scipy's active sets, column by column."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import scipy.optimize
import torch

import torch_iir
from bench.compare import Array
from bench.machine import SEED
from bench.measure import INPUTS, Call
from bench.mels import Spectra
from bench.question import Figure, Question, Target

COLUMNS = 200


def figures(quick: bool) -> Iterator[Figure]:
    generator = np.random.default_rng(SEED)
    for m, n in ((128, 32), (64, 96)):
        A = generator.random((m, n))
        Bs = list(generator.random((INPUTS, m, 5 if quick else COLUMNS)))
        calls = (ours(A, Bs), scipy_nnls(A, Bs))
        outputs = n * COLUMNS
        bytes_moved = 8 * (A.size + Bs[0].size + outputs)
        yield Figure(
            f"nnls, dense {m} × {n}, float64, {COLUMNS} columns", calls, outputs, bytes_moved, Target("speedup")
        )


def ours(A: Array, Bs: list[Array]) -> Call:
    matrix, columns = torch.from_numpy(A), [torch.from_numpy(B) for B in Bs]
    run = partial(torch_iir.nnls, matrix)
    return Call("torch_iir", lambda n: run(columns[n % INPUTS]), partial(judge, A, Bs))


def scipy_nnls(A: Array, Bs: list[Array]) -> Call:
    def run(n: int) -> Array:
        return np.stack([scipy.optimize.nnls(A, b)[0] for b in Bs[n % INPUTS].T], 1)

    return Call("scipy.optimize.nnls", run, partial(judge, A, Bs))


def judge(A: Array, Bs: list[Array], n: int) -> Spectra:
    return Spectra(torch.from_numpy(A.T), torch.from_numpy(Bs[n]), kkt=1e-7, residual=1.0)


QUESTION = Question("speed", figures)
