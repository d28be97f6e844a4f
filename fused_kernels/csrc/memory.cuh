// Memory-bound bodies. Their unit is the work of one warp: no barrier, so any set of warps can do them.
//
// A unit is a row of pieces. `load` says which packs of memory a piece consists of and `consume` uses them; alone, the
// next piece is loaded before the present one is consumed, inside another body (intra-thread) a piece is loaded at one
// step and consumed at the next, and a staged body has many pieces on their way through shared memory. All of them do
// the same arithmetic in the same order.
//
// kWidth elements move at once: 16 bytes where rows and pointers are aligned to 16 bytes, else 1 element. Sizes are free.
#ifndef NITRO_MEMORY_CUH
#define NITRO_MEMORY_CUH
#include "base.cuh"

namespace nitro {

// The packs of a piece in registers. Packs that are read once leave the caches to those who come back.
template <typename Element, int kWidth, int kCount, bool kOnce = true>
struct Packs {
  typedef Pack<Element, kWidth> Vector;
  static constexpr int kPacks = kCount;
  Vector at[kCount];

  NITRO_METHOD void take(int j, const Element* from, bool inside) {
    if (kOnce)
      at[j] = inside ? load_once<Element, kWidth>(from) : zero_pack<Element, kWidth>();
    else
      at[j] = inside ? load_shared_by_all<Element, kWidth>(from) : zero_pack<Element, kWidth>();
  }
};

template <class Body>
NITRO_DEVICE void run_unit(const typename Body::Params& params, int lane, int unit) {
  const int pieces = Body::pieces(params, unit);
  const typename Body::Reloaded constants = {};
  typename Body::State state;
  typename Body::Piece now;
  Body::load(params, lane, unit, 0, now);
  if (!Body::kAhead) {
    Body::consume(params, constants, lane, unit, 0, now, state);
#pragma unroll 1
    for (int piece = 1; piece < pieces; piece++) {
      Body::load(params, lane, unit, piece, now);
      Body::consume(params, constants, lane, unit, piece, now, state);
    }
  } else {
#pragma unroll 1
    for (int piece = 0; piece < pieces; piece++) {
      typename Body::Piece ahead;
      if (piece + 1 < pieces) Body::load(params, lane, unit, piece + 1, ahead);
      Body::consume(params, constants, lane, unit, piece, now, state);
      now = ahead;
    }
  }
}

template <bool kFirst, class First, class Second>
struct Either {
  typedef First Type;
};
template <class First, class Second>
struct Either<false, First, Second> {
  typedef Second Type;
};

// A body whose warps have kSlots pieces on their way through shared memory, so that few warps with few registers keep
// the memory busy beside a compute body that needs the others. A lane reads only what it copied itself: that takes no
// barrier. With kKeep what does not change from unit to unit stays in registers.
template <class Body, int kSlots, bool kKeep>
struct Staged : Body {
  typedef typename Either<kKeep, typename Body::Kept, typename Body::Reloaded>::Type Constants;
  static constexpr int kStages = kSlots;
  static constexpr int kSlotBytes = Body::Piece::kPacks * 32 * static_cast<int>(sizeof(typename Body::Piece::Vector));
  static constexpr int kWarpBytes = kSlots * kSlotBytes;
  static_assert(kSlots >= 2 && kSlots <= 32, "a lane for each slot remembers what is in it");
};

// Where the packs of a piece go that are copied instead of loaded; `take` as of Packs.
template <class Piece>
struct Aside {
  typedef typename Piece::Vector Vector;
  static constexpr int kStride = 32 * static_cast<int>(sizeof(Vector));
  Shared corner;

  template <typename Element>
  NITRO_METHOD void take(int j, const Element* from, bool inside) const {
    copy_async<sizeof(Vector)>(corner + j * kStride, from, inside);
  }
};

// How a warp does one unit after the other; `source.next()` gives the next one, and -1 when there is none left.
template <bool kStaged>
struct Feed;

template <>
struct Feed<false> {
  template <class Body, class Where>
  NITRO_DEVICE void one(const typename Body::Params& params, const Where& where, int unit) {
    run_unit<Body>(params, where.lane(), unit);
  }
  template <class Body, class Where, class Source>
  NITRO_DEVICE void run(const typename Body::Params& params, const Where& where, int first, Source& source) {
#pragma unroll 1
    for (int unit = source.next(); unit >= 0; unit = source.next())
      run_unit<Body>(params, where.lane(), first + unit);
  }
};

template <>
struct Feed<true> {
  template <class Body, class Source>
  struct Line {
    const typename Body::Params& params;
    Source& source;
    int first;
    int lane;
    Shared corner;  // of this lane in the first slot
    int unit;       // where the next copies are
    int piece;
    int pieces;
    int held_unit;  // lane s knows what slot s holds
    int held_piece;

    NITRO_METHOD Line(const typename Body::Params& params_, Source& source_) : params(params_), source(source_) {}

    NITRO_METHOD void copy(int slot) {
      if (piece == pieces) {
        unit = source.next();
        piece = 0;
        pieces = unit < 0 ? 0 : Body::pieces(params, first + unit);
      }
      if (lane == slot) {
        held_unit = unit;
        held_piece = piece;
      }
      if (unit >= 0) {
        const Aside<typename Body::Piece> aside = {corner + slot * Body::kSlotBytes};
        Body::load(params, lane, first + unit, piece, aside);
        piece++;
      }
      commit_copies();
    }
  };

  struct Single {
    int unit;
    NITRO_METHOD int next() {
      const int mine = unit;
      unit = -1;
      return mine;
    }
  };

  template <class Body, class Where>
  NITRO_DEVICE void one(const typename Body::Params& params, const Where& where, int unit) {
    Single only = {unit};
    run<Body>(params, where, 0, only);
  }
  template <class Body, class Where, class Source>
  NITRO_DEVICE void run(const typename Body::Params& params, const Where& where, int first, Source& source) {
    typedef typename Body::Piece::Vector Vector;
    const int lane = where.lane();
    const char* mine = where.shared + where.warp() * Body::kWarpBytes + lane * static_cast<int>(sizeof(Vector));
    typename Body::Constants constants;
    constants.start(params, lane);
    Line<Body, Source> line(params, source);
    line.first = first;
    line.lane = lane;
    line.corner = shared_at(mine);
    line.piece = 0;
    line.pieces = 0;
    line.held_unit = -1;
    line.held_piece = 0;
#pragma unroll 1
    for (int slot = 0; slot < Body::kStages; slot++) line.copy(slot);
    typename Body::State state;
    int slot = 0;
#pragma unroll 1
    for (int unit = shuffle_from(line.held_unit, 0); unit >= 0; unit = shuffle_from(line.held_unit, slot)) {
      const int piece = shuffle_from(line.held_piece, slot);
      wait_for_copies<Body::kStages - 1>();
      const Vector* held = reinterpret_cast<const Vector*>(mine + slot * Body::kSlotBytes);
      typename Body::Piece now;
#pragma unroll
      for (int j = 0; j < Body::Piece::kPacks; j++) now.at[j] = held[j * 32];
      Body::consume(params, constants, lane, first + unit, piece, now, state);
      line.copy(slot);
      slot = slot + 1 == Body::kStages ? 0 : slot + 1;
    }
    wait_for_copies<0>();
  }
};

// Of a body whose pieces go to registers.
struct Unstaged {
  static constexpr int kStages = 0;
  static constexpr int kWarpBytes = 0;
};

// Of a body without constants.
struct NoConstants {
  template <class Params>
  NITRO_METHOD void start(const Params&, int) {}
};

struct NoState {};

// y = (x - mean) / sqrt(variance + epsilon) * gamma + beta, by rows. A piece is kTogether rows, which are worked on at once.
// kChunks packs a lane hold a row in registers; with kChunks = 0 rows of any length are read three times.
template <typename Element, int kWidth, int kChunks, int kRows, int kTogether = 1>
struct LayerNorm : Unstaged {
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
  typedef Packs<Element, kWidth, kHeld * kTogether> Piece;
  static_assert(kTogether == 1 || kChunks > 0, "long rows are read one by one");
  static_assert(kRows % kTogether == 0, "no piece reaches into the next unit");
  typedef NoState State;

  // gamma and beta, read again for every row or kept.
  struct Reloaded {
    NITRO_METHOD Row gamma(const Params& params, int, int column) const {
      return load_shared_by_all<Element, kWidth>(params.gamma + column);
    }
    NITRO_METHOD Row beta(const Params& params, int, int column) const {
      return load_shared_by_all<Element, kWidth>(params.beta + column);
    }
    NITRO_METHOD void start(const Params&, int) {}
  };
  struct InRegisters {
    Row gammas[kHeld];
    Row betas[kHeld];
    NITRO_METHOD Row gamma(const Params&, int j, int) const { return gammas[j]; }
    NITRO_METHOD Row beta(const Params&, int j, int) const { return betas[j]; }
    NITRO_METHOD void start(const Params& params, int lane) {
      const Reloaded from = {};
#pragma unroll
      for (int j = 0; j < kHeld; j++) {
        const int column = (j * 32 + lane) * kWidth;
        if (column >= params.columns) continue;
        gammas[j] = from.gamma(params, j, column);
        betas[j] = from.beta(params, j, column);
      }
    }
  };
  // Of rows of up to 512 numbers; with more they would take the registers of the compute body.
  typedef typename Either<(kChunks > 0 && kHeld * sizeof(Row) <= 64), InRegisters, Reloaded>::Type Kept;

  NITRO_DEVICE int units(const Params& params) { return ceil_div(params.rows, kRows); }
  NITRO_DEVICE int pieces(const Params& params, int unit) {
    return ceil_div(minimum(kRows, params.rows - unit * kRows), kTogether);
  }

  template <class Into>
  NITRO_DEVICE void load(const Params& params, int lane, int unit, int piece, Into& row) {
    if (kChunks == 0) return;
    const int first = unit * kRows + piece * kTogether;
#pragma unroll
    for (int r = 0; r < kTogether; r++) {
      const Element* x = params.x + static_cast<size_t>(first + r) * params.columns;
#pragma unroll
      for (int j = 0; j < kHeld; j++) {
        const int column = (j * 32 + lane) * kWidth;
        row.take(r * kHeld + j, x + column, column < params.columns && (kTogether == 1 || first + r < params.rows));
      }
    }
  }

  template <class Constants>
  NITRO_DEVICE void write(const Params& params, const Constants& constants, int j, int column, const Row& x, float mean,
                          float scale, Element* y) {
    const Row gamma = constants.gamma(params, j, column);
    const Row beta = constants.beta(params, j, column);
    Row out;
#pragma unroll
    for (int e = 0; e < kWidth; e++)
      from_float(fmaf((to_float(x.at[e]) - mean) * scale, to_float(gamma.at[e]), to_float(beta.at[e])), out.at[e]);
    store_once<Element, kWidth>(y + column, out);
  }

  template <class Constants>
  NITRO_DEVICE void consume(const Params& params, const Constants& constants, int lane, int unit, int piece,
                            const Piece& row, State&) {
    const size_t start = static_cast<size_t>(unit * kRows + piece * kTogether) * params.columns;
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
        write(params, Reloaded(), 0, column, load_shared_by_all<Element, kWidth>(x + column), mean, scale, y);
      return;
    }
    float sums[kTogether];
#pragma unroll
    for (int r = 0; r < kTogether; r++) {
      float parts[kWidth];
#pragma unroll
      for (int e = 0; e < kWidth; e++) {
        parts[e] = 0.f;
#pragma unroll
        for (int j = 0; j < kHeld; j++) parts[e] = parts[e] + to_float(row.at[r * kHeld + j].at[e]);
      }
      sums[r] = tree_sum(parts);
    }
    warp_sums(sums);
    float squares[kTogether];
#pragma unroll
    for (int r = 0; r < kTogether; r++) {
      sums[r] = sums[r] * params.inverse_columns;
      float parts[kWidth];
#pragma unroll
      for (int e = 0; e < kWidth; e++) parts[e] = 0.f;
#pragma unroll
      for (int j = 0; j < kHeld; j++) {
        // The zeros beyond the end of the row must not count as values far from the mean.
        const bool inside = (j * 32 + lane) * kWidth < params.columns;
#pragma unroll
        for (int e = 0; e < kWidth; e++) {
          const float off = inside ? to_float(row.at[r * kHeld + j].at[e]) - sums[r] : 0.f;
          parts[e] = fmaf(off, off, parts[e]);
        }
      }
      squares[r] = tree_sum(parts);
    }
    warp_sums(squares);
#pragma unroll
    for (int r = 0; r < kTogether; r++) {
      const float scale = reciprocal_root(fmaf(squares[r], params.inverse_columns, params.epsilon));
      if (kTogether > 1 && unit * kRows + piece * kTogether + r >= params.rows) continue;
#pragma unroll
      for (int j = 0; j < kHeld; j++) {
        const int column = (j * 32 + lane) * kWidth;
        if (column < params.columns)
          write(params, constants, j, column, row.at[r * kHeld + j], sums[r], scale,
                y + static_cast<size_t>(r) * params.columns);
      }
    }
  }
};

// y = softmax(scale * x) by rows. A piece is kTogether rows; kChunks = 0 takes rows of any length.
template <typename Element, int kWidth, int kChunks, int kRows, int kTogether = 1>
struct Softmax : Unstaged {
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
  typedef Packs<Element, kWidth, kHeld * kTogether> Piece;
  static_assert(kTogether == 1 || kChunks > 0, "long rows are read one by one");
  static_assert(kRows % kTogether == 0, "no piece reaches into the next unit");
  typedef NoState State;
  typedef NoConstants Reloaded;
  typedef NoConstants Kept;

  NITRO_DEVICE int units(const Params& params) { return ceil_div(params.rows, kRows); }
  NITRO_DEVICE int pieces(const Params& params, int unit) {
    return ceil_div(minimum(kRows, params.rows - unit * kRows), kTogether);
  }

  template <class Into>
  NITRO_DEVICE void load(const Params& params, int lane, int unit, int piece, Into& row) {
    if (kChunks == 0) return;
    const int first = unit * kRows + piece * kTogether;
#pragma unroll
    for (int r = 0; r < kTogether; r++) {
      const Element* x = params.x + static_cast<size_t>(first + r) * params.columns;
#pragma unroll
      for (int j = 0; j < kHeld; j++) {
        const int column = (j * 32 + lane) * kWidth;
        row.take(r * kHeld + j, x + column, column < params.columns && (kTogether == 1 || first + r < params.rows));
      }
    }
  }

  NITRO_DEVICE void consume(const Params& params, const NoConstants&, int lane, int unit, int piece, const Piece& row,
                            State&) {
    const size_t start = static_cast<size_t>(unit * kRows + piece * kTogether) * params.columns;
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
    float tops[kTogether];
#pragma unroll
    for (int r = 0; r < kTogether; r++) {
      tops[r] = lowest;
#pragma unroll
      for (int j = 0; j < kHeld; j++) {
        const bool inside = (j * 32 + lane) * kWidth < params.columns;
#pragma unroll
        for (int e = 0; e < kWidth; e++)
          tops[r] = fmaxf(tops[r], inside ? to_float(row.at[r * kHeld + j].at[e]) * params.scale : lowest);
      }
    }
    warp_maxima(tops);
    float power[kTogether][kHeld * kWidth];
    float sums[kTogether];
#pragma unroll
    for (int r = 0; r < kTogether; r++) {
      float parts[kWidth];
#pragma unroll
      for (int e = 0; e < kWidth; e++) parts[e] = 0.f;
#pragma unroll
      for (int j = 0; j < kHeld; j++) {
        const bool inside = (j * 32 + lane) * kWidth < params.columns;
#pragma unroll
        for (int e = 0; e < kWidth; e++) {
          const float off = to_float(row.at[r * kHeld + j].at[e]) * params.scale - tops[r];
          power[r][j * kWidth + e] = inside ? exponential(off) : 0.f;
          parts[e] = parts[e] + power[r][j * kWidth + e];
        }
      }
      sums[r] = tree_sum(parts);
    }
    warp_sums(sums);
#pragma unroll
    for (int r = 0; r < kTogether; r++) {
      if (kTogether > 1 && unit * kRows + piece * kTogether + r >= params.rows) continue;
      const float inverse = 1.f / sums[r];
#pragma unroll
      for (int j = 0; j < kHeld; j++) {
        const int column = (j * 32 + lane) * kWidth;
        Row out;
#pragma unroll
        for (int e = 0; e < kWidth; e++) from_float(power[r][j * kWidth + e] * inverse, out.at[e]);
        if (column < params.columns)
          store_once<Element, kWidth>(y + static_cast<size_t>(r) * params.columns + column, out);
      }
    }
  }
};

// y[b][n] = sum over k of weights[n][k] * x[b][k], plus bias[n]: a linear layer at batch 1 to 4, whose weights are
// streamed once. A unit is kRows outputs, a piece kChunks packs of each of their rows.
template <typename Element, int kWidth, int kChunks, int kRows, int kBatch>
struct SkinnyGemm : Unstaged {
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
  typedef Packs<Element, kWidth, kRows * kChunks> Piece;
  struct State {
    float sum[kRows][kBatch];
  };
  typedef NoConstants Reloaded;
  typedef NoConstants Kept;

  NITRO_DEVICE int units(const Params& params) { return ceil_div(params.outputs, kRows); }
  NITRO_DEVICE int pieces(const Params& params, int) { return params.inner > 0 ? ceil_div(params.inner, kSpan) : 1; }

  template <class Into>
  NITRO_DEVICE void load(const Params& params, int lane, int unit, int piece, Into& held) {
#pragma unroll
    for (int r = 0; r < kRows; r++) {
      const int output = unit * kRows + r;
      const Element* row = params.weights + static_cast<size_t>(output) * params.inner;
#pragma unroll
      for (int j = 0; j < kChunks; j++) {
        const int k = piece * kSpan + (j * 32 + lane) * kWidth;
        held.take(r * kChunks + j, row + k, output < params.outputs && k < params.inner);
      }
    }
  }

  NITRO_DEVICE void consume(const Params& params, const NoConstants&, int lane, int unit, int piece, const Piece& held,
                            State& state) {
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
              state.sum[r][b] = fmaf(to_float(held.at[r * kChunks + j].at[e]), to_float(x.at[e]), state.sum[r][b]);
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
struct Embedding : Unstaged {
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
  typedef Packs<Element, kWidth, kChunks, false> Piece;
  typedef NoState State;
  typedef NoConstants Reloaded;
  typedef NoConstants Kept;

  NITRO_DEVICE int units(const Params& params) { return params.columns > 0 ? ceil_div(params.tokens, kRows) : 0; }
  NITRO_DEVICE int pieces(const Params& params, int) { return kRows * ceil_div(params.columns, kSpan); }

  // Of a token, -1 where there is none or it is outside the table. It is in a cache when the row is consumed.
  NITRO_DEVICE int known_id(const Params& params, int token) {
    const int id = token < params.tokens ? load_shared_by_all<int, 1>(params.ids + token).at[0] : -1;
    return id < params.vocabulary ? id : -1;
  }

  template <class Into>
  NITRO_DEVICE void load(const Params& params, int lane, int unit, int piece, Into& held) {
    const int id = known_id(params, unit * kRows + piece % kRows);
    const Element* row = params.table + static_cast<size_t>(id < 0 ? 0 : id) * params.columns;
#pragma unroll
    for (int j = 0; j < kChunks; j++) {
      const int column = piece / kRows * kSpan + (j * 32 + lane) * kWidth;
      held.take(j, row + column, id >= 0 && column < params.columns);
    }
  }

  NITRO_DEVICE void consume(const Params& params, const NoConstants&, int lane, int unit, int piece, const Piece& held,
                            State&) {
    const int token = unit * kRows + piece % kRows;
    if (token >= params.tokens) return;
    const bool known = known_id(params, token) >= 0;
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
        from_float(known ? to_float(held.at[j].at[e]) + to_float(added[j].at[e]) : __int_as_float(0x7fc00000),
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
struct Elementwise : Unstaged {
  struct Params {
    const Element* x;
    const Element* residual;
    Element* y;
    long long count;
  };
  static constexpr bool kBlockGranular = false;
  static constexpr bool kAhead = kPieces > 1;
  static constexpr int kSpan = 32 * kWidth * kChunks;
  // The packs of x, then those of the residual.
  typedef Packs<Element, kWidth, (Operation::kTwoInputs ? 2 : 1) * kChunks> Piece;
  static constexpr int kResidual = Operation::kTwoInputs ? kChunks : 0;
  typedef NoState State;
  typedef NoConstants Reloaded;
  typedef NoConstants Kept;

  NITRO_DEVICE int units(const Params& params) {
    return static_cast<int>((params.count + kSpan * kPieces - 1) / (kSpan * kPieces));
  }
  NITRO_DEVICE int pieces(const Params&, int) { return kPieces; }

  template <class Into>
  NITRO_DEVICE void load(const Params& params, int lane, int unit, int piece, Into& held) {
    const long long start = (static_cast<long long>(unit) * kPieces + piece) * kSpan;
#pragma unroll
    for (int j = 0; j < kChunks; j++) {
      const long long at = start + (j * 32 + lane) * kWidth;
      const bool inside = at < params.count;
      held.take(j, params.x + at, inside);
      if (Operation::kTwoInputs) held.take(kResidual + j, params.residual + at, inside);
    }
  }

  NITRO_DEVICE void consume(const Params& params, const NoConstants&, int lane, int unit, int piece, const Piece& held,
                            State&) {
    const long long start = (static_cast<long long>(unit) * kPieces + piece) * kSpan;
#pragma unroll
    for (int j = 0; j < kChunks; j++) {
      const long long at = start + (j * 32 + lane) * kWidth;
      Pack<Element, kWidth> out;
#pragma unroll
      for (int e = 0; e < kWidth; e++)
        from_float(Operation::apply(to_float(held.at[j].at[e]),
                                    Operation::kTwoInputs ? to_float(held.at[kResidual + j].at[e]) : 0.f),
                   out.at[e]);
      if (at < params.count) store_once<Element, kWidth>(params.y + at, out);
    }
  }
};

}  // namespace nitro
#endif
