"""Sparse matrices of float32, as TensorFlow's CSR operations have them."""

from typing import Any, NamedTuple

import tensorflow as tf

Matrix = Any  # a variant tensor that holds compressed sparse rows

raw = tf.raw_ops


class Rows(NamedTuple):
    """Compressed sparse rows: `column` and `value` of row i are at `begin[i]` to `begin[i + 1]`."""

    begin: tf.Tensor
    column: tf.Tensor
    value: tf.Tensor


def matrix(row: tf.Tensor, column: tf.Tensor, value: tf.Tensor, shape: tf.Tensor) -> Matrix:
    """The elements must come by rows, and each once."""
    indices = tf.cast(tf.stack([row, column], axis=1), tf.int64)
    return raw.SparseTensorToCSRSparseMatrix(
        indices=indices, values=value, dense_shape=tf.cast(shape, tf.int64)
    )


def product(a: Matrix, b: Matrix) -> Matrix:
    return raw.SparseMatrixSparseMatMul(a=a, b=b, type=tf.float32)


def transpose(a: Matrix) -> Matrix:
    return raw.SparseMatrixTranspose(input=a, type=tf.float32)


def rows(a: Matrix) -> Rows:
    return Rows(*raw.CSRSparseMatrixComponents(csr_sparse_matrix=a, index=0, type=tf.float32))


def row_numbers(a: Rows) -> tf.Tensor:
    """Of each element."""
    lengths = a.begin[1:] - a.begin[:-1]
    return tf.repeat(tf.range(tf.shape(lengths)[0]), lengths)
