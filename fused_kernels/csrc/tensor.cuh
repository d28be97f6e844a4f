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

// A warp's kWarpM x kWarpN part of the tile, by mma.sync.
template <int kWarpM, int kWarpN, int kDepth, int kTileM>
struct MmaWarp {
  typedef SwizzledRows<kDepth> Layout;
  static constexpr int kDown = kWarpM / 16;
  static constexpr int kAcross = kWarpN / 8;
  static_assert(kWarpN % 16 == 0, "ldmatrix brings 16 columns");
  static constexpr int kEpilogueBytes = 0;
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
  NITRO_METHOD void multiply(const half_t* stage, int top, int start, int lane) {
#pragma unroll
    for (int k = 0; k < kDepth; k += 16) {
      uint32 left[kDown][4];
      uint32 right[kAcross / 2][4];
#pragma unroll
      for (int i = 0; i < kDown; i++)
        load_matrices(left[i], stage + Layout::at(top + i * 16 + (lane & 15), k + (lane >> 4) * 8));
#pragma unroll
      for (int j = 0; j < kAcross / 2; j++)
        load_matrices(right[j], stage + Layout::at(kTileM + start + j * 16 + (lane & 7) + ((lane >> 4) << 3),
                                                   k + ((lane >> 3) & 1) * 8));
#pragma unroll
      for (int i = 0; i < kDown; i++) {
#pragma unroll
        for (int j = 0; j < kAcross; j++)
          multiply_m16n8k16(sum[i][j], left[i], right[j / 2][j % 2 * 2], right[j / 2][j % 2 * 2 + 1]);
      }
    }
  }
  template <class Where>
  NITRO_METHOD void write(const TensorParams& params, const Where& where, int top, int start) {
    const int lane = where.lane();
#pragma unroll
    for (int i = 0; i < kDown; i++) {
#pragma unroll
      for (int below = 0; below < 2; below++) {
        const int row = top + i * 16 + (lane >> 2) + below * 8;
        if (row >= params.rows) continue;
        half_t* y = params.y + static_cast<size_t>(row) * params.outputs;
#pragma unroll
        for (int j = 0; j < kAcross; j++) {
          const int column = start + j * 8 + (lane & 3) * 2;
          if (column >= params.outputs) continue;
          Pack<half_t, 2> out;
          out.at[0] = finished_half(sum[i][j][below * 2], params.bias, column, params.relu);
          if (column + 1 < params.outputs)
            out.at[1] = finished_half(sum[i][j][below * 2 + 1], params.bias, column + 1, params.relu);
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

// The same by WMMA. Nobody may know which lane holds which sum, so the results go through shared memory.
template <int kWarpM, int kWarpN, int kDepth, int kTileM>
struct WmmaWarp {
  typedef PaddedRows<kDepth, 8> Layout;
  static constexpr int kDown = kWarpM / 16;
  static constexpr int kAcross = kWarpN / 16;
  static constexpr int kEpilogueBytes = 16 * 16 * 4;
  float sum[kDown][kAcross][8];

  NITRO_METHOD void clear() {
#pragma unroll
    for (int i = 0; i < kDown; i++) {
#pragma unroll
      for (int j = 0; j < kAcross; j++) {
#pragma unroll
        for (int e = 0; e < 8; e++) sum[i][j][e] = 0.f;
      }
    }
  }
  NITRO_METHOD void multiply(const half_t* stage, int top, int start, int) {
#pragma unroll
    for (int k = 0; k < kDepth; k += 16) {
      uint32 right[kAcross][8];
#pragma unroll
      for (int j = 0; j < kAcross; j++)
        wmma_load_right(right[j], stage + Layout::at(kTileM + start + j * 16, k), Layout::kStride);
#pragma unroll
      for (int i = 0; i < kDown; i++) {
        uint32 left[8];
        wmma_load_left(left, stage + Layout::at(top + i * 16, k), Layout::kStride);
#pragma unroll
        for (int j = 0; j < kAcross; j++) wmma_multiply(sum[i][j], left, right[j]);
      }
    }
  }
  template <class Where>
  NITRO_METHOD void write(const TensorParams& params, const Where& where, int top, int start) {
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

template <bool kMma, int kWarpM, int kWarpN, int kDepth, int kTileM>
struct TensorWarp : MmaWarp<kWarpM, kWarpN, kDepth, kTileM> {};
template <int kWarpM, int kWarpN, int kDepth, int kTileM>
struct TensorWarp<false, kWarpM, kWarpN, kDepth, kTileM> : WmmaWarp<kWarpM, kWarpN, kDepth, kTileM> {};

// kMma: mma.sync with swizzled rows (sm_80 and newer), else WMMA with padded rows.
template <int kFilter, int kTileM, int kTileN, int kWarpM, int kWarpN, int kDepthHalves, int kStages, bool kAsync,
          bool kMma, int kWidth>
struct TensorConvolution {
  typedef TensorParams Params;
  static constexpr bool kBlockGranular = true;
  static constexpr int kWarpsDown = kTileM / kWarpM;
  static constexpr int kThreads = kWarpsDown * (kTileN / kWarpN) * 32;
  static constexpr int kDepth = kDepthHalves;
  typedef TensorWarp<kMma, kWarpM, kWarpN, kDepth, kTileM> Warp;
  typedef typename Warp::Layout Layout;
  static constexpr int kStageBytes = (kTileM + kTileN) * Layout::kStride * 2;
  static constexpr int kSharedBytes = kStages * kStageBytes;
  static constexpr int kHookSteps = 1;
  static_assert(kThreads / 32 * Warp::kEpilogueBytes <= kSharedBytes, "the corners must fit into the stages");

  NITRO_DEVICE int units(const Params& params) {
    return ceil_div(params.rows, kTileM) * ceil_div(params.outputs, kTileN);
  }
  NITRO_DEVICE int slabs(const Params& params) { return Walk<kFilter, kDepth>::slabs(params.channels); }

  struct Work {
    Walk<kFilter, kDepth> walk;
    PixelOperand<half_t, kFilter, kTileM, kDepth, kThreads, kWidth, Layout> pixels;
    WeightOperand<half_t, kFilter, kTileN, kDepth, kThreads, kWidth, Layout> weights;
    Warp warp;
    int top;
    int start;
    int lane;

    NITRO_METHOD void copy(char* stage) {
      pixels.copy(walk, reinterpret_cast<half_t*>(stage));
      weights.copy(walk, reinterpret_cast<half_t*>(stage) + kTileM * Layout::kStride);
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
    template <class Hook>
    NITRO_METHOD void multiply(const char* stage, Hook& hook) {
      hook.step();
      warp.multiply(reinterpret_cast<const half_t*>(stage), top, start, lane);
    }
  };

  template <class Where, class Hook>
  NITRO_DEVICE void tile(const Params& params, const Where& where, int unit, Hook& hook) {
    const int across = ceil_div(params.outputs, kTileN);
    const int top = unit / across * kTileM;
    const int start = unit % across * kTileN;
    const Image image = {params.height,    params.width,  params.out_height,
                         params.out_width, params.stride, params.padding};
    Work work;
    work.walk.start(params.channels);
    work.pixels.start(params.x, image, params.rows, params.channels, top, where.thread);
    work.weights.start(params.weights, params.outputs, params.channels, start, where.thread);
    work.top = where.warp() % kWarpsDown * kWarpM;
    work.start = where.warp() / kWarpsDown * kWarpN;
    work.lane = where.lane();
    work.warp.clear();
    Pipeline<kAsync, kStages, kStageBytes>::run(where, work, slabs(params), hook);
    work.warp.write(params, where, top + work.top, start + work.start);
  }
};

}  // namespace nitro
#endif
