// Compute-bound bodies in fp32 on the ordinary cores: a matrix product of K-major operands, and convolution as an
// implicit matrix product. Their unit is an output tile, computed by all threads of a (virtual) block.
//
// A thread computes kDown x kAcross outputs; a warp's 4 x 8 threads make every read of shared memory conflict-free.
#ifndef NITRO_SIMT_CUH
#define NITRO_SIMT_CUH
#include "operands.cuh"

namespace nitro {

template <int kTileM, int kTileN, int kThreadCount>
struct SimtShape {
  static constexpr int kWarpsAcross = kThreadCount / 128;
  static constexpr int kDown = kTileM / 16;
  static constexpr int kAcross = kTileN / (8 * kWarpsAcross);
  static_assert(kThreadCount % 128 == 0 && kDown * 16 == kTileM && kAcross * 8 * kWarpsAcross == kTileN,
                "four rows of warps tile the block");
  NITRO_DEVICE int row(int thread) { return (thread >> 5) / kWarpsAcross * 4 + ((thread & 31) >> 3); }
  NITRO_DEVICE int column(int thread) { return (thread >> 5) % kWarpsAcross * 8 + (thread & 7); }
};

NITRO_DEVICE float finished(float sum, const float* bias, int column, int relu) {
  if (bias) sum = sum + bias[column];
  return relu && sum < 0.f ? 0.f : sum;
}

// y[m][n] = sum over k of left[k][m] * right[k][n], plus bias[n].
template <int kTileM, int kTileN, int kThreadCount, int kStages, bool kAsync, int kWidth>
struct SimtGemm {
  struct Params {
    const float* left;
    const float* right;
    const float* bias;  // may be null
    float* y;
    int rows;
    int outputs;
    int depth;
    int relu;
  };
  static constexpr bool kBlockGranular = true;
  static constexpr int kThreads = kThreadCount;
  static constexpr int kDepth = 16;
  static constexpr int kStageBytes = kDepth * (kTileM + kTileN) * 4;
  static constexpr int kSharedBytes = kStages * kStageBytes;
  static constexpr int kHookSteps = 2;
  typedef SimtShape<kTileM, kTileN, kThreadCount> Shape;
  static_assert(Shape::kDown % 4 == 0 && Shape::kAcross % 4 == 0, "fragments are read four at a time");

  NITRO_DEVICE int units(const Params& params) {
    return ceil_div(params.rows, kTileM) * ceil_div(params.outputs, kTileN);
  }
  NITRO_DEVICE int slabs(const Params& params) { return ceil_div(params.depth, kDepth); }

  struct Work {
    KMajorOperand<kTileM, kDepth, kThreadCount, kWidth> left;
    KMajorOperand<kTileN, kDepth, kThreadCount, kWidth> right;
    float sum[Shape::kDown][Shape::kAcross];
    int row;
    int column;

    NITRO_METHOD void copy(char* stage) {
      left.copy(reinterpret_cast<float*>(stage));
      right.copy(reinterpret_cast<float*>(stage) + kDepth * kTileM);
    }
    NITRO_METHOD void fetch() {
      left.fetch();
      right.fetch();
    }
    NITRO_METHOD void put(char* stage) const {
      left.put(reinterpret_cast<float*>(stage));
      right.put(reinterpret_cast<float*>(stage) + kDepth * kTileM);
    }
    template <class Hook>
    NITRO_METHOD void multiply(const char* stage, Hook& hook) {
      typedef Pack<float, 4> Four;
      const float* lefts = reinterpret_cast<const float*>(stage) + row * 4;
      const float* rights = reinterpret_cast<const float*>(stage) + kDepth * kTileM + column * 4;
#pragma unroll
      for (int k = 0; k < kDepth; k++) {
        if (k % (kDepth / kHookSteps) == 0) hook.step();
        Four a[Shape::kDown / 4];
        Four b[Shape::kAcross / 4];
#pragma unroll
        for (int i = 0; i < Shape::kDown / 4; i++)
          a[i] = *reinterpret_cast<const Four*>(lefts + k * kTileM + i * 64);
#pragma unroll
        for (int j = 0; j < Shape::kAcross / 4; j++)
          b[j] = *reinterpret_cast<const Four*>(rights + k * kTileN + j * Shape::kWarpsAcross * 32);
#pragma unroll
        for (int i = 0; i < Shape::kDown; i++) {
#pragma unroll
          for (int j = 0; j < Shape::kAcross; j++) sum[i][j] = fmaf(a[i / 4].at[i % 4], b[j / 4].at[j % 4], sum[i][j]);
        }
      }
    }
  };

  template <class Where, class Hook>
  NITRO_DEVICE void tile(const Params& params, const Where& where, int unit, Hook& hook) {
    const int across = ceil_div(params.outputs, kTileN);
    const int top = unit / across * kTileM;
    const int start = unit % across * kTileN;
    Work work;
    work.left.start(params.left, params.rows, params.depth, top, where.thread);
    work.right.start(params.right, params.outputs, params.depth, start, where.thread);
    work.row = Shape::row(where.thread);
    work.column = Shape::column(where.thread);
#pragma unroll
    for (int i = 0; i < Shape::kDown; i++) {
#pragma unroll
      for (int j = 0; j < Shape::kAcross; j++) work.sum[i][j] = 0.f;
    }
    Pipeline<kAsync, kStages, kStageBytes>::run(where, work, slabs(params), hook);
#pragma unroll
    for (int i = 0; i < Shape::kDown; i++) {
      const int row = top + (i / 4) * 64 + work.row * 4 + i % 4;
      if (row >= params.rows) continue;
      float* y = params.y + static_cast<size_t>(row) * params.outputs;
#pragma unroll
      for (int j = 0; j < Shape::kAcross / 4; j++) {
        const int column = start + j * Shape::kWarpsAcross * 32 + work.column * 4;
        Pack<float, 4> out;
#pragma unroll
        for (int e = 0; e < 4; e++)
          if (column + e < params.outputs)
            out.at[e] = finished(work.sum[i][4 * j + e], params.bias, column + e, params.relu);
        if (kWidth == 4) {
          if (column < params.outputs) *reinterpret_cast<Pack<float, 4>*>(y + column) = out;
        } else {
#pragma unroll
          for (int e = 0; e < 4; e++)
            if (column + e < params.outputs) y[column + e] = out.at[e];
        }
      }
    }
  }
};

// y[p][n] = sum over taps and channels of x[pixel of p under the tap][c] * weights[n][tap][c], plus bias[n]: convolution
// of NHWC images with KRSC weights, or with kFilter = 1 a linear layer on [rows, channels].
template <int kFilter, int kTileM, int kTileN, int kThreadCount, int kStages, bool kAsync, int kWidth>
struct SimtConvolution {
  struct Params {
    const float* x;
    const float* weights;
    const float* bias;  // may be null
    float* y;
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
  static constexpr bool kBlockGranular = true;
  static constexpr int kThreads = kThreadCount;
  static constexpr int kDepth = 16;
  typedef PaddedRows<kDepth, 4> Layout;
  static constexpr int kStageBytes = (kTileM + kTileN) * Layout::kStride * 4;
  static constexpr int kSharedBytes = kStages * kStageBytes;
  static constexpr int kHookSteps = 2;
  typedef SimtShape<kTileM, kTileN, kThreadCount> Shape;

  NITRO_DEVICE int units(const Params& params) {
    return ceil_div(params.rows, kTileM) * ceil_div(params.outputs, kTileN);
  }
  NITRO_DEVICE int slabs(const Params& params) { return Walk<kFilter, kDepth>::slabs(params.channels); }

  struct Work {
    Walk<kFilter, kDepth> walk;
    PixelOperand<float, kFilter, kTileM, kDepth, kThreadCount, kWidth, Layout> pixels;
    WeightOperand<float, kFilter, kTileN, kDepth, kThreadCount, kWidth, Layout> weights;
    float sum[Shape::kDown][Shape::kAcross];
    int row;
    int column;

    NITRO_METHOD void copy(char* stage) {
      pixels.copy(walk, reinterpret_cast<float*>(stage));
      weights.copy(walk, reinterpret_cast<float*>(stage) + kTileM * Layout::kStride);
      walk.advance();
    }
    NITRO_METHOD void fetch() {
      pixels.fetch(walk);
      weights.fetch(walk);
      walk.advance();
    }
    NITRO_METHOD void put(char* stage) const {
      pixels.put(reinterpret_cast<float*>(stage));
      weights.put(reinterpret_cast<float*>(stage) + kTileM * Layout::kStride);
    }
    template <class Hook>
    NITRO_METHOD void multiply(const char* stage, Hook& hook) {
      typedef Pack<float, 4> Four;
      const float* pixel = reinterpret_cast<const float*>(stage) + row * Layout::kStride;
      const float* weight = reinterpret_cast<const float*>(stage) + (kTileM + column) * Layout::kStride;
#pragma unroll
      for (int k = 0; k < kDepth; k += 4) {
        if (k % (kDepth / kHookSteps) == 0) hook.step();
        Four b[Shape::kAcross];
#pragma unroll
        for (int j = 0; j < Shape::kAcross; j++)
          b[j] = *reinterpret_cast<const Four*>(weight + j * Shape::kWarpsAcross * 8 * Layout::kStride + k);
#pragma unroll
        for (int i = 0; i < Shape::kDown; i++) {
          const Four a = *reinterpret_cast<const Four*>(pixel + i * 16 * Layout::kStride + k);
#pragma unroll
          for (int e = 0; e < 4; e++) {
#pragma unroll
            for (int j = 0; j < Shape::kAcross; j++) sum[i][j] = fmaf(a.at[e], b[j].at[e], sum[i][j]);
          }
        }
      }
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
    work.row = Shape::row(where.thread);
    work.column = Shape::column(where.thread);
#pragma unroll
    for (int i = 0; i < Shape::kDown; i++) {
#pragma unroll
      for (int j = 0; j < Shape::kAcross; j++) work.sum[i][j] = 0.f;
    }
    Pipeline<kAsync, kStages, kStageBytes>::run(where, work, slabs(params), hook);
#pragma unroll
    for (int i = 0; i < Shape::kDown; i++) {
      const int row = top + i * 16 + work.row;
      if (row >= params.rows) continue;
      float* y = params.y + static_cast<size_t>(row) * params.outputs;
#pragma unroll
      for (int j = 0; j < Shape::kAcross; j++) {
        const int column = start + j * Shape::kWarpsAcross * 8 + work.column;
        if (column < params.outputs) y[column] = finished(work.sum[i][j], params.bias, column, params.relu);
      }
    }
  }
};

}  // namespace nitro
#endif
