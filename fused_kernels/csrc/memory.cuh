// Memory-bound bodies. Their unit is the work of one warp: no barrier, so any set of warps can do them.
//
// A unit is a row of pieces. `load` says which packs of memory a piece consists of and `consume` uses them; alone, the
// next piece is loaded before the present one is consumed, inside another body (intra-thread) a piece is loaded at one
// step and consumed at the next, and a staged body has many pieces on their way through shared memory. All of them do
// the same arithmetic in the same order.
//
// kWidth elements move at once: 16 bytes where rows and pointers are aligned to 16 bytes, else 1 element. Sizes are free,
// but with kExact a row (of a GEMV: a line of weights; elementwise: all of it) is a whole number of pieces. Then nothing
// must be asked for each pack, and addresses are constants. That matters beside a compute body, which wants nearly every
// slot in which an instruction can be issued: here they are counted.
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

// Two pieces in turn, so that none is moved from register to register.
template <class Body>
NITRO_DEVICE void run_unit(const typename Body::Params& params, int lane, int unit, typename Body::State& state) {
  const int pieces = Body::pieces(params, unit);
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
    typename Body::Piece ahead;
#pragma unroll 1
    for (int piece = 0; piece < pieces; piece += 2) {
      if (piece + 1 < pieces) Body::load(params, lane, unit, piece + 1, ahead);
      Body::consume(params, lane, unit, piece, now, state);
      if (piece + 1 >= pieces) break;
      if (piece + 2 < pieces) Body::load(params, lane, unit, piece + 2, now);
      Body::consume(params, lane, unit, piece + 1, ahead, state);
    }
  }
}

// A body whose warps have kSlots pieces on their way through shared memory, so that few warps with few registers keep
// the memory busy beside a compute body that needs the others. A lane reads only what it copied itself: that takes no
// barrier.
template <class Body, int kSlots>
struct Staged : Body {
  static constexpr int kStages = kSlots;
  static constexpr int kSlotBytes = Body::Piece::kPacks * 32 * static_cast<int>(sizeof(typename Body::Piece::Vector));
  static constexpr int kWarpBytes = kSlots * kSlotBytes + Body::kWarpBytes;
  static_assert(kSlots >= 2 && kSlots <= 31, "a lane for each unit that is on its way remembers it");
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
    typename Body::State state;
    state.start(where.shared + where.warp() * Body::kWarpBytes);
    run_unit<Body>(params, where.lane(), unit, state);
  }
  template <class Body, class Where, class Source>
  NITRO_DEVICE void run(const typename Body::Params& params, const Where& where, int first, Source& source) {
    typename Body::State state;
    state.start(where.shared + where.warp() * Body::kWarpBytes);
#pragma unroll 1
    for (int unit = source.next(); unit >= 0; unit = source.next())
      run_unit<Body>(params, where.lane(), first + unit, state);
  }
};

template <>
struct Feed<true> {
  // The side that copies. It is ahead of the side that consumes, which learns the units from it in their order.
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
    int units;  // begun so far
    int held;   // lane u % 32 knows unit number u

    NITRO_METHOD Line(const typename Body::Params& params_, Source& source_) : params(params_), source(source_) {}

    NITRO_METHOD void copy(int slot) {
      if (piece == pieces) {
        unit = source.next();
        if (lane == (units & 31)) held = unit;
        units++;
        piece = 0;
        // After the last unit there is no piece, and this is asked for again.
        pieces = unit < 0 ? 0 : Body::pieces(params, first + unit);
      }
      if (piece < pieces) {
        const Aside<typename Body::Piece> aside = {corner + slot * Body::kSlotBytes};
        Body::load(params, lane, first + unit, piece, aside);
        piece++;
      }
      commit_copies();
    }
    NITRO_METHOD int unit_number(int which) const { return shuffle_from(held, which & 31); }
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
    char* slots = where.shared + where.warp() * Body::kWarpBytes;
    const char* mine = slots + lane * static_cast<int>(sizeof(Vector));
    typename Body::State state;
    state.start(slots + Body::kStages * Body::kSlotBytes);
    Line<Body, Source> line(params, source);
    line.first = first;
    line.lane = lane;
    line.corner = shared_at(mine);
    line.piece = 0;
    line.pieces = 0;
    line.units = 0;
    line.held = -1;
#pragma unroll 1
    for (int slot = 0; slot < Body::kStages; slot++) line.copy(slot);
    int slot = 0;
    int done = 0;
#pragma unroll 1
    for (int unit = line.unit_number(0); unit >= 0; unit = line.unit_number(done)) {
      const int pieces = Body::pieces(params, first + unit);
#pragma unroll 1
      for (int piece = 0; piece < pieces; piece++) {
        wait_for_copies<Body::kStages - 1>();
        const Vector* held = reinterpret_cast<const Vector*>(mine + slot * Body::kSlotBytes);
        typename Body::Piece now;
#pragma unroll
        for (int j = 0; j < Body::Piece::kPacks; j++) now.at[j] = held[j * 32];
        Body::consume(params, lane, first + unit, piece, now, state);
        line.copy(slot);
        slot = slot + 1 == Body::kStages ? 0 : slot + 1;
      }
      done++;
    }
    wait_for_copies<0>();
  }
};

// Of a body whose pieces go to registers, and which needs no shared memory.
struct Unstaged {
  static constexpr int kStages = 0;
  static constexpr int kWarpBytes = 0;
};

// What a warp remembers from piece to piece; it starts with the warp's part of shared memory.
struct NoState {
  NITRO_METHOD void start(char*) {}
};

NITRO_DEVICE float lowest() { return -__int_as_float(0x7f800000); }

// How LayerNorm and softmax deal rows to warps: kTogether rows a piece, each of kHeld packs a lane.
template <int kWidth, int kHeld, int kRows, int kTogether, bool kExact>
struct RowsOfWarps {
  static constexpr int kColumns = 32 * kWidth * kHeld;
  static_assert(kRows % kTogether == 0, "no piece reaches into the next unit");

  template <class Params>
  NITRO_DEVICE int pieces(const Params& params, int unit) {
    return kRows == kTogether ? 1 : ceil_div(minimum(kRows, params.rows - unit * kRows), kTogether);
  }
  template <class Params>
  NITRO_DEVICE int row_size(const Params& params) {
    return kExact ? static_cast<int>(kColumns) : params.columns;
  }
  NITRO_DEVICE int column(int lane, int j) { return (j * 32 + lane) * kWidth; }
  template <class Params>
  NITRO_DEVICE bool inside(const Params& params, int column) {
    return kExact || column < params.columns;
  }
  // Of a lane in a row.
  template <class Params, typename Element>
  NITRO_DEVICE Element* at(const Params& params, Element* from, int lane, int row) {
    return rows_on(from + lane * kWidth, row, row_size(params));
  }
  // Beyond the last row it is read again: nothing is asked for each pack.
  template <class Params, typename Element, class Into>
  NITRO_DEVICE void load(const Params& params, const Element* from, int lane, int unit, int piece, Into& into) {
    const int first = unit * kRows + piece * kTogether;
#pragma unroll
    for (int r = 0; r < kTogether; r++) {
      const Element* x = at(params, from, lane, r ? minimum(first + r, params.rows - 1) : first);
#pragma unroll
      for (int j = 0; j < kHeld; j++)
        into.take(r * kHeld + j, x + j * 32 * kWidth, inside(params, column(lane, j)));
    }
  }
  template <class Params, typename Element>
  NITRO_DEVICE void store(const Params& params, Element* to, int unit, int piece, int r, int j,
                          const Pack<Element, kWidth>& pack) {
    if (r && unit * kRows + piece * kTogether + r >= params.rows) return;
    store_once<Element, kWidth>(to + (r * row_size(params) + j * 32 * kWidth), pack);
  }
};

// y = (x - mean) / sqrt(variance + epsilon) * gamma + beta, by rows. A piece is kTogether rows, which are worked on at once.
// kChunks packs a lane hold a row in registers; with kChunks = 0 rows of any length are read three times.
template <typename Element, int kWidth, int kChunks, int kRows, int kTogether = 1, bool kExact = false>
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
  static constexpr bool kAhead = false;  // registers are better spent on rows at once
  static constexpr int kHeld = kChunks ? kChunks : 1;
  typedef Pack<Element, kWidth> Row;
  typedef Packs<Element, kWidth, kHeld * kTogether> Piece;
  typedef RowsOfWarps<kWidth, kHeld, kRows, kTogether, kExact> Rows;
  static_assert(kTogether == 1 || kChunks > 0, "long rows are read one by one");
  typedef NoState State;

  NITRO_DEVICE int units(const Params& params) { return ceil_div(params.rows, kRows); }
  NITRO_DEVICE int pieces(const Params& params, int unit) { return Rows::pieces(params, unit); }

  template <class Into>
  NITRO_DEVICE void load(const Params& params, int lane, int unit, int piece, Into& row) {
    if (kChunks > 0) Rows::load(params, params.x, lane, unit, piece, row);
  }

  NITRO_DEVICE void consume(const Params& params, int lane, int unit, int piece, const Piece& row, State&) {
    if (kChunks == 0) return long_row(params, lane, unit * kRows + piece);
    float off[kTogether][kHeld * kWidth];
    float sums[kTogether];
#pragma unroll
    for (int r = 0; r < kTogether; r++) {
      float parts[kWidth];
#pragma unroll
      for (int j = 0; j < kHeld; j++) {
#pragma unroll
        for (int e = 0; e < kWidth; e++) {
          const float value = to_float(row.at[r * kHeld + j].at[e]);
          off[r][j * kWidth + e] = value;
          parts[e] = j ? parts[e] + value : value;
        }
      }
      sums[r] = tree_sum(parts);
    }
    const float means = reduce_apart<Sum>(sums, lane) * params.inverse_columns;
    float squares[kTogether];
#pragma unroll
    for (int r = 0; r < kTogether; r++) {
      const float mean = everywhere<kTogether>(means, r);
      float parts[kWidth];
#pragma unroll
      for (int j = 0; j < kHeld; j++) {
        // The zeros beyond the end of the row must not count as values far from the mean.
        const bool inside = Rows::inside(params, Rows::column(lane, j));
#pragma unroll
        for (int e = 0; e < kWidth; e++) {
          float& value = off[r][j * kWidth + e];
          value = inside ? value - mean : 0.f;
          parts[e] = j ? fmaf(value, value, parts[e]) : value * value;
        }
      }
      squares[r] = tree_sum(parts);
    }
    const float variances = reduce_apart<Sum>(squares, lane);
    const float scales = reciprocal_root(fmaf(variances, params.inverse_columns, params.epsilon));
    float scale[kTogether];
#pragma unroll
    for (int r = 0; r < kTogether; r++) scale[r] = everywhere<kTogether>(scales, r);
    Element* y = Rows::at(params, params.y, lane, unit * kRows + piece * kTogether);
#pragma unroll
    for (int j = 0; j < kHeld; j++) {
      const int column = Rows::column(lane, j);
      if (!Rows::inside(params, column)) continue;
      const Row gamma = load_shared_by_all<Element, kWidth>(params.gamma + column);
      const Row beta = load_shared_by_all<Element, kWidth>(params.beta + column);
#pragma unroll
      for (int r = 0; r < kTogether; r++) {
        Row out;
#pragma unroll
        for (int e = 0; e < kWidth; e++)
          from_float(fmaf(off[r][j * kWidth + e] * scale[r], to_float(gamma.at[e]), to_float(beta.at[e])), out.at[e]);
        Rows::store(params, y, unit, piece, r, j, out);
      }
    }
  }

  NITRO_DEVICE void long_row(const Params& params, int lane, int row) {
    const Element* x = params.x + static_cast<size_t>(row) * params.columns;
    Element* y = params.y + static_cast<size_t>(row) * params.columns;
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
    for (int column = lane * kWidth; column < params.columns; column += 32 * kWidth) {
      const Row held = load_shared_by_all<Element, kWidth>(x + column);
      const Row gamma = load_shared_by_all<Element, kWidth>(params.gamma + column);
      const Row beta = load_shared_by_all<Element, kWidth>(params.beta + column);
      Row out;
#pragma unroll
      for (int e = 0; e < kWidth; e++)
        from_float(fmaf((to_float(held.at[e]) - mean) * scale, to_float(gamma.at[e]), to_float(beta.at[e])), out.at[e]);
      store_once<Element, kWidth>(y + column, out);
    }
  }
};

// exp(scale * (value - top)) = 2^(in_twos * value + off) takes one instruction before the power. Of large numbers the
// rounding of `off` alone would be a power beyond all bounds (in a row that is masked with -3e38, say): `top` is taken
// from those first.
constexpr float kLog2E = 1.44269504f;
NITRO_DEVICE bool is_large(float off) { return !(fabsf(off) < 1048576.f); }

// y = softmax(scale * x) by rows, scale >= 0. A piece is kTogether rows; kChunks = 0 takes rows of any length.
template <typename Element, int kWidth, int kChunks, int kRows, int kTogether = 1, bool kExact = false>
struct Softmax : Unstaged {
  struct Params {
    const Element* x;
    Element* y;
    int rows;
    int columns;
    float scale;
  };
  static constexpr bool kBlockGranular = false;
  static constexpr bool kAhead = false;  // registers are better spent on rows at once
  static constexpr int kHeld = kChunks ? kChunks : 1;
  typedef Pack<Element, kWidth> Row;
  typedef Packs<Element, kWidth, kHeld * kTogether> Piece;
  typedef RowsOfWarps<kWidth, kHeld, kRows, kTogether, kExact> Rows;
  static_assert(kTogether == 1 || kChunks > 0, "long rows are read one by one");
  typedef NoState State;

  NITRO_DEVICE int units(const Params& params) { return ceil_div(params.rows, kRows); }
  NITRO_DEVICE int pieces(const Params& params, int unit) { return Rows::pieces(params, unit); }

  template <class Into>
  NITRO_DEVICE void load(const Params& params, int lane, int unit, int piece, Into& row) {
    if (kChunks > 0) Rows::load(params, params.x, lane, unit, piece, row);
  }

  NITRO_DEVICE void consume(const Params& params, int lane, int unit, int piece, const Piece& row,
                            State&) {
    if (kChunks == 0) return long_row(params, lane, unit * kRows + piece);
    float power[kTogether][kHeld * kWidth];
    float tops[kTogether];
#pragma unroll
    for (int r = 0; r < kTogether; r++) {
#pragma unroll
      for (int j = 0; j < kHeld; j++) {
        const bool inside = Rows::inside(params, Rows::column(lane, j));
#pragma unroll
        for (int e = 0; e < kWidth; e++) {
          const float value = inside ? to_float(row.at[r * kHeld + j].at[e]) : lowest();
          power[r][j * kWidth + e] = value;
          tops[r] = j + e ? fmaxf(tops[r], value) : value;
        }
      }
    }
    const float in_twos = params.scale * kLog2E;
    const float offs = reduce_apart<Maximum>(tops, lane) * -in_twos;
    float off[kTogether];
    bool large = false;
#pragma unroll
    for (int r = 0; r < kTogether; r++) {
      off[r] = everywhere<kTogether>(offs, r);
      large = large || is_large(off[r]);
    }
    if (large) {
      const int first = unit * kRows + piece * kTogether;
#pragma unroll 1
      for (int row = first; row < minimum(first + kTogether, params.rows); row++) long_row(params, lane, row);
      return;
    }
    float sums[kTogether];
#pragma unroll
    for (int r = 0; r < kTogether; r++) {
      float parts[kWidth];
#pragma unroll
      for (int j = 0; j < kHeld; j++) {
        const bool inside = Rows::inside(params, Rows::column(lane, j));
#pragma unroll
        for (int e = 0; e < kWidth; e++) {
          float& value = power[r][j * kWidth + e];
          value = inside ? power_of_two(fmaf(value, in_twos, off[r])) : 0.f;
          parts[e] = j ? parts[e] + value : value;
        }
      }
      sums[r] = tree_sum(parts);
    }
    const float inverses = reciprocal(reduce_apart<Sum>(sums, lane));
    Element* y = Rows::at(params, params.y, lane, unit * kRows + piece * kTogether);
#pragma unroll
    for (int r = 0; r < kTogether; r++) {
      const float inverse = everywhere<kTogether>(inverses, r);
#pragma unroll
      for (int j = 0; j < kHeld; j++) {
        Row out;
#pragma unroll
        for (int e = 0; e < kWidth; e++) from_float(power[r][j * kWidth + e] * inverse, out.at[e]);
        if (Rows::inside(params, Rows::column(lane, j))) Rows::store(params, y, unit, piece, r, j, out);
      }
    }
  }

  static constexpr int kUnrolled = kChunks ? 1 : 4;  // called for a held row, it is not worth many instructions
  NITRO_DEVICE void long_row(const Params& params, int lane, int row) {
    const Element* x = params.x + static_cast<size_t>(row) * params.columns;
    Element* y = params.y + static_cast<size_t>(row) * params.columns;
    float top = lowest();
#pragma unroll(kUnrolled)
    for (int column = lane * kWidth; column < params.columns; column += 32 * kWidth) {
      const Row held = load_shared_by_all<Element, kWidth>(x + column);
#pragma unroll
      for (int e = 0; e < kWidth; e++) top = fmaxf(top, to_float(held.at[e]));
    }
    top = warp_max(top);
    const float in_twos = params.scale * kLog2E;
    float sum = 0.f;
#pragma unroll(kUnrolled)
    for (int column = lane * kWidth; column < params.columns; column += 32 * kWidth) {
      const Row held = load_shared_by_all<Element, kWidth>(x + column);
#pragma unroll
      for (int e = 0; e < kWidth; e++) sum = sum + power_of_two((to_float(held.at[e]) - top) * in_twos);
    }
    const float inverse = reciprocal(warp_sum(sum));
#pragma unroll(kUnrolled)
    for (int column = lane * kWidth; column < params.columns; column += 32 * kWidth) {
      const Row held = load_shared_by_all<Element, kWidth>(x + column);
      Row out;
#pragma unroll
      for (int e = 0; e < kWidth; e++)
        from_float(power_of_two((to_float(held.at[e]) - top) * in_twos) * inverse, out.at[e]);
      store_once<Element, kWidth>(y + column, out);
    }
  }
};

// The same for short rows, kWidth of them at once: so many fill whole packs of 16 bytes, whatever the number of columns.
// They are moved as packs, and turned in shared memory so that 32 / kWidth lanes have a row, kChunks numbers each.
template <typename Element, int kWidth, int kChunks, int kRows>
struct SoftmaxOfShortRows {
  struct Params {
    const Element* x;
    Element* y;
    int rows;
    int columns;  // more than (kChunks - 1) * kLanes, kChunks * kLanes at most
    float scale;
  };
  static constexpr bool kBlockGranular = false;
  static constexpr bool kAhead = kRows > kWidth;
  static constexpr int kLanes = 32 / kWidth;
  static constexpr int kPacks = (kChunks * kLanes + 31) / 32;
  static constexpr int kStages = 0;
  static constexpr int kWarpBytes = kPacks * 32 * kWidth * static_cast<int>(sizeof(Element));
  static_assert(kWidth > 1 && kRows % kWidth == 0, "a piece is so many rows that they end with a pack");
  typedef Packs<Element, kWidth, kPacks> Piece;
  struct State {
    char* turned;
    NITRO_METHOD void start(char* shared) { turned = shared; }
  };

  NITRO_DEVICE int units(const Params& params) { return ceil_div(params.rows, kRows); }
  NITRO_DEVICE int pieces(const Params& params, int unit) {
    return kRows == kWidth ? 1 : ceil_div(minimum(kRows, params.rows - unit * kRows), kWidth);
  }
  // As many packs as columns: kWidth rows of them, kWidth numbers in each.
  NITRO_DEVICE bool is_pack(const Params& params, int lane, int j) {
    return j * 32 + 31 <= (kChunks - 1) * kLanes || j * 32 + lane < params.columns;
  }

  // The rows at the end that fill no pack are not loaded ahead.
  template <class Into>
  NITRO_DEVICE void load(const Params& params, int lane, int unit, int piece, Into& into) {
    const int first = unit * kRows + piece * kWidth;
    const bool whole = first + kWidth <= params.rows;
    const Element* x = rows_on(params.x + lane * kWidth, first, params.columns);
#pragma unroll
    for (int j = 0; j < kPacks; j++) into.take(j, x + j * 32 * kWidth, whole && is_pack(params, lane, j));
  }

  NITRO_DEVICE void consume(const Params& params, int lane, int unit, int piece, const Piece& held,
                            State& state) {
    typedef Pack<Element, kWidth> Vector;
    const int first = unit * kRows + piece * kWidth;
    const int rest = params.rows - first;
    const size_t start = static_cast<size_t>(first) * params.columns;
    Vector* packs = reinterpret_cast<Vector*>(state.turned) + lane;
    Element* numbers = reinterpret_cast<Element*>(state.turned);
    if (rest >= kWidth) {
#pragma unroll
      for (int j = 0; j < kPacks; j++)
        if (is_pack(params, lane, j)) packs[j * 32] = held.at[j];
    } else {
      warp_barrier();  // until others have read what is there
#pragma unroll 1
      for (int i = lane; i < rest * params.columns; i += 32) numbers[i] = params.x[start + i];
    }
    warp_barrier();
    Element* mine = numbers + lane / kLanes * params.columns + lane % kLanes;
    const bool has_last = lane % kLanes + (kChunks - 1) * kLanes < params.columns;
    float power[kChunks];
    float top = lowest();
#pragma unroll
    for (int i = 0; i < kChunks; i++) {
      power[i] = i < kChunks - 1 || has_last ? to_float(mine[i * kLanes]) : lowest();
      top = fmaxf(top, power[i]);
    }
#pragma unroll
    for (int mask = kLanes / 2; mask; mask /= 2) top = fmaxf(top, shuffle_xor(top, mask));
    const float in_twos = params.scale * kLog2E;
    float off = top * -in_twos;
    if (is_large(off)) {
#pragma unroll
      for (int i = 0; i < kChunks; i++) power[i] = power[i] - top;
      off = 0.f;
    }
    float sum = 0.f;
#pragma unroll
    for (int i = 0; i < kChunks; i++) {
      power[i] = i < kChunks - 1 || has_last ? power_of_two(fmaf(power[i], in_twos, off)) : 0.f;
      sum = sum + power[i];
    }
#pragma unroll
    for (int mask = kLanes / 2; mask; mask /= 2) sum = sum + shuffle_xor(sum, mask);
    const float inverse = reciprocal(sum);
#pragma unroll
    for (int i = 0; i < kChunks; i++)
      if (i < kChunks - 1 || has_last) from_float(power[i] * inverse, mine[i * kLanes]);
    warp_barrier();
    Element* y = params.y + start;
    if (rest >= kWidth) {
      // Each lane reads the packs that it writes next time: no barrier is needed in between.
#pragma unroll
      for (int j = 0; j < kPacks; j++)
        if (is_pack(params, lane, j)) store_once<Element, kWidth>(y + (j * 32 + lane) * kWidth, packs[j * 32]);
    } else {
#pragma unroll 1
      for (int i = lane; i < rest * params.columns; i += 32) y[i] = numbers[i];
    }
  }
};

// y[b][n] = sum over k of weights[n][k] * x[b][k], plus bias[n]: a linear layer at batch 1 to 4, whose weights are
// streamed once. A unit is kRows outputs, a piece kChunks packs of each of their rows.
template <typename Element, int kWidth, int kChunks, int kRows, int kBatch, bool kExact = false>
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
    float sum[kBatch][kRows];
    NITRO_METHOD void start(char*) {}
  };

  NITRO_DEVICE int units(const Params& params) { return ceil_div(params.outputs, kRows); }
  NITRO_DEVICE int pieces(const Params& params, int) {
    if (kExact) return static_cast<int>(static_cast<uint32>(params.inner) / kSpan);
    return params.inner > 0 ? ceil_div(params.inner, kSpan) : 1;
  }

  // Beyond the last output its row is read again: nothing is asked for each pack.
  template <class Into>
  NITRO_DEVICE void load(const Params& params, int lane, int unit, int piece, Into& held) {
#pragma unroll
    for (int r = 0; r < kRows; r++) {
      const int output = kRows > 1 ? minimum(unit * kRows + r, params.outputs - 1) : unit;
      const int k = piece * kSpan + lane * kWidth;
      const Element* row = rows_on(rows_on(params.weights + lane * kWidth, output, params.inner), piece, kSpan);
#pragma unroll
      for (int j = 0; j < kChunks; j++)
        held.take(r * kChunks + j, row + j * 32 * kWidth, kExact || k + j * 32 * kWidth < params.inner);
    }
  }

  NITRO_DEVICE void consume(const Params& params, int lane, int unit, int piece, const Piece& held,
                            State& state) {
    if (piece == 0) {
#pragma unroll
      for (int r = 0; r < kRows; r++) {
#pragma unroll
        for (int b = 0; b < kBatch; b++) state.sum[b][r] = 0.f;
      }
    }
    const int start = piece * kSpan + lane * kWidth;
#pragma unroll
    for (int j = 0; j < kChunks; j++) {
      const int k = start + j * 32 * kWidth;
      if (kExact || k < params.inner) {
#pragma unroll
        for (int b = 0; b < kBatch; b++) {
          const Element* line = rows_on(rows_on(params.x + lane * kWidth, b, params.inner), piece, kSpan);
          const Pack<Element, kWidth> x = load_shared_by_all<Element, kWidth>(line + j * 32 * kWidth);
#pragma unroll
          for (int r = 0; r < kRows; r++) {
#pragma unroll
            for (int e = 0; e < kWidth; e++)
              state.sum[b][r] = fmaf(to_float(held.at[r * kChunks + j].at[e]), to_float(x.at[e]), state.sum[b][r]);
          }
        }
      }
    }
    if ((piece + 1) * kSpan < params.inner) return;
    // One lane for each output.
    const int output = unit * kRows + lane / (32 / kRows);
    const bool writes = lane % (32 / kRows) == 0 && output < params.outputs;
    float bias = 0.f;
    if (params.bias && writes) bias = to_float(params.bias[output]);
#pragma unroll
    for (int b = 0; b < kBatch; b++) {
      const float sum = reduce_apart<Sum>(state.sum[b], lane) + bias;
      if (writes) from_float(sum, params.y[static_cast<size_t>(b) * params.outputs + output]);
    }
  }
};

// y[t] = table[ids[t]] + positions[t % sequence]. An id outside the table gives a row of NaN: visible, and no wild read.
// A unit is kRows tokens, a piece kChunks packs a lane of one of them (with kExact: its whole row); a unit takes the same
// packs of all its tokens before the next packs, so that a piece is found without a division.
template <typename Element, int kWidth, int kChunks, int kRows, bool kExact = false>
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
  // The position of the token, which a division finds for the first of a unit only.
  struct State {
    int place;
    NITRO_METHOD void start(char*) {}
  };

  NITRO_DEVICE int units(const Params& params) { return params.columns > 0 ? ceil_div(params.tokens, kRows) : 0; }
  NITRO_DEVICE int pieces(const Params& params, int unit) {
    if (kExact) return kRows == 1 ? 1 : minimum(kRows, params.tokens - unit * kRows);
    return kRows * ceil_div(params.columns, kSpan);
  }
  NITRO_DEVICE int row_size(const Params& params) { return kExact ? static_cast<int>(kSpan) : params.columns; }
  NITRO_DEVICE int token_of(int unit, int piece) { return unit * kRows + (kExact ? piece : piece % kRows); }
  NITRO_DEVICE int column(int lane, int piece) { return (kExact ? 0 : piece / kRows * kSpan) + lane * kWidth; }
  NITRO_DEVICE bool inside(const Params& params, int column, int j) {
    return kExact || column + j * 32 * kWidth < params.columns;
  }

  // Of a token; of one that does not exist that of the last.
  NITRO_DEVICE uint32 id_of(const Params& params, int token) {
    const int there = kExact ? token : minimum(token, params.tokens - 1);
    return static_cast<uint32>(load_shared_by_all<int, 1>(rows_on(params.ids, there, 1)).at[0]);
  }
  NITRO_DEVICE bool is_known(const Params& params, uint32 id) { return id < static_cast<uint32>(params.vocabulary); }

  template <class Into>
  NITRO_DEVICE void load(const Params& params, int lane, int unit, int piece, Into& held) {
    const uint32 id = id_of(params, token_of(unit, piece));
    const int at = column(lane, piece);
    // A row that exists, whatever the id is: `consume` will not look at it.
    const uint32 known = is_known(params, id) ? id : 0;
    const Element* row = rows_on(params.table + at, static_cast<int>(known), row_size(params));
#pragma unroll
    for (int j = 0; j < kChunks; j++) held.take(j, row + j * 32 * kWidth, inside(params, at, j));
  }

  NITRO_DEVICE void consume(const Params& params, int lane, int unit, int piece, const Piece& held,
                            State& state) {
    const int token = token_of(unit, piece);
    state.place = piece % kRows ? state.place + 1
                                : static_cast<int>(static_cast<uint32>(token) % static_cast<uint32>(params.sequence));
    if (state.place == params.sequence) state.place = 0;
    if (!kExact && token >= params.tokens) return;
    const int at = column(lane, piece);
    const Element* position = rows_on(params.positions + at, state.place, row_size(params));
    Element* y = rows_on(params.y + at, token, row_size(params));
    Pack<Element, kWidth> out[kChunks];
#pragma unroll
    for (int j = 0; j < kChunks; j++) {
      out[j] = inside(params, at, j) ? load_shared_by_all<Element, kWidth>(position + j * 32 * kWidth)
                                     : zero_pack<Element, kWidth>();
    }
    if (is_known(params, id_of(params, token))) {
#pragma unroll
      for (int j = 0; j < kChunks; j++) {
#pragma unroll
        for (int e = 0; e < kWidth; e++)
          from_float(to_float(held.at[j].at[e]) + to_float(out[j].at[e]), out[j].at[e]);
        if (inside(params, at, j)) store_once<Element, kWidth>(y + j * 32 * kWidth, out[j]);
      }
    } else {
      Pack<Element, kWidth> missing;
#pragma unroll
      for (int e = 0; e < kWidth; e++) from_float(__int_as_float(0x7fc00000), missing.at[e]);
#pragma unroll
      for (int j = 0; j < kChunks; j++)
        if (inside(params, at, j)) store_once<Element, kWidth>(y + j * 32 * kWidth, missing);
    }
  }
};

// y = gelu(x + residual) = v * Phi(v), the exact GELU: max(v, 0) - |v| * Phi(-|v|).
struct ResidualGelu {
  static constexpr bool kTwoInputs = true;
  // Phi, of the normal distribution, is 2^p(|v|): p is the polynomial of degree 8 with p(0) = -1 that has the least
  // largest error of |v| * Phi(-|v|) on [0, 6], 9e-9 (iteratively reweighted least squares). Beyond, p keeps falling, and
  // what is taken away vanishes; with an infinite v it would not be a number but for the bound.
  NITRO_DEVICE float apply(float x, float residual) {
    const float value = x + residual;
    const float size = fabsf(value);
    float power = fmaf(-1.90206629e-06f, size, 2.80569511e-05f);
    power = fmaf(power, size, -1.3147328e-04f);
    power = fmaf(power, size, -2.72075587e-04f);
    power = fmaf(power, size, 7.24542094e-03f);
    power = fmaf(power, size, -5.26276119e-02f);
    power = fmaf(power, size, -4.59162146e-01f);
    power = fmaf(power, size, -1.15111101f);
    power = fmaf(power, size, -1.f);
    return fmaf(-fminf(size, 16.f), power_of_two(power), fmaxf(value, 0.f));
  }
};
// y = x: the yardstick that the other bodies' bandwidth is measured against.
struct Copy {
  static constexpr bool kTwoInputs = false;
  NITRO_DEVICE float apply(float x, float) { return x; }
};

// One operation on every element. A unit is kPieces pieces of kChunks packs a lane, all of them contiguous.
template <class Operation, typename Element, int kWidth, int kChunks, int kPieces, bool kExact = false>
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

  NITRO_DEVICE int units(const Params& params) {
    return static_cast<int>((params.count + kSpan * kPieces - 1) / (kSpan * kPieces));
  }
  NITRO_DEVICE int pieces(const Params& params, int unit) {
    if (kPieces == 1) return 1;
    const long long rest = params.count - static_cast<long long>(unit) * (kSpan * kPieces);
    return rest >= kSpan * kPieces ? kPieces : ceil_div(static_cast<int>(rest), kSpan);
  }
  NITRO_DEVICE bool inside(const Params& params, int lane, int number, int j) {
    return kExact || static_cast<long long>(number) * kSpan + (j * 32 + lane) * kWidth < params.count;
  }

  template <class Into>
  NITRO_DEVICE void load(const Params& params, int lane, int unit, int piece, Into& held) {
    const int number = unit * kPieces + piece;
    const Element* x = rows_on(params.x + lane * kWidth, number, kSpan);
#pragma unroll
    for (int j = 0; j < kChunks; j++) held.take(j, x + j * 32 * kWidth, inside(params, lane, number, j));
    if (!Operation::kTwoInputs) return;
    const Element* residual = rows_on(params.residual + lane * kWidth, number, kSpan);
#pragma unroll
    for (int j = 0; j < kChunks; j++)
      held.take(kResidual + j, residual + j * 32 * kWidth, inside(params, lane, number, j));
  }

  NITRO_DEVICE void consume(const Params& params, int lane, int unit, int piece, const Piece& held,
                            State&) {
    const int number = unit * kPieces + piece;
    Element* y = rows_on(params.y + lane * kWidth, number, kSpan);
#pragma unroll
    for (int j = 0; j < kChunks; j++) {
      Pack<Element, kWidth> out;
#pragma unroll
      for (int e = 0; e < kWidth; e++)
        from_float(Operation::apply(to_float(held.at[j].at[e]),
                                    Operation::kTwoInputs ? to_float(held.at[kResidual + j].at[e]) : 0.f),
                   out.at[e]);
      if (inside(params, lane, number, j)) store_once<Element, kWidth>(y + j * 32 * kWidth, out);
    }
  }
};

}  // namespace nitro
#endif
