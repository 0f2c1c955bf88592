"""The Triton kernel of window attention; ``triton_attention`` launches it.

Importing this file needs Triton, so only what launches it does. How it works:

*One program* attends from ``BLOCK_Q`` queries of one head to all T = w*w keys of their window.
Tokens are row-major, so a block is some rows of the window: 128 queries are four rows at w = 32.
Blocks below the image's edge have no pixels and end at once. Programs of one window are neighbours
in the grid, so its keys and values come from memory once and then from the second-level cache.

*Nothing is permuted.* q, k and v are read where the 1x1 convolution wrote them, by the address of
each token's pixel; beyond the edge that is the reflected pixel's, which holds what the convolution
would make of reflected features. In channels_last a head's D channels are one run of memory: 32
bytes for 16 channels of half precision, a whole sector. The result is written the same way.

*The bias is read from its table* of (2w-1)^2 numbers: 16 KB per head in float32 at w = 32, which
stays in the first-level cache, since every program of a head reads it again for each block of keys.
Its index is a part of the key less one of the query. Where a block of keys is whole rows (w = 8,
16, 32, 64), addresses within it differ by constants, which the compiler puts into the loads and
even shares some: 52 loads for 64 scores of a thread at w = 32. The 32 addresses of a warp's load
are four keys times eight neighbouring queries, 14 different numbers in one or two lines of 128
bytes, without a bank conflict. By the rates of the units, loads serve 32 scores per cycle and
multiprocessor, exponentials 16: the bias should hide behind them. (Reckoned, not measured.)

*Softmax is online*, in powers of two, in float32: no score leaves the registers.

One function of more than 40 lines: Triton would have every split take all pointers and strides
again.

Source: ESC, arXiv:2503.06671, section 3.3; the order of computation is FlashAttention's,
arXiv:2205.14135.
"""

# Triton reads the source of a kernel, where annotations other than its own have no place.
# pyright: basic, reportMissingImports=false

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def window_attention_kernel(
    qkv,
    out,
    bias,
    query_factors,
    key_factors,
    height,
    width,
    window_rows,
    window_columns,
    qkv_stride_b,
    qkv_stride_c,
    qkv_stride_h,
    qkv_stride_w,
    out_stride_b,
    out_stride_c,
    out_stride_h,
    out_stride_w,
    scale,
    NUM_HEADS: tl.constexpr,
    WINDOW: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HEAD_BLOCK: tl.constexpr,
    RANK: tl.constexpr,
    RANK_BLOCK: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
    IN_ASSEMBLY: tl.constexpr,
    WIDEN: tl.constexpr,
):
    """Attend from one block of queries of one head to all keys of its window.

    Arguments are ``attend_in_windows``'s. ``HEAD_BLOCK`` and ``RANK_BLOCK`` are the next powers of
    two, 16 at least; ``RANK`` is 0 without factors. ``WIDEN`` is for Triton's interpreter alone,
    which multiplies the bit patterns of bfloat16; products of halves are exact in float32.
    """
    TOKENS: tl.constexpr = WINDOW * WINDOW
    BLOCKS: tl.constexpr = (TOKENS + BLOCK_Q - 1) // BLOCK_Q
    program = tl.program_id(0)
    block = program % BLOCKS
    head = program // BLOCKS % NUM_HEADS
    window = program // (BLOCKS * NUM_HEADS)
    window_column = window % window_columns
    window_row = window // window_columns % window_rows
    image = (window // (window_columns * window_rows)).to(tl.int64)
    top, left = window_row * WINDOW, window_column * WINDOW
    first_query = block * BLOCK_Q
    if top + first_query // WINDOW >= height:
        return

    EVEN: tl.constexpr = (TOKENS % BLOCK_Q == 0) and (TOKENS % BLOCK_K == 0)
    EVEN_HEAD: tl.constexpr = EVEN and HEAD_DIM == HEAD_BLOCK
    EVEN_RANK: tl.constexpr = EVEN and RANK == RANK_BLOCK
    channel = tl.arange(0, HEAD_BLOCK)
    has_channel = (channel < HEAD_DIM)[None, :]
    channel_offset = (head * HEAD_DIM + channel).to(tl.int64)[None, :] * qkv_stride_c
    # From q to k, and from k to v.
    part_offset = tl.full([], NUM_HEADS * HEAD_DIM, tl.int64) * qkv_stride_c
    qkv += image * qkv_stride_b

    query = first_query + tl.arange(0, BLOCK_Q)
    is_query = (query < TOKENS)[:, None]
    query_pixel = _pixel(query, top, left, height, width, qkv_stride_h, qkv_stride_w, WINDOW)
    q = _load(qkv + query_pixel[:, None] + channel_offset, is_query & has_channel, EVEN_HEAD)
    bias += head * (2 * WINDOW - 1) * (2 * WINDOW - 1) + _place(TOKENS - 1, WINDOW)
    bias_of_query = (bias - _place(tl.minimum(query, TOKENS - 1), WINDOW))[:, None]
    if RANK > 0:
        rank = tl.arange(0, RANK_BLOCK)
        has_rank = (rank < RANK)[None, :]
        rank_offset = head * TOKENS * RANK + rank[None, :]
        # As PositionFactors.appended_to: rounded after scaling, and no scale after the product.
        q = (q.to(tl.float32) * scale).to(q.dtype)
        query_factor = _load(
            query_factors + query[:, None] * RANK + rank_offset, is_query & has_rank, EVEN_RANK
        )

    largest = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    total = tl.full([BLOCK_Q], 0.0, tl.float32)
    weighted = tl.full([BLOCK_Q, HEAD_BLOCK], 0.0, tl.float32)
    for first_key in range(0, TOKENS, BLOCK_K):
        key = first_key + tl.arange(0, BLOCK_K)
        is_key = (key < TOKENS)[:, None]
        key_pixel = _pixel(key, top, left, height, width, qkv_stride_h, qkv_stride_w, WINDOW)
        key_offset = key_pixel[:, None] + channel_offset + part_offset
        k = _load(qkv + key_offset, is_key & has_channel, EVEN_HEAD)
        v = _load(qkv + key_offset + part_offset, is_key & has_channel, EVEN_HEAD)
        scores = tl.full([BLOCK_Q, BLOCK_K], 0.0, tl.float32)
        scores = _multiply_add(q, tl.trans(k), scores, PRECISION, WIDEN)
        if RANK > 0:
            key_factor = _load(
                key_factors + key[:, None] * RANK + rank_offset, is_key & has_rank, EVEN_RANK
            )
            scores = _multiply_add(query_factor, tl.trans(key_factor), scores, PRECISION, WIDEN)
        else:
            scores *= scale
        if HAS_BIAS:
            if BLOCK_K % WINDOW == 0:  # whole rows: addresses differ by constants
                bias_of_row = bias_of_query + first_key // WINDOW * (2 * WINDOW - 1)
                place = _place(tl.arange(0, BLOCK_K), WINDOW)
            else:
                bias_of_row = bias_of_query
                place = _place(tl.minimum(key, TOKENS - 1), WINDOW)
            scores += _load_in_place(bias_of_row + place[None, :], IN_ASSEMBLY)
        if not EVEN:
            scores = tl.where((key < TOKENS)[None, :], scores, float("-inf"))
        larger = tl.maximum(largest, tl.max(scores, 1))
        probability = tl.exp2(scores * LOG2_E - (larger * LOG2_E)[:, None])
        shrink = tl.exp2((largest - larger) * LOG2_E)
        total = total * shrink + tl.sum(probability, 1)
        weighted *= shrink[:, None]
        weighted = _multiply_add(probability.to(v.dtype), v, weighted, PRECISION, WIDEN)
        largest = larger

    query_row, query_column = top + query // WINDOW, left + query % WINDOW
    is_inside = (query < TOKENS) & (query_row < height) & (query_column < width)
    out_channel = (head * HEAD_DIM + channel).to(tl.int64)[None, :] * out_stride_c
    out_pixel = query_row.to(tl.int64) * out_stride_h + query_column.to(tl.int64) * out_stride_w
    tl.store(
        out + image * out_stride_b + out_pixel[:, None] + out_channel,
        (weighted / total[:, None]).to(out.dtype.element_ty),
        mask=is_inside[:, None] & has_channel,
    )


@triton.jit
def _load(pointer, mask, EVEN: tl.constexpr):
    """Read a block; what is masked is 0. A mask that is always true would cost wide loads."""
    if EVEN:
        return tl.load(pointer)
    return tl.load(pointer, mask=mask, other=0.0)


@triton.jit
def _load_in_place(pointer, IN_ASSEMBLY: tl.constexpr):
    """Read float32 numbers in the layout in which they are wanted.

    Triton gives the result of a load a layout of its own and converts it, here at a high price: it
    took the exponentials twice. An instruction of ours is to it an operation like an addition.
    """
    if IN_ASSEMBLY:
        return tl.inline_asm_elementwise(
            "ld.global.nc.f32 $0, [$1];",
            "=f,l",
            [pointer.to(tl.int64)],
            dtype=tl.float32,
            is_pure=True,
            pack=1,
        )
    return tl.load(pointer)


@triton.jit
def _multiply_add(a, b, c, PRECISION: tl.constexpr, WIDEN: tl.constexpr):
    """``a @ b + c``, accumulated in float32."""
    if WIDEN:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, c, input_precision=PRECISION)


@triton.jit
def _place(token, WINDOW: tl.constexpr):
    """A token's part of the index into the table: the index is the key's less the query's."""
    return token // WINDOW * (2 * WINDOW - 1) + token % WINDOW


@triton.jit
def _pixel(token, top, left, height, width, stride_h, stride_w, WINDOW: tl.constexpr):
    """Where a token's pixel lies, reflected into the image: int64, in elements."""
    row = _reflected(top + token // WINDOW, height)
    column = _reflected(left + token % WINDOW, width)
    return row.to(tl.int64) * stride_h + column.to(tl.int64) * stride_w


@triton.jit
def _reflected(position, length):
    """``padding.reflected_positions``: 0, 1, …, length-1, length-2, …, 1, 0, 1, … ."""
    last = length - 1
    forth = position % tl.maximum(2 * last, 1)
    return tl.minimum(forth, 2 * last - forth)
