"""Cholesky factors of matrices that repeated rows and columns make singular."""

from __future__ import annotations

import torch

# The share of the diagonal that is added grows by this factor until there is a root.
GROWTH = 100.0


def cholesky(matrices):
    """Lower Cholesky factors of symmetric matrices, also of singular ones.

    Covariances of tables with repeated rows, or with columns that follow from others,
    are singular, and rounding may give them negative eigenvalues. Such a matrix gets a
    share of its diagonal added, as small a share as gives it a factor; that changes it
    by what rounding had changed it. All others are factorised as they are.

    Parameters
    ----------
    matrices : float tensor of shape (..., n, n)

    Returns
    -------
    float tensor of shape (..., n, n)

    Raises
    ------
    torch.linalg.LinAlgError
        If a matrix is not finite, or far from positive definite.
    """
    root, info = torch.linalg.cholesky_ex(matrices)
    share = torch.finfo(matrices.dtype).eps
    while bool(info.any()):
        if share > 1:
            raise torch.linalg.LinAlgError(
                "A covariance matrix is not positive definite, or not finite."
            )
        failed = info > 0
        raised = matrices[failed].clone()
        diagonal = raised.diagonal(dim1=-2, dim2=-1)
        # Of what has no variance at all, relative to what has the most.
        least = diagonal.amax(-1, keepdim=True).clamp_min(1e-30)
        diagonal.add_(share * torch.maximum(diagonal, least * 1e-6))
        root[failed], info[failed] = torch.linalg.cholesky_ex(raised)
        share *= GROWTH
    return root


def is_definite(matrix):
    """Whether a symmetric matrix (n, n) is finite and positive definite."""
    return int(torch.linalg.cholesky_ex(matrix).info) == 0


def leading_vectors(x, n_vectors, generator, n_iter=4):
    """Leading singular values and right singular vectors of a matrix, by its range.

    Randomised subspace iteration (Halko, Martinsson and Tropp, 2011, algorithm 4.4), as
    `torch.svd_lowrank` has it, which takes no generator.

    Parameters
    ----------
    x : float tensor of shape (n, d)
    n_vectors : int
        At most min(n, d) are returned.
    generator : torch.Generator on the CPU

    Returns
    -------
    values : tensor of shape (k,)
    vectors : tensor of shape (d, k)
        With orthonormal columns.
    """
    noise = torch.randn(x.shape[1], n_vectors, generator=generator, dtype=x.dtype)
    basis = torch.linalg.qr(x @ noise.to(x.device)).Q
    for _ in range(n_iter):
        basis = torch.linalg.qr(x.mT @ basis).Q
        basis = torch.linalg.qr(x @ basis).Q
    _, values, vectors = torch.linalg.svd(basis.mT @ x, full_matrices=False)
    return values, vectors.mT
