"""Sparse matrices of float32, as TensorFlow's CSR operations have them."""

from typing import Any, NamedTuple

import tensorflow as tf

Matrix = Any  # a variant tensor that holds compressed sparse rows

raw = tf.raw_ops


PLACE, VALUE = tf.TensorSpec([None], tf.int32), tf.TensorSpec([None], tf.float32)


class CsrRows(NamedTuple):
    """Compressed sparse rows: `column` and `value` of row i are at `begin[i]` to `begin[i + 1]`."""

    begin: tf.Tensor
    column: tf.Tensor
    value: tf.Tensor


ROWS = CsrRows(PLACE, PLACE, VALUE)


def matrix(row: tf.Tensor, column: tf.Tensor, value: tf.Tensor, shape: tf.Tensor) -> Matrix:
    """The elements must come by rows, and each once."""
    indices = tf.cast(tf.stack([row, column], axis=1), tf.int64)
    return raw.SparseTensorToCSRSparseMatrix(
        indices=indices, values=value, dense_shape=tf.cast(shape, tf.int64)
    )


def product(a: Matrix, b: Matrix) -> Matrix:
    """`a @ b`."""
    return raw.SparseMatrixSparseMatMul(a=a, b=b, type=tf.float32)


def elements(index: tf.Tensor, chosen: tf.Tensor, columns: Any) -> Matrix:
    """Return 1 in row i at the columns `index[i, a]`, ascending, that are chosen."""
    place = tf.where(chosen)
    row, column = tf.cast(place[:, 0], tf.int32), tf.gather_nd(index, place)
    shape = tf.stack([tf.shape(index)[0], columns])
    return matrix(row, column, tf.ones_like(row, tf.float32), shape)


def lists(index: tf.Tensor, value: tf.Tensor, columns: Any) -> Matrix:
    """`value[i, a]` in row i at the column `index[i, a]`, each column once a row: (n, columns)."""
    order = tf.argsort(index, axis=1)
    index, value = (tf.gather(both, order, batch_dims=1) for both in (index, value))
    count, width = tf.unstack(tf.shape(index))
    row, shape = tf.repeat(tf.range(count), width), tf.stack([count, columns])
    return matrix(row, tf.reshape(index, [-1]), tf.reshape(value, [-1]), shape)


def whole(a: CsrRows, columns: Any) -> Matrix:
    """The matrix of these rows. A loop of an exported graph captures rows, but no matrix."""
    return slice_rows(a, 0, tf.shape(a.begin)[0] - 1, columns)


def slice_rows(a: CsrRows, start: Any, stop: Any, columns: Any) -> Matrix:
    """Rows start to stop."""
    begin = a.begin[start : stop + 1]
    row = tf.repeat(tf.range(stop - start), begin[1:] - begin[:-1])
    inside = slice(begin[0], begin[-1])
    return matrix(row, a.column[inside], a.value[inside], tf.stack([stop - start, columns]))


def above(a: CsrRows, b: CsrRows, columns: Any) -> Matrix:
    """The rows of a, and below them those of b."""
    first = row_numbers(a)
    row = tf.concat([first, row_numbers(b) + tf.shape(a.begin)[0] - 1], axis=0)
    count = tf.shape(a.begin)[0] + tf.shape(b.begin)[0] - 2
    column, value = (tf.concat(pair, axis=0) for pair in zip(a[1:], b[1:], strict=True))
    return matrix(row, column, value, tf.stack([count, columns]))


def dense(a: Matrix) -> tf.Tensor:
    """Return the dense matrix."""
    return raw.CSRSparseMatrixToDense(sparse_input=a, type=tf.float32)


def transpose(a: Matrix) -> Matrix:
    """`aᵀ`."""
    return raw.SparseMatrixTranspose(input=a, type=tf.float32)


def rows(a: Matrix) -> CsrRows:
    """Return the elements, row by row."""
    return CsrRows(*raw.CSRSparseMatrixComponents(csr_sparse_matrix=a, index=0, type=tf.float32))


def row_numbers(a: CsrRows) -> tf.Tensor:
    """Return the row of each element."""
    lengths = a.begin[1:] - a.begin[:-1]
    return tf.repeat(tf.range(tf.shape(lengths)[0]), lengths)
