// Memory-bound bodies. Their unit is the work of one warp: no barrier, no shared memory, so any set of warps can do them.
//
// A unit is a row of pieces. `load` issues the loads of a piece into registers and `consume` uses them; alone, the next
// piece is loaded before the present one is consumed, and inside another body (intra-thread) a piece is loaded at one
// step and consumed at the next. Both ways do the same arithmetic in the same order.
//
// kWidth elements move at once: 16 bytes where rows and pointers are aligned to 16 bytes, else 1 element. Sizes are free.
#ifndef NITRO_MEMORY_CUH
#define NITRO_MEMORY_CUH
#include "base.cuh"

namespace nitro {

template <class Body>
NITRO_DEVICE void run_unit(const typename Body::Params& params, int lane, int unit) {
  const int pieces = Body::pieces(params, unit);
  typename Body::State state;
  typename Body::Piece now;
  Body::load(params, lane, unit, 0, now);
  if (!Body::kAhead) {
    Body::consume(params, lane, unit, 0, now, state);
#pragma unroll 1
    for (int piece = 1; piece < pieces; piece++) {
      Body::load(params, lane, unit, piece, now);
      Body::consume(params, lane, unit, piece, now, state);
    }
  } else {
#pragma unroll 1
    for (int piece = 0; piece < pieces; piece++) {
      typename Body::Piece ahead;
      if (piece + 1 < pieces) Body::load(params, lane, unit, piece + 1, ahead);
      Body::consume(params, lane, unit, piece, now, state);
      now = ahead;
    }
  }
}

struct NoState {};

// y = (x - mean) / sqrt(variance + epsilon) * gamma + beta, by rows. A piece is a row.
// kChunks packs a lane hold a row in registers; with kChunks = 0 rows of any length are read three times.
template <typename Element, int kWidth, int kChunks, int kRows>
struct LayerNorm {
  struct Params {
    const Element* x;
    const Element* gamma;
    const Element* beta;
    Element* y;
    int rows;
    int columns;
    float inverse_columns;
    float epsilon;
  };
  static constexpr bool kBlockGranular = false;
  static constexpr bool kAhead = kRows > 1;
  static constexpr int kHeld = kChunks ? kChunks : 1;
  typedef Pack<Element, kWidth> Row;
  struct Piece {
    Row at[kHeld];
  };
  typedef NoState State;

  NITRO_DEVICE int units(const Params& params) { return ceil_div(params.rows, kRows); }
  NITRO_DEVICE int pieces(const Params& params, int unit) { return minimum(kRows, params.rows - unit * kRows); }

  NITRO_DEVICE void load(const Params& params, int lane, int unit, int piece, Piece& row) {
    if (kChunks == 0) return;
    const Element* x = params.x + static_cast<size_t>(unit * kRows + piece) * params.columns;
#pragma unroll
    for (int j = 0; j < kHeld; j++) {
      const int column = (j * 32 + lane) * kWidth;
      row.at[j] = column < params.columns ? load_once<Element, kWidth>(x + column) : zero_pack<Element, kWidth>();
    }
  }

  NITRO_DEVICE void write(const Params& params, int column, const Row& x, float mean, float scale, Element* y) {
    const Row gamma = load_shared_by_all<Element, kWidth>(params.gamma + column);
    const Row beta = load_shared_by_all<Element, kWidth>(params.beta + column);
    Row out;
#pragma unroll
    for (int e = 0; e < kWidth; e++)
      from_float(fmaf((to_float(x.at[e]) - mean) * scale, to_float(gamma.at[e]), to_float(beta.at[e])), out.at[e]);
    store_once<Element, kWidth>(y + column, out);
  }

  NITRO_DEVICE void consume(const Params& params, int lane, int unit, int piece, const Piece& row, State&) {
    const size_t start = static_cast<size_t>(unit * kRows + piece) * params.columns;
    Element* y = params.y + start;
    if (kChunks == 0) {
      const Element* x = params.x + start;
      float sum = 0.f;
      for (int column = lane * kWidth; column < params.columns; column += 32 * kWidth) {
        const Row held = load_shared_by_all<Element, kWidth>(x + column);
#pragma unroll
        for (int e = 0; e < kWidth; e++) sum = sum + to_float(held.at[e]);
      }
      const float mean = warp_sum(sum) * params.inverse_columns;
      float squares = 0.f;
      for (int column = lane * kWidth; column < params.columns; column += 32 * kWidth) {
        const Row held = load_shared_by_all<Element, kWidth>(x + column);
#pragma unroll
        for (int e = 0; e < kWidth; e++) {
          const float off = to_float(held.at[e]) - mean;
          squares = fmaf(off, off, squares);
        }
      }
      const float scale = reciprocal_root(fmaf(warp_sum(squares), params.inverse_columns, params.epsilon));
      for (int column = lane * kWidth; column < params.columns; column += 32 * kWidth)
        write(params, column, load_shared_by_all<Element, kWidth>(x + column), mean, scale, y);
      return;
    }
    float sum = 0.f;
#pragma unroll
    for (int j = 0; j < kHeld; j++) {
#pragma unroll
      for (int e = 0; e < kWidth; e++) sum = sum + to_float(row.at[j].at[e]);
    }
    const float mean = warp_sum(sum) * params.inverse_columns;
    float squares = 0.f;
#pragma unroll
    for (int j = 0; j < kHeld; j++) {
      // The zeros beyond the end of the row must not count as values far from the mean.
      const bool inside = (j * 32 + lane) * kWidth < params.columns;
#pragma unroll
      for (int e = 0; e < kWidth; e++) {
        const float off = inside ? to_float(row.at[j].at[e]) - mean : 0.f;
        squares = fmaf(off, off, squares);
      }
    }
    const float scale = reciprocal_root(fmaf(warp_sum(squares), params.inverse_columns, params.epsilon));
#pragma unroll
    for (int j = 0; j < kHeld; j++) {
      const int column = (j * 32 + lane) * kWidth;
      if (column < params.columns) write(params, column, row.at[j], mean, scale, y);
    }
  }
};

// y = softmax(scale * x) by rows. A piece is a row; kChunks = 0 takes rows of any length.
template <typename Element, int kWidth, int kChunks, int kRows>
struct Softmax {
  struct Params {
    const Element* x;
    Element* y;
    int rows;
    int columns;
    float scale;
  };
  static constexpr bool kBlockGranular = false;
  static constexpr bool kAhead = kRows > 1;
  static constexpr int kHeld = kChunks ? kChunks : 1;
  typedef Pack<Element, kWidth> Row;
  struct Piece {
    Row at[kHeld];
  };
  typedef NoState State;

  NITRO_DEVICE int units(const Params& params) { return ceil_div(params.rows, kRows); }
  NITRO_DEVICE int pieces(const Params& params, int unit) { return minimum(kRows, params.rows - unit * kRows); }

  NITRO_DEVICE void load(const Params& params, int lane, int unit, int piece, Piece& row) {
    if (kChunks == 0) return;
    const Element* x = params.x + static_cast<size_t>(unit * kRows + piece) * params.columns;
#pragma unroll
    for (int j = 0; j < kHeld; j++) {
      const int column = (j * 32 + lane) * kWidth;
      row.at[j] = column < params.columns ? load_once<Element, kWidth>(x + column) : zero_pack<Element, kWidth>();
    }
  }

  NITRO_DEVICE void consume(const Params& params, int lane, int unit, int piece, const Piece& row, State&) {
    const size_t start = static_cast<size_t>(unit * kRows + piece) * params.columns;
    const float lowest = -__int_as_float(0x7f800000);
    Element* y = params.y + start;
    float highest = lowest;
    float sum = 0.f;
    if (kChunks == 0) {
      const Element* x = params.x + start;
      for (int column = lane * kWidth; column < params.columns; column += 32 * kWidth) {
        const Row held = load_shared_by_all<Element, kWidth>(x + column);
#pragma unroll
        for (int e = 0; e < kWidth; e++) highest = fmaxf(highest, to_float(held.at[e]) * params.scale);
      }
      highest = warp_max(highest);
      for (int column = lane * kWidth; column < params.columns; column += 32 * kWidth) {
        const Row held = load_shared_by_all<Element, kWidth>(x + column);
#pragma unroll
        for (int e = 0; e < kWidth; e++) sum = sum + exponential(to_float(held.at[e]) * params.scale - highest);
      }
      const float inverse = 1.f / warp_sum(sum);
      for (int column = lane * kWidth; column < params.columns; column += 32 * kWidth) {
        const Row held = load_shared_by_all<Element, kWidth>(x + column);
        Row out;
#pragma unroll
        for (int e = 0; e < kWidth; e++)
          from_float(exponential(to_float(held.at[e]) * params.scale - highest) * inverse, out.at[e]);
        store_once<Element, kWidth>(y + column, out);
      }
      return;
    }
#pragma unroll
    for (int j = 0; j < kHeld; j++) {
      const bool inside = (j * 32 + lane) * kWidth < params.columns;
#pragma unroll
      for (int e = 0; e < kWidth; e++)
        highest = fmaxf(highest, inside ? to_float(row.at[j].at[e]) * params.scale : lowest);
    }
    highest = warp_max(highest);
    float power[kHeld * kWidth];
#pragma unroll
    for (int j = 0; j < kHeld; j++) {
      const bool inside = (j * 32 + lane) * kWidth < params.columns;
#pragma unroll
      for (int e = 0; e < kWidth; e++) {
        power[j * kWidth + e] =
            inside ? exponential(to_float(row.at[j].at[e]) * params.scale - highest) : 0.f;
        sum = sum + power[j * kWidth + e];
      }
    }
    const float inverse = 1.f / warp_sum(sum);
#pragma unroll
    for (int j = 0; j < kHeld; j++) {
      const int column = (j * 32 + lane) * kWidth;
      Row out;
#pragma unroll
      for (int e = 0; e < kWidth; e++) from_float(power[j * kWidth + e] * inverse, out.at[e]);
      if (column < params.columns) store_once<Element, kWidth>(y + column, out);
    }
  }
};

// y[b][n] = sum over k of weights[n][k] * x[b][k], plus bias[n]: a linear layer at batch 1 to 4, whose weights are
// streamed once. A unit is kRows outputs, a piece kChunks packs of each of their rows.
template <typename Element, int kWidth, int kChunks, int kRows, int kBatch>
struct SkinnyGemm {
  struct Params {
    const Element* weights;
    const Element* x;
    const Element* bias;  // may be null
    Element* y;
    int outputs;
    int inner;
  };
  static constexpr bool kBlockGranular = false;
  static constexpr bool kAhead = false;  // a piece is deep enough, and a second one would cost too many registers
  static constexpr int kSpan = 32 * kWidth * kChunks;
  struct Piece {
    Pack<Element, kWidth> at[kRows][kChunks];
  };
  struct State {
    float sum[kRows][kBatch];
  };

  NITRO_DEVICE int units(const Params& params) { return ceil_div(params.outputs, kRows); }
  NITRO_DEVICE int pieces(const Params& params, int) { return params.inner > 0 ? ceil_div(params.inner, kSpan) : 1; }

  NITRO_DEVICE void load(const Params& params, int lane, int unit, int piece, Piece& held) {
#pragma unroll
    for (int r = 0; r < kRows; r++) {
      const int output = unit * kRows + r;
      const Element* row = params.weights + static_cast<size_t>(output) * params.inner;
#pragma unroll
      for (int j = 0; j < kChunks; j++) {
        const int k = piece * kSpan + (j * 32 + lane) * kWidth;
        held.at[r][j] = output < params.outputs && k < params.inner ? load_once<Element, kWidth>(row + k)
                                                                    : zero_pack<Element, kWidth>();
      }
    }
  }

  NITRO_DEVICE void consume(const Params& params, int lane, int unit, int piece, const Piece& held, State& state) {
    if (piece == 0) {
#pragma unroll
      for (int r = 0; r < kRows; r++) {
#pragma unroll
        for (int b = 0; b < kBatch; b++) state.sum[r][b] = 0.f;
      }
    }
#pragma unroll
    for (int j = 0; j < kChunks; j++) {
      const int k = piece * kSpan + (j * 32 + lane) * kWidth;
      if (k < params.inner) {
#pragma unroll
        for (int b = 0; b < kBatch; b++) {
          const Pack<Element, kWidth> x =
              load_shared_by_all<Element, kWidth>(params.x + static_cast<size_t>(b) * params.inner + k);
#pragma unroll
          for (int r = 0; r < kRows; r++) {
#pragma unroll
            for (int e = 0; e < kWidth; e++)
              state.sum[r][b] = fmaf(to_float(held.at[r][j].at[e]), to_float(x.at[e]), state.sum[r][b]);
          }
        }
      }
    }
    if ((piece + 1) * kSpan < params.inner) return;
#pragma unroll
    for (int r = 0; r < kRows; r++) {
      const int output = unit * kRows + r;
#pragma unroll
      for (int b = 0; b < kBatch; b++) {
        float sum = warp_sum(state.sum[r][b]);
        if (lane == 0 && output < params.outputs) {
          if (params.bias) sum = sum + to_float(params.bias[output]);
          from_float(sum, params.y[static_cast<size_t>(b) * params.outputs + output]);
        }
      }
    }
  }
};

// y[t] = table[ids[t]] + positions[t % sequence]. An id outside the table gives a row of NaN: visible, and no wild read.
// A unit is kRows tokens, a piece kChunks packs a lane of one of them; a unit takes the same packs of all its tokens
// before the next packs, so that a piece is found without a division.
template <typename Element, int kWidth, int kChunks, int kRows>
struct Embedding {
  struct Params {
    const int* ids;
    const Element* table;
    const Element* positions;
    Element* y;
    int tokens;
    int columns;
    int vocabulary;
    int sequence;
  };
  static constexpr bool kBlockGranular = false;
  static constexpr bool kAhead = kRows > 1;
  static constexpr int kSpan = 32 * kWidth * kChunks;
  // The row of the table comes from memory and is loaded ahead; that of the position comes from a cache.
  struct Piece {
    Pack<Element, kWidth> token[kChunks];
    int known;
  };
  typedef NoState State;

  NITRO_DEVICE int units(const Params& params) { return params.columns > 0 ? ceil_div(params.tokens, kRows) : 0; }
  NITRO_DEVICE int pieces(const Params& params, int) { return kRows * ceil_div(params.columns, kSpan); }

  NITRO_DEVICE void load(const Params& params, int lane, int unit, int piece, Piece& held) {
    const int token = unit * kRows + piece % kRows;
    const int id = token < params.tokens ? load_shared_by_all<int, 1>(params.ids + token).at[0] : -1;
    held.known = id >= 0 && id < params.vocabulary;
    const Element* row = params.table + static_cast<size_t>(held.known ? id : 0) * params.columns;
#pragma unroll
    for (int j = 0; j < kChunks; j++) {
      const int column = piece / kRows * kSpan + (j * 32 + lane) * kWidth;
      held.token[j] = held.known && column < params.columns ? load_shared_by_all<Element, kWidth>(row + column)
                                                            : zero_pack<Element, kWidth>();
    }
  }

  NITRO_DEVICE void consume(const Params& params, int lane, int unit, int piece, const Piece& held, State&) {
    const int token = unit * kRows + piece % kRows;
    if (token >= params.tokens) return;
    const uint32 place = static_cast<uint32>(token) % static_cast<uint32>(params.sequence);
    const Element* position = params.positions + static_cast<size_t>(place) * params.columns;
    Element* y = params.y + static_cast<size_t>(token) * params.columns;
    Pack<Element, kWidth> added[kChunks];
#pragma unroll
    for (int j = 0; j < kChunks; j++) {
      const int column = piece / kRows * kSpan + (j * 32 + lane) * kWidth;
      added[j] = column < params.columns ? load_shared_by_all<Element, kWidth>(position + column)
                                         : zero_pack<Element, kWidth>();
    }
#pragma unroll
    for (int j = 0; j < kChunks; j++) {
      const int column = piece / kRows * kSpan + (j * 32 + lane) * kWidth;
      Pack<Element, kWidth> out;
#pragma unroll
      for (int e = 0; e < kWidth; e++)
        from_float(held.known ? to_float(held.token[j].at[e]) + to_float(added[j].at[e]) : __int_as_float(0x7fc00000),
                   out.at[e]);
      if (column < params.columns) store_once<Element, kWidth>(y + column, out);
    }
  }
};

// y = gelu(x + residual), the exact GELU with the error function.
struct ResidualGelu {
  static constexpr bool kTwoInputs = true;
  NITRO_DEVICE float apply(float x, float residual) {
    const float value = x + residual;
    return 0.5f * value * (1.f + error_function(value * 0.70710678f));
  }
};
// y = x: the yardstick that the other bodies' bandwidth is measured against.
struct Copy {
  static constexpr bool kTwoInputs = false;
  NITRO_DEVICE float apply(float x, float) { return x; }
};

// One operation on every element. A unit is kPieces pieces of kChunks packs a lane, all of them contiguous.
template <class Operation, typename Element, int kWidth, int kChunks, int kPieces>
struct Elementwise {
  struct Params {
    const Element* x;
    const Element* residual;
    Element* y;
    long long count;
  };
  static constexpr bool kBlockGranular = false;
  static constexpr bool kAhead = kPieces > 1;
  static constexpr int kSpan = 32 * kWidth * kChunks;
  struct Piece {
    Pack<Element, kWidth> x[kChunks];
    Pack<Element, kWidth> residual[kChunks];
  };
  typedef NoState State;

  NITRO_DEVICE int units(const Params& params) {
    return static_cast<int>((params.count + kSpan * kPieces - 1) / (kSpan * kPieces));
  }
  NITRO_DEVICE int pieces(const Params&, int) { return kPieces; }

  NITRO_DEVICE void load(const Params& params, int lane, int unit, int piece, Piece& held) {
    const long long start = (static_cast<long long>(unit) * kPieces + piece) * kSpan;
#pragma unroll
    for (int j = 0; j < kChunks; j++) {
      const long long at = start + (j * 32 + lane) * kWidth;
      const bool inside = at < params.count;
      held.x[j] = inside ? load_once<Element, kWidth>(params.x + at) : zero_pack<Element, kWidth>();
      if (Operation::kTwoInputs)
        held.residual[j] = inside ? load_once<Element, kWidth>(params.residual + at) : zero_pack<Element, kWidth>();
    }
  }

  NITRO_DEVICE void consume(const Params& params, int lane, int unit, int piece, const Piece& held, State&) {
    const long long start = (static_cast<long long>(unit) * kPieces + piece) * kSpan;
#pragma unroll
    for (int j = 0; j < kChunks; j++) {
      const long long at = start + (j * 32 + lane) * kWidth;
      Pack<Element, kWidth> out;
#pragma unroll
      for (int e = 0; e < kWidth; e++)
        from_float(Operation::apply(to_float(held.x[j].at[e]),
                                    Operation::kTwoInputs ? to_float(held.residual[j].at[e]) : 0.f),
                   out.at[e]);
      if (at < params.count) store_once<Element, kWidth>(params.y + at, out);
    }
  }
};

}  // namespace nitro
#endif
