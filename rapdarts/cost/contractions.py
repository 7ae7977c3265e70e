"""Contractions that are written as two operations: an element-wise product, and an operation that adds up its elements.

`(x * w).sum(1)` multiplies and accumulates like a matrix product. The same is true of a product followed by a mean, a cumulative sum,
an average pooling or a variance, but not by a maximum, a median or `prod`.

A sum accumulates products only along a dimension in which both factors vary. A factor that is constant along this dimension can
be moved out of the sum, so it acts as a gate. An example is the scale of a channel before the mean over its pixels
(squeeze-and-excitation). A product is also a gate if another activation is added to it first, as on a residual path. The sum of
two different parts of a product is a contraction. Functions of one tensor are not products, neither the activation
`x * sigmoid(x)` nor the squares `x * x` that a norm adds up. In case of doubt, for example if a dimension is reshaped away, a
contraction is reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from rapdarts.cost.fast_shapes import aten, fills_storage

ADDS_PRODUCT = {aten.addcmul, aten.addcmul_, aten.addcdiv, aten.addcdiv_}
"""Operations that add the element-wise product of their other tensors to their first tensor."""
MULTIPLIES = {aten.mul, aten.mul_, aten.div, aten.div_} | ADDS_PRODUCT
"""Element-wise products; a quotient is a product with the inverse."""

ADDS: Mapping[Any, int] = {
    **dict.fromkeys((aten.sum, aten.nansum, aten.mean, aten.cumsum, aten.cumsum_, aten.trace), 0),
    **dict.fromkeys((aten.logsumexp, aten.logcumsumexp, aten._logcumsumexp), 0),
    **dict.fromkeys((aten.var, aten.var_mean, aten.std, aten.std_mean, aten.norm, aten.linalg_vector_norm), 0),
    **dict.fromkeys((aten.scatter_add, aten.scatter_add_, aten.scatter_reduce, aten.scatter_reduce_), 0),
    **dict.fromkeys((aten.index_add, aten.index_add_, aten.index_reduce, aten.index_reduce_, aten.segment_reduce), 0),
    aten.col2im: 0,
    aten.avg_pool2d: 2,
    aten.avg_pool3d: 3,
    aten._adaptive_avg_pool2d: 2,
    aten._adaptive_avg_pool3d: 3,
}
"""Operations that add up elements, or functions of them, with the number of trailing dimensions that each adds along.

The number 0 stands for the dimensions in the argument `dim`, or for all dimensions if there is no such argument.
"""

SELECTS = {aten.masked_fill, aten.masked_fill_, aten.where, aten.tril, aten.triu, aten.flip, aten.roll}
"""Operations that keep, move or leave out elements, in addition to the recorder's `MOVES`."""
SUMS = {aten.add, aten.add_, aten.sub, aten.sub_}
"""Operations that return a sum of products if all of their terms are products or constants."""

Side = tuple[int, int]
"""Distance in memory between neighbouring elements of a dimension, and length of the whole dimension in memory."""
Product = tuple[str, frozenset[Side]]
"""Name of the operation that computed a product, and the sides along which both factors vary. Both are empty for other tensors."""
NO_PRODUCT: Product = ("", frozenset())


class Contractions:
    """Detector of contractions among the operations of a trace, which are passed one by one."""

    def __init__(self) -> None:
        self._products: dict[int, Product] = {}  # by storage

    def name(self, func: Any, args: Sequence[Any], given: Sequence[Tensor]) -> str:
        """Return the name of the contraction that an operation on tensors of any shape completes, such as `mul + sum`, or ""."""
        packet = func._overloadpacket
        for tensor in given if packet in ADDS else ():
            product, sides = self._of(tensor)
            steps = [_side(tensor, dim) for dim in _dims(func, args, tensor)] if sides else []
            if any(_crosses(step, side) for step in steps for side in sides):
                return f"{product} + {packet.__name__.strip('_')}"
        return ""

    def name_of_parts(self, packet: Any, given: Sequence[Tensor], distance: int) -> str:
        """Return the name of the contraction that a sum of tensors of any shape completes, or "".

        `distance` is the number of elements between the terms in memory if they are two parts of one tensor, else 0.
        """
        for product, sides in map(self._of, given if packet in SUMS and distance else ()):
            if any(_crosses((distance, 2 * distance), side) for side in sides):
                return f"{product} + {packet.__name__.strip('_')}"
        return ""

    def follow(
        self,
        func: Any,
        given: Sequence[Tensor],
        factors: Sequence[Tensor],
        terms: Sequence[Tensor],
        out: Tensor,
        keeps: bool,
    ) -> None:
        """Record the sides along which the output of an operation is a product.

        `given` are the operation's inputs, `factors` the inputs that it may multiply, and `terms` the activations that it adds,
        all of any shape. `keeps` is True if the operation only moves elements or applies a function to each one, so that products
        remain products.
        """
        packet, name, sides = func._overloadpacket, "", set[Side]()
        adds_products = all(self._of(term)[1] for term in terms)
        multiplies = packet in MULTIPLIES and adds_products
        keeps = keeps or packet in SELECTS or (packet in SUMS and adds_products)
        for dim in range(-out.dim(), 0) if multiplies or keeps else ():
            kept = next(filter(None, (self._kept(tensor, dim, out) for tensor in given)), "")
            both = multiplies and sum(_varies(factor, dim) for factor in factors) > 1
            if (kept or both) and _varies(out, dim):
                name = packet.__name__.strip("_") if both else name or kept
                sides.add(_side(out, dim))
        before, others = NO_PRODUCT if fills_storage(out) else self._of(out)  # a write into a part keeps these
        self._products[_storage(out)] = (name or before, others | sides)

    def _of(self, tensor: Tensor) -> Product:
        return self._products.get(_storage(tensor), NO_PRODUCT)

    def _kept(self, factor: Tensor, dim: int, out: Tensor) -> str:
        """Return the operation that made a factor a product along a dimension of the output, or "".

        If the output has more or fewer dimensions than the factor, every dimension of the factor is considered.
        """
        product, sides = self._of(factor)
        dims = [dim] if factor.dim() == out.dim() else range(factor.dim())
        return product if any(_crosses(_side(factor, one), side) for one in dims for side in sides) else ""


def factors_of(packet: Any, given: Sequence[Tensor]) -> Sequence[Tensor]:
    """Return the inputs that an operation may multiply element-wise; `given` holds all of its inputs in order, tensors of any shape."""
    return given[1:] if packet in ADDS_PRODUCT else given if packet in MULTIPLIES else ()


def terms_of(packet: Any, given: Sequence[Tensor]) -> Sequence[Tensor]:
    """Return the inputs that an operation adds; `given` holds all of its inputs in order, tensors of any shape."""
    return given if packet in SUMS else given[:1] if packet in ADDS_PRODUCT else ()


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def arrangement(tensor: Tensor) -> tuple[tuple[int, int], ...]:
    """Return the dimensions of a tensor of any shape as pairs (negative index, size), in their order in memory.

    Dimensions of size 1 are omitted.
    """
    order = sorted(range(-tensor.dim(), 0), key=tensor.stride)
    return tuple((dim, tensor.shape[dim]) for dim in order if tensor.shape[dim] > 1)


def _varies(tensor: Tensor, dim: int) -> bool:
    return -dim <= tensor.dim() and tensor.shape[dim] > 1 and tensor.stride(dim) > 0


def _side(tensor: Tensor, dim: int) -> Side:
    return tensor.stride(dim), tensor.stride(dim) * tensor.shape[dim]


def _crosses(walk: Side, side: Side) -> bool:
    """Return whether a walk through memory in equal steps changes the position along a side of the stored tensor."""
    (step, length), (distance, whole) = walk, side
    return step % whole > 0 and length - step >= distance


def _dims(func: Any, args: Sequence[Any], tensor: Tensor) -> Sequence[int]:
    """Return the dimensions along which an operation adds up the elements of a tensor."""
    last = ADDS[func._overloadpacket]
    if last:
        return range(tensor.dim() - last, tensor.dim())
    names = [argument.name for argument in func._schema.arguments]
    place = names.index("dim") if "dim" in names else len(args)
    given = args[place] if place < len(args) else None
    dims = [given] if isinstance(given, int) else given
    return dims or range(tensor.dim())
