// Compute-bound bodies in fp16 on tensor cores, with fp32 sums: convolution as an implicit matrix product, and with a
// 1x1 filter the linear layer y = x W^T. sm_80 and newer use ldmatrix and mma.sync, sm_70 to sm_75 use WMMA.
#ifndef NITRO_TENSOR_CUH
#define NITRO_TENSOR_CUH
#include "operands.cuh"

namespace nitro {

struct TensorParams {
  const half_t* x;
  const half_t* weights;
  const half_t* bias;  // may be null
  half_t* y;
  int rows;  // output pixels of all images
  int outputs;
  int channels;
  int height;
  int width;
  int out_height;
  int out_width;
  int stride;
  int padding;
  int relu;
};

NITRO_DEVICE half_t finished_half(float sum, const half_t* bias, int column, int relu) {
  if (bias) sum = sum + to_float(bias[column]);
  half_t out;
  from_float(relu && sum < 0.f ? 0.f : sum, out);
  return out;
}

// Exchanges words among four lanes next to each other: lane q gets the q-th word of each, in their order.
NITRO_DEVICE void transpose_quad(uint32 (&words)[4], int lane) {
#pragma unroll
  for (int step = 1; step <= 2; step++) {
    const bool upper = lane & step;
#pragma unroll
    for (int pair = 0; pair < 2; pair++) {
      const int low = step == 1 ? pair * 2 : pair;
      const uint32 got = shuffle_xor(upper ? words[low] : words[low + step], step);
      if (upper)
        words[low] = got;
      else
        words[low + step] = got;
    }
  }
}

// The sums of a warp in the layout of mma.sync and of wgmma: kDown times 16 rows, kRowStep apart, by kAcross times 8
// columns. Lane l has columns l % 4 * 2 and the next of rows l / 4 and l / 4 + 8.
template <int kDown, int kAcross, int kRowStep>
struct Fragments {
  static_assert(kAcross % 4 == 0, "32 columns are written together");
  float sum[kDown][kAcross][4];

  NITRO_METHOD void clear() {
#pragma unroll
    for (int i = 0; i < kDown; i++) {
#pragma unroll
      for (int j = 0; j < kAcross; j++) {
#pragma unroll
        for (int e = 0; e < 4; e++) sum[i][j][e] = 0.f;
      }
    }
  }
  // Adds the bias and applies the ReLU in place: the sums are most of the registers that there are.
  NITRO_METHOD void finish(const TensorParams& params, int start) {
    if (params.bias) {
#pragma unroll
      for (int j = 0; j < kAcross; j++) {
#pragma unroll
        for (int e = 0; e < 2; e++) {
          const int column = start + j * 8 + e;
          const float bias = column < params.outputs ? to_float(params.bias[column]) : 0.f;
#pragma unroll
          for (int i = 0; i < kDown; i++) {
            sum[i][j][e] = sum[i][j][e] + bias;
            sum[i][j][e + 2] = sum[i][j][e + 2] + bias;
          }
        }
      }
    }
    if (params.relu) {
#pragma unroll
      for (int i = 0; i < kDown; i++) {
#pragma unroll
        for (int j = 0; j < kAcross; j++) {
#pragma unroll
          for (int e = 0; e < 4; e++) sum[i][j][e] = sum[i][j][e] < 0.f ? 0.f : sum[i][j][e];
        }
      }
    }
  }
  NITRO_METHOD Pack<half_t, 2> pair(int i, int j, int below) const {
    Pack<half_t, 2> out;
    from_float(sum[i][j][below * 2], out.at[0]);
    from_float(sum[i][j][below * 2 + 1], out.at[1]);
    return out;
  }
  // Rows of a multiple of 16 bytes, aligned to them: a lane writes 8 columns, so that four lanes fill two sectors.
  NITRO_METHOD void write_eights(const TensorParams& params, int lane, int top, int start) const {
#pragma unroll
    for (int i = 0; i < kDown; i++) {
#pragma unroll
      for (int below = 0; below < 2; below++) {
        const int row = top + i * kRowStep + (lane >> 2) + below * 8;
        half_t* y = params.y + static_cast<size_t>(row) * params.outputs;
#pragma unroll
        for (int j = 0; j < kAcross; j += 4) {
          union {
            uint32 words[4];
            Pack<half_t, 2> pairs[4];
            Pack<half_t, 8> out;
          } mine;
#pragma unroll
          for (int q = 0; q < 4; q++)
            mine.pairs[q] = pair(i, j + q, below);
          transpose_quad(mine.words, lane);
          const int column = start + (j + (lane & 3)) * 8;
          if (row < params.rows && column < params.outputs) *reinterpret_cast<Pack<half_t, 8>*>(y + column) = mine.out;
        }
      }
    }
  }
  template <class Where>
  NITRO_METHOD void write(const TensorParams& params, const Where& where, int top, int start, bool aligned) {
    const int lane = where.lane();
    finish(params, start + (lane & 3) * 2);
    if (aligned && params.outputs % 8 == 0) {
      write_eights(params, lane, top, start);
      return;
    }
#pragma unroll
    for (int i = 0; i < kDown; i++) {
#pragma unroll
      for (int below = 0; below < 2; below++) {
        const int row = top + i * kRowStep + (lane >> 2) + below * 8;
        if (row >= params.rows) continue;
        half_t* y = params.y + static_cast<size_t>(row) * params.outputs;
#pragma unroll
        for (int j = 0; j < kAcross; j++) {
          const int column = start + j * 8 + (lane & 3) * 2;
          if (column >= params.outputs) continue;
          const Pack<half_t, 2> out = pair(i, j, below);
          if (params.outputs % 2 == 0) {
            *reinterpret_cast<Pack<half_t, 2>*>(y + column) = out;
          } else {
            y[column] = out.at[0];
            if (column + 1 < params.outputs) y[column + 1] = out.at[1];
          }
        }
      }
    }
  }
};

// A warp's kWarpM x kWarpN part of the tile, by mma.sync.
template <int kWarpM, int kWarpN, int kDepth, int kTileM, int kSets>
struct MmaWarp : Fragments<kWarpM / 16, kWarpN / 8, 16> {
  typedef SwizzledRows<kDepth> Layout;
  static constexpr int kDown = kWarpM / 16;
  static constexpr int kAcross = kWarpN / 8;
  static_assert(kWarpN % 16 == 0, "ldmatrix brings 16 columns");
  static constexpr int kEpilogueBytes = 0;
  uint32 left[kSets][kDown][4];
  uint32 right[kSets][kAcross / 2][4];
  int left_place;  // of the first fragments that this lane loads, in bytes of a stage
  int right_place;

  NITRO_METHOD void start(int top, int start, int lane) {
    left_place = Layout::at(top + (lane & 15), (lane >> 4) * 8) * 2;
    right_place = Layout::at(kTileM + start + (lane & 7) + ((lane >> 4) << 3), ((lane >> 3) & 1) * 8) * 2;
    this->clear();
  }
  NITRO_METHOD void load(Shared stage, int k, int set) {
    constexpr int kRowsBytes = 16 * Layout::kStride * 2;
    const Shared lefts = stage + Layout::along(left_place, k * 2);
    const Shared rights = stage + Layout::along(right_place, k * 2);
#pragma unroll
    for (int i = 0; i < kDown; i++) load_matrices(left[set][i], lefts + i * kRowsBytes);
#pragma unroll
    for (int j = 0; j < kAcross / 2; j++) load_matrices(right[set][j], rights + j * kRowsBytes);
  }
  NITRO_METHOD void multiply_set(int set) {
#pragma unroll
    for (int i = 0; i < kDown; i++) {
#pragma unroll
      for (int j = 0; j < kAcross; j++)
        multiply_m16n8k16(this->sum[i][j], left[set][i], right[set][j / 2][j % 2 * 2],
                          right[set][j / 2][j % 2 * 2 + 1]);
    }
  }
  NITRO_METHOD void multiply(const char* stage) {
    const Shared at = shared_at(stage);
#pragma unroll
    for (int k = 0; k < kDepth; k += 16) {
      load(at, k, 0);
      multiply_set(0);
    }
  }
};

// The same by WMMA. Nobody may know which lane holds which sum, so the results go through shared memory.
template <int kWarpM, int kWarpN, int kDepth, int kTileM>
struct WmmaWarp {
  typedef PaddedRows<kDepth, 8> Layout;
  static constexpr int kDown = kWarpM / 16;
  static constexpr int kAcross = kWarpN / 16;
  static constexpr int kEpilogueBytes = 16 * 16 * 4;
  float sum[kDown][kAcross][8];
  int left_place;
  int right_place;

  NITRO_METHOD void start(int top, int start, int) {
    left_place = Layout::at(top, 0);
    right_place = Layout::at(kTileM + start, 0);
#pragma unroll
    for (int i = 0; i < kDown; i++) {
#pragma unroll
      for (int j = 0; j < kAcross; j++) {
#pragma unroll
        for (int e = 0; e < 8; e++) sum[i][j][e] = 0.f;
      }
    }
  }
  NITRO_METHOD void multiply(const char* bytes) {
    const half_t* stage = reinterpret_cast<const half_t*>(bytes);
#pragma unroll
    for (int k = 0; k < kDepth; k += 16) {
      uint32 right[kAcross][8];
#pragma unroll
      for (int j = 0; j < kAcross; j++)
        wmma_load_right(right[j], stage + right_place + j * 16 * Layout::kStride + k, Layout::kStride);
#pragma unroll
      for (int i = 0; i < kDown; i++) {
        uint32 left[8];
        wmma_load_left(left, stage + left_place + i * 16 * Layout::kStride + k, Layout::kStride);
#pragma unroll
        for (int j = 0; j < kAcross; j++) wmma_multiply(sum[i][j], left, right[j]);
      }
    }
  }
  template <class Where>
  NITRO_METHOD void write(const TensorParams& params, const Where& where, int top, int start, bool) {
    float* corner = reinterpret_cast<float*>(where.shared + where.warp() * kEpilogueBytes);
#pragma unroll
    for (int i = 0; i < kDown; i++) {
#pragma unroll
      for (int j = 0; j < kAcross; j++) {
        wmma_store(corner, sum[i][j], 16);
        warp_barrier();
#pragma unroll
        for (int e = 0; e < 8; e++) {
          const int at = e * 32 + where.lane();
          const int row = top + i * 16 + at / 16;
          const int column = start + j * 16 + at % 16;
          if (row < params.rows && column < params.outputs)
            params.y[static_cast<size_t>(row) * params.outputs + column] =
                finished_half(corner[at], params.bias, column, params.relu);
        }
        warp_barrier();
      }
    }
    // The next tile's first stage lies where the corners are.
    where.barrier();
  }
};

template <bool kMma, int kWarpM, int kWarpN, int kDepth, int kTileM, int kSets>
struct TensorWarp : MmaWarp<kWarpM, kWarpN, kDepth, kTileM, kSets> {};
template <int kWarpM, int kWarpN, int kDepth, int kTileM, int kSets>
struct TensorWarp<false, kWarpM, kWarpN, kDepth, kTileM, kSets> : WmmaWarp<kWarpM, kWarpN, kDepth, kTileM> {};

// As Pipeline, and the fragments of the next 16 channels are loaded before those at hand are multiplied. A slab's last
// ones are multiplied behind the barrier after which its stage is filled again, so kStages slabs are on their way.
template <int kStages, int kStageBytes, int kDepth>
struct AheadPipeline {
  static_assert(kDepth % 32 == 0, "two sets of fragments take turns");
  template <class Where, class Work, class Hook>
  NITRO_DEVICE void run(const Where& where, Work& work, int slabs, Hook& hook) {
    const Shared stages = shared_at(where.shared);
#pragma unroll
    for (int s = 0; s < kStages; s++) {
      if (s < slabs) work.copy(stages + s * kStageBytes);
      commit_copies();
    }
    wait_for_copies<kStages - 1>();
    where.barrier();
    work.warp.load(stages, 0, 0);
    int read = 0;
#pragma unroll 1
    for (int slab = 0; slab < slabs; slab++) {
      const int next = read + 1 == kStages ? 0 : read + 1;
      hook.step();
#pragma unroll
      for (int k = 0; k < kDepth; k += 16) {
        const bool last = k + 16 == kDepth;
        if (last) {
          wait_for_copies<kStages - 2>();
          where.barrier();
          if (slab + kStages < slabs) work.copy(stages + read * kStageBytes);
          commit_copies();
        }
        // Behind the last slab these are numbers of no meaning, which nothing multiplies.
        work.warp.load(stages + (last ? next : read) * kStageBytes, last ? 0 : k + 16, (k / 16 + 1) % 2);
        work.warp.multiply_set(k / 16 % 2);
      }
      read = next;
    }
    wait_for_copies<0>();
    where.barrier();
  }
};

// The operands of a tile, and the walk through both: rows of pixels, then rows of weights.
template <int kFilter, int kTileM, int kTileN, int kDepth, int kThreads, int kWidth, class Layout>
struct TileOperands {
  static constexpr int kStageBytes = (kTileM + kTileN) * Layout::kStride * 2;
  Walk<kFilter, kDepth> walk;
  PixelOperand<half_t, kFilter, kTileM, kDepth, kThreads, kWidth, Layout> pixels;
  WeightOperand<half_t, kFilter, kTileN, kDepth, kThreads, kWidth, Layout> weights;

  NITRO_METHOD void start(const TensorParams& params, int top, int start, int thread) {
    const Image image = {params.height,    params.width,  params.out_height,
                         params.out_width, params.stride, params.padding};
    walk.start(params.channels, params.width * params.channels);
    pixels.start(params.x, image, params.rows, params.channels, top, thread);
    weights.start(params.weights, params.outputs, params.channels, start, thread);
  }
  NITRO_METHOD void copy_pixels(Shared stage) const { pixels.copy(walk, stage); }
  NITRO_METHOD void copy_weights(Shared stage) const { weights.copy(walk, stage + kTileM * Layout::kStride * 2); }
  NITRO_METHOD void copy(Shared stage) {
    copy_pixels(stage);
    copy_weights(stage);
    walk.advance();
  }
  NITRO_METHOD void fetch() {
    pixels.fetch(walk);
    weights.fetch(walk);
    walk.advance();
  }
  NITRO_METHOD void put(char* stage) const {
    pixels.put(reinterpret_cast<half_t*>(stage));
    weights.put(reinterpret_cast<half_t*>(stage) + kTileM * Layout::kStride);
  }
  // Which tile a unit is: tiles of a row come one after another, so that blocks that run at once share pixels.
  NITRO_DEVICE int units(const TensorParams& params) {
    return ceil_div(params.rows, kTileM) * ceil_div(params.outputs, kTileN);
  }
  NITRO_DEVICE int tile_top(const TensorParams& params, int unit) {
    return unit / ceil_div(params.outputs, kTileN) * kTileM;
  }
  NITRO_DEVICE int tile_start(const TensorParams& params, int unit) {
    return unit % ceil_div(params.outputs, kTileN) * kTileN;
  }
};

// kMma: mma.sync with swizzled rows (sm_80 and newer), else WMMA with padded rows. kPrefetch: AheadPipeline, for mma.sync
// with asynchronous copies.
template <int kFilter, int kTileM, int kTileN, int kWarpM, int kWarpN, int kDepthHalves, int kStages, bool kAsync,
          bool kMma, int kWidth, bool kPrefetch = false>
struct TensorConvolution {
  typedef TensorParams Params;
  static constexpr bool kBlockGranular = true;
  static constexpr int kWarpsDown = kTileM / kWarpM;
  static constexpr int kThreads = kWarpsDown * (kTileN / kWarpN) * 32;
  static constexpr int kDepth = kDepthHalves;
  static_assert(!kPrefetch || (kMma && kAsync), "fragments of mma.sync are loaded ahead of slabs that copy themselves");
  typedef TensorWarp<kMma, kWarpM, kWarpN, kDepth, kTileM, kPrefetch ? 2 : 1> Warp;
  typedef typename Warp::Layout Layout;
  typedef TileOperands<kFilter, kTileM, kTileN, kDepth, kThreads, kWidth, Layout> Operands;
  static constexpr int kStageBytes = Operands::kStageBytes;
  static constexpr int kSharedBytes = kStages * kStageBytes;
  static constexpr int kHookSteps = 1;
  static_assert(kThreads / 32 * Warp::kEpilogueBytes <= kSharedBytes, "the corners must fit into the stages");

  NITRO_DEVICE int units(const Params& params) { return Operands::units(params); }
  NITRO_DEVICE int slabs(const Params& params) { return Walk<kFilter, kDepth>::slabs(params.channels); }

  struct Work : Operands {
    Warp warp;

    template <class Hook>
    NITRO_METHOD void multiply(const char* stage, Hook& hook) {
      hook.step();
      warp.multiply(stage);
    }
  };

  template <bool kAhead, int kSlabs>
  struct Feed : AheadPipeline<kSlabs, kStageBytes, kDepth> {};
  template <int kSlabs>
  struct Feed<false, kSlabs> : Pipeline<kAsync, kSlabs, kStageBytes> {};

  template <class Where, class Hook>
  NITRO_DEVICE void tile(const Params& params, const Where& where, int unit, Hook& hook) {
    const int top = Operands::tile_top(params, unit);
    const int start = Operands::tile_start(params, unit);
    Work work;
    work.start(params, top, start, where.thread);
    const int warp_top = where.warp() % kWarpsDown * kWarpM;
    const int warp_start = where.warp() / kWarpsDown * kWarpN;
    work.warp.start(warp_top, warp_start, where.lane());
    Feed<kPrefetch, kStages>::run(where, work, slabs(params), hook);
    work.warp.write(params, where, top + warp_top, start + warp_start, kWidth == 8);
  }
};

}  // namespace nitro
#endif
