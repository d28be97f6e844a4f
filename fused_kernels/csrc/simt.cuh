// Compute-bound bodies in fp32 on the ordinary cores: a matrix product of K-major operands, and convolution as an
// implicit matrix product. Their unit is an output tile, computed by all threads of a (virtual) block.
//
// A thread computes kDown x kAcross outputs; a warp's 4 x 8 threads read shared memory without bank conflicts.
#ifndef NITRO_SIMT_CUH
#define NITRO_SIMT_CUH
#include "operands.cuh"

namespace nitro {

struct Nothing {
  NITRO_METHOD void now() const {}
};

// The rows of an operand as they are, each with kTile numbers.
template <int kTile>
struct PlainRows {
  NITRO_DEVICE int along(int place, int) { return place; }
};

// A thread's sums. The operands lie in a stage as rows of kTileM and of kTileN numbers, a row for each step of the
// product, ordered within a row as LeftRows and RightRows say.
template <int kTileM, int kTileN, int kThreadCount, int kDepth, class LeftRows, class RightRows>
struct SimtSums {
  // A thread has up to eight outputs down.
  static constexpr int kWarpsDown = kTileM > 128 ? kTileM / 32 : 4;
  static constexpr int kWarpsAcross = kThreadCount / 32 / kWarpsDown;
  static constexpr int kDown = kTileM / (4 * kWarpsDown);
  static constexpr int kAcross = kTileN / (8 * kWarpsAcross);
  static constexpr int kRowsApart = 16 * kWarpsDown;
  static constexpr int kHookSteps = 2;
  static_assert(kThreadCount % (32 * kWarpsDown) == 0 && kDown * 4 * kWarpsDown == kTileM &&
                    kAcross * 8 * kWarpsAcross == kTileN,
                "the warps tile the block");
  static_assert(kDown % 4 == 0 && kAcross % 4 == 0, "fragments are read four at a time");
  typedef Pack<float, 4> Four;
  float sum[kDown][kAcross];
  int row;
  int column;

  NITRO_METHOD void start(int thread) {
    // A warp is 4 x 8 threads, their bits mixed: with 2 x 4 in every 8 lanes a read of 16 bytes a lane takes two passes
    // through shared memory, with 1 x 8 four.
    const int down = (thread >> 1 & 1) | (thread >> 2 & 2);
    const int across = (thread & 1) | (thread >> 1 & 2) | (thread >> 2 & 4);
    row = ((thread >> 5) / kWarpsAcross * 4 + down) * 4;
    column = ((thread >> 5) % kWarpsAcross * 8 + across) * 4;
#pragma unroll
    for (int i = 0; i < kDown; i++) {
#pragma unroll
      for (int j = 0; j < kAcross; j++) sum[i][j] = 0.f;
    }
  }
  template <class Hook, class Between>
  NITRO_METHOD void multiply(const char* stage, Hook& hook, const Between& between) {
    const float* lefts = reinterpret_cast<const float*>(stage);
    const float* rights = lefts + kDepth * kTileM;
#pragma unroll
    for (int k = 0; k < kDepth; k++) {
      if (k % (kDepth / kHookSteps) == 0) hook.step();
      if (k == kDepth / 4) between.now();
      Four a[kDown / 4];
      Four b[kAcross / 4];
#pragma unroll
      for (int i = 0; i < kDown / 4; i++)
        a[i] = *reinterpret_cast<const Four*>(lefts + LeftRows::along(row, k) + k * kTileM + i * kRowsApart);
#pragma unroll
      for (int j = 0; j < kAcross / 4; j++)
        b[j] = *reinterpret_cast<const Four*>(rights + RightRows::along(column, k) + k * kTileN +
                                              j * kWarpsAcross * 32);
#pragma unroll
      for (int i = 0; i < kDown; i++) {
#pragma unroll
        for (int j = 0; j < kAcross; j++) sum[i][j] = fmaf(a[i / 4].at[i % 4], b[j / 4].at[j % 4], sum[i][j]);
      }
    }
  }
  // Adds the bias and applies the ReLU in place: the sums are all registers that there are.
  template <class Params>
  NITRO_METHOD void finish(const Params& params, int start) {
    if (params.bias) {
#pragma unroll
      for (int j = 0; j < kAcross; j++) {
        const int at = start + j / 4 * kWarpsAcross * 32 + column + j % 4;
        const float bias = at < params.outputs ? params.bias[at] : 0.f;
#pragma unroll
        for (int i = 0; i < kDown; i++) sum[i][j] = sum[i][j] + bias;
      }
    }
    if (params.relu) {
#pragma unroll
      for (int i = 0; i < kDown; i++) {
#pragma unroll
        for (int j = 0; j < kAcross; j++) sum[i][j] = sum[i][j] < 0.f ? 0.f : sum[i][j];
      }
    }
  }
  // With `whole`, y is aligned to 16 bytes and its rows are a multiple of that long.
  template <class Params>
  NITRO_METHOD void write(const Params& params, int top, int start, bool whole) {
    finish(params, start);
#pragma unroll
    for (int i = 0; i < kDown; i++) {
      const int at = top + (i / 4) * kRowsApart + row + i % 4;
      if (at >= params.rows) continue;
      float* y = params.y + static_cast<size_t>(at) * params.outputs;
#pragma unroll
      for (int j = 0; j < kAcross / 4; j++) {
        const int first = start + j * kWarpsAcross * 32 + column;
        Four out;
#pragma unroll
        for (int e = 0; e < 4; e++)
          if (first + e < params.outputs) out.at[e] = sum[i][4 * j + e];
        if (whole) {
          if (first < params.outputs) *reinterpret_cast<Four*>(y + first) = out;
        } else {
#pragma unroll
          for (int e = 0; e < 4; e++)
            if (first + e < params.outputs) y[first + e] = out.at[e];
        }
      }
    }
  }
};

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
  typedef SimtSums<kTileM, kTileN, kThreadCount, kDepth, PlainRows<kTileM>, PlainRows<kTileN>> Sums;
  static constexpr int kHookSteps = Sums::kHookSteps;

  NITRO_DEVICE int units(const Params& params) {
    return ceil_div(params.rows, kTileM) * ceil_div(params.outputs, kTileN);
  }
  NITRO_DEVICE int slabs(const Params& params) { return ceil_div(params.depth, kDepth); }

  struct Work {
    KMajorOperand<kTileM, kDepth, kThreadCount, kWidth> left;
    KMajorOperand<kTileN, kDepth, kThreadCount, kWidth> right;
    Sums sums;

    NITRO_METHOD void copy(Shared stage) {
      left.copy(stage);
      right.copy(stage + kDepth * kTileM * 4);
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
      sums.multiply(stage, hook, Nothing());
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
    work.sums.start(where.thread);
    Pipeline<kAsync, kStages, kStageBytes>::run(where, work, slabs(params), hook);
    work.sums.write(params, top, start, kWidth == 4);
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
  typedef Channels<kTileM> LeftLayout;
  typedef Channels<kTileN> RightLayout;
  typedef SimtSums<kTileM, kTileN, kThreadCount, kDepth, LeftLayout, RightLayout> Sums;
  static constexpr int kLeftFloats = kDepth * kTileM;
  static constexpr int kStageBytes = kDepth * (kTileM + kTileN) * 4;
  static constexpr int kSharedBytes = (kAsync ? kStages + 2 : kStages) * kStageBytes;
  static constexpr int kHookSteps = Sums::kHookSteps;

  NITRO_DEVICE int units(const Params& params) {
    return ceil_div(params.rows, kTileM) * ceil_div(params.outputs, kTileN);
  }
  NITRO_DEVICE int slabs(const Params& params) { return Walk<kFilter, kDepth>::slabs(params.channels); }

  struct Work {
    Walk<kFilter, kDepth> walk;
    PixelOperand<float, kFilter, kTileM, kDepth, kThreadCount, kWidth, LeftLayout> pixels;
    WeightOperand<float, kFilter, kTileN, kDepth, kThreadCount, kWidth, RightLayout> weights;
    Sums sums;

    static constexpr int kCornerBytes = kWidth * 4;
    typedef Pack<float, kWidth> Vector;

    NITRO_METHOD void copy_aside(Shared corner) {
      pixels.copy_aside(walk, corner);
      weights.copy_aside(walk, corner + kLeftFloats * 4);
      walk.advance();
    }
    NITRO_METHOD void turn(const char* corner, char* stage) const {
      pixels.turn(reinterpret_cast<const Vector*>(corner), reinterpret_cast<float*>(stage));
      weights.turn(reinterpret_cast<const Vector*>(corner + kLeftFloats * 4),
                   reinterpret_cast<float*>(stage) + kLeftFloats);
    }
    NITRO_METHOD void fetch() {
      pixels.fetch(walk);
      weights.fetch(walk);
      walk.advance();
    }
    NITRO_METHOD void put(char* stage) const {
      pixels.put(reinterpret_cast<float*>(stage));
      weights.put(reinterpret_cast<float*>(stage) + kLeftFloats);
    }
    template <class Hook, class Between>
    NITRO_METHOD void multiply(const char* stage, Hook& hook, const Between& between) {
      sums.multiply(stage, hook, between);
    }
    template <class Hook>
    NITRO_METHOD void multiply(const char* stage, Hook& hook) {
      sums.multiply(stage, hook, Nothing());
    }
  };

  template <bool kCopies, int kSlabs>
  struct Feed : TurningPipeline<kSlabs, kStageBytes> {};
  template <int kSlabs>
  struct Feed<false, kSlabs> : Pipeline<false, kSlabs, kStageBytes> {};

  template <class Where, class Hook>
  NITRO_DEVICE void tile(const Params& params, const Where& where, int unit, Hook& hook) {
    const int across = ceil_div(params.outputs, kTileN);
    const int top = unit / across * kTileM;
    const int start = unit % across * kTileN;
    const Image image = {params.height,    params.width,  params.out_height,
                         params.out_width, params.stride, params.padding};
    Work work;
    work.walk.start(params.channels, params.width * params.channels);
    work.pixels.start(params.x, image, params.rows, params.channels, top, where.thread);
    work.weights.start(params.weights, params.outputs, params.channels, start, where.thread);
    work.sums.start(where.thread);
    Feed<kAsync, kStages>::run(where, work, slabs(params), hook);
    work.sums.write(params, top, start, kWidth == 4 && params.outputs % 4 == 0);
  }
};

}  // namespace nitro
#endif
