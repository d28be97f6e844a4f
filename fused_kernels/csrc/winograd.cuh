// 3x3 convolution with stride 1 in fp32 with fewer multiplications: Winograd's minimal filtering F(2x2, 3x3) (Lavin and
// Gray, "Fast Algorithms for Convolutional Neural Networks", 2015). Four outputs of a channel take 16 products in the
// place of 36: Y = A^T [sum over channels of (G g G^T) * (B^T d B)] A for a patch d of 4x4 pixels, a filter g, and a
// tile Y of 2x2 outputs, with
//
//         1  0 -1  0          1    0    0
//   B^T = 0  1  1  0     G = 1/2  1/2  1/2     A^T = 1  1  1  0
//         0 -1  1  0         1/2 -1/2  1/2           0  1 -1 -1
//         0  1  0 -1          0    0    1
//
// It is one body: a block brings slabs of patches and filters into shared memory in their transformed form, multiplies
// them as 16 small matrix products, two to a warp, and turns the sums back through shared memory.
#ifndef NITRO_WINOGRAD_CUH
#define NITRO_WINOGRAD_CUH
#include "simt.cuh"

namespace nitro {

namespace winograd {

constexpr int kTileCount = 32;
constexpr int kDepth = 8;
constexpr int kThreads = 256;
constexpr int kPacks = kDepth / 4;  // of the channels that one copy brings

// Where a row of one channel of a slab has a tile or an output: in groups of 4, exchanged by a function of the channel,
// so that threads that transform different channels meet no bank conflicts. Rows are a multiple of 32 long.
constexpr int kGroup = 4;
NITRO_DEVICE int along(int place, int channel) { return place ^ channel * kGroup; }

// Four numbers times B^T, in place.
NITRO_DEVICE void transform_pixels(float& a, float& b, float& c, float& d) {
  const float sum = b + c;
  const float difference = c - b;
  a = a - c;
  d = b - d;
  b = sum;
  c = difference;
}
// Three numbers times G, but for the factors of a half in two of its rows: those multiply the outputs instead, which
// takes nothing more, and as powers of two they round nothing.
NITRO_DEVICE void transform_filter(float a, float b, float c, float (&to)[4]) {
  const float ends = a + c;
  to[0] = a;
  to[1] = ends + b;
  to[2] = ends - b;
  to[3] = c;
}
// Four numbers times A^T and the halves of G.
NITRO_DEVICE void transform_sums(float a, float b, float c, float d, float& first, float& second) {
  first = fmaf(0.5f, b + c, a);
  second = fmaf(0.5f, b - c, -d);
}

// How the outputs of all images are divided into tiles of 2x2; those of an odd last line or column are not full.
struct Tiles {
  int columns;
  int of_image;
  int count;
  template <class Params>
  NITRO_METHOD explicit Tiles(const Params& params) {
    columns = ceil_div(params.out_width, 2);
    of_image = columns * ceil_div(params.out_height, 2);
    count = params.rows > 0 ? params.rows / (params.out_height * params.out_width) * of_image : 0;
  }
};
struct Place {
  int image;
  int line;  // of the outputs
  int column;
  NITRO_METHOD Place(const Tiles& tiles, int tile) {
    image = tile / tiles.of_image;
    const int rest = tile - image * tiles.of_image;
    line = rest / tiles.columns * 2;
    column = rest % tiles.columns * 2;
  }
};

// The patches of a slab: 4x4 pixels of each channel for each tile. Threads copy packs of 4 channels, and after a
// barrier each of them transforms the patch of one channel.
struct PatchOperand {
  static constexpr int kStride = 17 * kDepth;  // of a tile: a warp reads four of them, which lie in different banks
  static constexpr int kFloats = kTileCount * kStride;
  static constexpr int kTileStep = kThreads / (16 * kPacks);
  static constexpr int kCopies = kTileCount / kTileStep;
  static_assert(kTileCount * kDepth == kThreads && kCopies * kTileStep == kTileCount, "the threads tile the slab");
  const char* from;       // this thread's channels of its pixel of the first tile
  uint32 ahead[kCopies];  // bytes to the same of other tiles; images have less than 4 GiB
  int inside;             // bit i: that pixel lies inside the image
  int channels;           // from this thread's first one on
  int copied;             // bytes
  int read;
  int place;
  float held[4][4];

  template <class Params>
  NITRO_METHOD void start(const Params& params, const Tiles& tiles, int origin, int thread) {
    const int first = thread % kPacks * 4;
    const int pixel = thread / kPacks % 16;
    const int down = pixel / 4 - params.padding;
    const int across = pixel % 4 - params.padding;
    from = reinterpret_cast<const char*>(
        params.x + (static_cast<long long>(down) * params.width + across) * params.channels + first);
    channels = params.channels - first;
    copied = (thread / (16 * kPacks) * kStride + pixel * kDepth + first) * 4;
    inside = 0;
#pragma unroll
    for (int i = 0; i < kCopies; i++) {
      const int tile = origin + thread / (16 * kPacks) + i * kTileStep;
      ahead[i] = 0;
      if (tile >= tiles.count) continue;
      const Place at(tiles, tile);
      ahead[i] = ((static_cast<uint32>(at.image) * params.height + at.line) * params.width + at.column) *
                 static_cast<uint32>(params.channels) * 4u;
      const bool within = static_cast<uint32>(at.line + down) < static_cast<uint32>(params.height) &&
                          static_cast<uint32>(at.column + across) < static_cast<uint32>(params.width);
      inside |= (within ? 1 : 0) << i;
    }
    const int tile = thread / kDepth;
    const int channel = thread % kDepth;
    read = tile * kStride + channel;
    place = channel * kTileCount + along(tile, channel);
  }
  NITRO_METHOD void copy(Shared raw, int i) const {
    copy_async<16>(raw + copied + i * kTileStep * kStride * 4, from + ahead[i], channels > 0 && (inside >> i & 1));
  }
  NITRO_METHOD void advance() {
    from += kDepth * 4;
    channels -= kDepth;
  }
  NITRO_METHOD void load(const float* raw) {
#pragma unroll
    for (int i = 0; i < 16; i++) held[i / 4][i % 4] = raw[read + i * kDepth];
  }
  NITRO_METHOD void transform_columns() {
#pragma unroll
    for (int s = 0; s < 4; s++) transform_pixels(held[0][s], held[1][s], held[2][s], held[3][s]);
  }
  NITRO_METHOD void put(float* stage, int r) {
    transform_pixels(held[r][0], held[r][1], held[r][2], held[r][3]);
#pragma unroll
    for (int s = 0; s < 4; s++) stage[(4 * r + s) * kTileCount * kDepth + place] = held[r][s];
  }
};

// The filters of a slab: 3x3 weights of each channel for each output. A thread transforms those of kWidth channels.
template <int kOutputCount>
struct FilterOperand {
  static constexpr int kWidth = kOutputCount * kDepth / kThreads;
  static constexpr int kStride = 9 * kDepth;  // of an output
  static constexpr int kFloats = kOutputCount * kStride;
  static constexpr int kTapStep = kThreads / kOutputCount / kPacks;
  static constexpr int kCopies = (9 + kTapStep - 1) / kTapStep;
  static_assert(kTapStep * kPacks * kOutputCount == kThreads && kWidth * kThreads == kOutputCount * kDepth,
                "the threads tile the slab");
  typedef Pack<float, kWidth> Vector;
  const char* from;
  long long step;  // bytes from a tap to the one that this thread copies next
  int channels;    // from this thread's first one on; none where its output is outside
  int tap;
  int copied;  // bytes
  int read;
  int place;
  Vector held[9];
  float half[3][4];

  template <class Params>
  NITRO_METHOD void start(const Params& params, int origin, int thread) {
    const int copies = thread / (kTapStep * kPacks);
    const int first = thread % kPacks * 4;
    tap = thread / kPacks % kTapStep;
    from = reinterpret_cast<const char*>(
        params.weights + (static_cast<long long>(origin + copies) * 9 + tap) * params.channels + first);
    step = static_cast<long long>(params.channels) * (kTapStep * 4);
    channels = origin + copies < params.outputs ? params.channels - first : 0;
    copied = (copies * kStride + tap * kDepth + first) * 4;
    const int output = thread / (kDepth / kWidth);
    const int channel = thread % (kDepth / kWidth) * kWidth;
    read = output * kStride + channel;
    place = channel * kOutputCount + along(output, channel);
  }
  NITRO_METHOD void copy(Shared raw, int i) const {
    if ((i + 1) * kTapStep <= 9 || tap + i * kTapStep < 9)
      copy_async<16>(raw + copied + i * kTapStep * kDepth * 4, from + i * step, channels > 0);
  }
  NITRO_METHOD void advance() {
    from += kDepth * 4;
    channels -= kDepth;
  }
  NITRO_METHOD void load(const float* raw) {
#pragma unroll
    for (int i = 0; i < 9; i++) held[i] = *reinterpret_cast<const Vector*>(raw + read + i * kDepth);
  }
  NITRO_METHOD void transform_columns(int e) {
#pragma unroll
    for (int s = 0; s < 3; s++) transform_filter(held[s].at[e], held[3 + s].at[e], held[6 + s].at[e], half[s]);
  }
  NITRO_METHOD void put(float* stage, int e, int r) const {
    float whole[4];
    transform_filter(half[0][r], half[1][r], half[2][r], whole);
    float* to = stage + e * kOutputCount + along(place, e);
#pragma unroll
    for (int s = 0; s < 4; s++) to[(4 * r + s) * kOutputCount * kDepth] = whole[s];
  }
};

}  // namespace winograd

// A unit is 32 tiles of 2x2 outputs in kOutputCount channels. Images are NHWC, of a multiple of 4 channels, and weights
// KRSC.
template <int kOutputCount>
struct WinogradConvolution {
  typedef typename SimtConvolution<3, 128, 64, 256, 2, false, 4>::Params Params;
  typedef winograd::PatchOperand Patches;
  typedef winograd::FilterOperand<kOutputCount> Filters;
  typedef winograd::Tiles Tiles;
  typedef Pack<float, 4> Four;
  static constexpr bool kBlockGranular = true;
  static constexpr int kThreads = winograd::kThreads;
  static constexpr int kDepth = winograd::kDepth;
  static constexpr int kTileCount = winograd::kTileCount;
  static constexpr int kHookSteps = 2;
  static constexpr int kProducts = 16 * 32 / kThreads;  // of a warp, whose 4 x 8 threads have all sums of each
  static constexpr int kDown = kTileCount / 4;
  static constexpr int kAcross = kOutputCount / 8;
  // A slab transformed, for each of the 16 products, and as it is copied.
  static constexpr int kPatchFloats = 16 * kDepth * kTileCount;
  static constexpr int kStageFloats = kPatchFloats + 16 * kDepth * kOutputCount;
  static constexpr int kRawFloats = Patches::kFloats + Filters::kFloats;
  static constexpr int kSharedBytes = 2 * (kStageFloats + kRawFloats) * 4;

  NITRO_DEVICE int units(const Params& params) {
    return ceil_div(Tiles(params).count, kTileCount) * ceil_div(params.outputs, kOutputCount);
  }
  NITRO_DEVICE int slabs(const Params& params) { return ceil_div(params.channels, kDepth); }

  struct Work {
    Patches patches;
    Filters filters;
    int row;
    int column;
    int product;
    int left;  // bytes from a stage to this thread's first tile in its first product, and to its first output
    int right;
    float sum[kProducts][kDown][kAcross];

    NITRO_METHOD void start(const Params& params, const Tiles& tiles, int top, int begin, int thread) {
      patches.start(params, tiles, top, thread);
      filters.start(params, begin, thread);
      // As in SimtSums.
      const int down = (thread >> 1 & 1) | (thread >> 2 & 2);
      const int across = (thread & 1) | (thread >> 1 & 2) | (thread >> 2 & 4);
      row = down * 4;
      column = across * 4;
      product = (thread >> 5) * kProducts;
      // Or they would be computed again for every slab.
      left = anew((product * kDepth * kTileCount + row) * 4);
      right = anew((kPatchFloats + product * kDepth * kOutputCount + column) * 4);
#pragma unroll
      for (int p = 0; p < kProducts; p++) {
#pragma unroll
        for (int i = 0; i < kDown; i++) {
#pragma unroll
          for (int j = 0; j < kAcross; j++) sum[p][i][j] = 0.f;
        }
      }
    }
    // Copy i of the kCopies that bring a slab.
    static constexpr int kCopies = Patches::kCopies + Filters::kCopies;
    NITRO_METHOD void copy(Shared raw, int i) {
      if (i < Patches::kCopies)
        patches.copy(raw, i);
      else
        filters.copy(raw + Patches::kFloats * 4, i - Patches::kCopies);
      if (i + 1 == kCopies) {
        patches.advance();
        filters.advance();
        commit_copies();
      }
    }
    // Part i of the kParts that bring a slab from where it was copied to where it is multiplied.
    static constexpr int kParts = 7 + 3 * Filters::kWidth;
    NITRO_METHOD void transform(int i, const float* raw, float* stage) {
      if (i == 0) patches.load(raw);
      if (i == 1) patches.transform_columns();
      if (i >= 2 && i < 6) patches.put(stage, i - 2);
      if (i == 6) filters.load(raw + Patches::kFloats);
      if (i < 7 || i >= kParts) return;
      const int e = (i - 7) / 3;
      const int part = (i - 7) % 3;
      if (part == 0) {
        filters.transform_columns(e);
      } else {
        filters.put(stage + kPatchFloats, e, 2 * part - 2);
        filters.put(stage + kPatchFloats, e, 2 * part - 1);
      }
    }
    // Channel k of a slab, in product p of this warp.
    NITRO_METHOD void multiply(int k, int p, const char* stage) {
      // Of what exchanges groups of 4 the part below rows of 16 depends on the thread, and the rest is known here.
      constexpr int kBelow = 16 / winograd::kGroup - 1;
      const int turn = (k & kBelow) * winograd::kGroup * 4;
      const int chunk = (k & ~kBelow) * winograd::kGroup;
      const int at = (p * kDepth + k) * 4;
      Four a[kDown / 4];
      Four b[kAcross / 4];
#pragma unroll
      for (int i = 0; i < kDown / 4; i++)
        a[i] = *reinterpret_cast<const Four*>(stage + (left ^ turn) + at * kTileCount + (16 * i ^ chunk) * 4);
#pragma unroll
      for (int j = 0; j < kAcross / 4; j++)
        b[j] = *reinterpret_cast<const Four*>(stage + (right ^ k * winograd::kGroup * 4) + at * kOutputCount + 128 * j);
      // To and fro, so that each product shares a factor with the one before: measured to be a little faster.
#pragma unroll
      for (int i = 0; i < kDown; i++) {
#pragma unroll
        for (int n = 0; n < kAcross; n++) {
          const int j = i % 2 ? kAcross - 1 - n : n;
          sum[p][i][j] = fmaf(a[i / 4].at[i % 4], b[j / 4].at[j % 4], sum[p][i][j]);
        }
      }
    }
  };

  // While a slab is multiplied the next one is transformed, and the one after it copied, a little at every step.
  // Beyond the last slab zeros are copied, and what is transformed is not looked at: without branches all of it is
  // scheduled amid the products.
  template <class Where, class Hook>
  NITRO_DEVICE void feed(const Params& params, const Where& where, Work& work, Hook& hook) {
    float* const stages = reinterpret_cast<float*>(where.shared);
    const float* const raws = stages + 2 * kStageFloats;
    const Shared aside = shared_at(raws);
#pragma unroll
    for (int i = 0; i < Work::kCopies; i++) work.copy(aside, i);
#pragma unroll
    for (int i = 0; i < Work::kCopies; i++) work.copy(aside + kRawFloats * 4, i);
    wait_for_copies<1>();
    where.barrier();
#pragma unroll
    for (int i = 0; i < Work::kParts; i++) work.transform(i, raws, stages);
    const int count = slabs(params);
    int read = 0;
#pragma unroll 1
    for (int slab = 0; slab < count; slab++) {
      const char* const present = reinterpret_cast<const char*>(stages + read * kStageFloats);
      const Shared free = aside + read * kRawFloats * 4;
      read ^= 1;
      const float* const raw = raws + read * kRawFloats;
      float* const next = stages + read * kStageFloats;
      wait_for_copies<0>();
      where.barrier();
#pragma unroll
      for (int step = 0; step < kDepth * kProducts; step++) {
        if (step % (kDepth * kProducts / kHookSteps) == 0) hook.step();
        work.multiply(step / kProducts, step % kProducts, present);
        if (step < Work::kCopies) work.copy(free, step);
        work.transform(step, raw, next);
      }
    }
    wait_for_copies<0>();
    where.barrier();
  }

  // All sums meet in shared memory, in the place of the slabs, from where each thread takes those of its outputs.
  static_assert(kSharedBytes >= 16 * kTileCount * kOutputCount * 4, "the sums fit");
  static constexpr int kQuads = kOutputCount / 4;

  template <class Where>
  NITRO_DEVICE void write(const Params& params, const Where& where, const Work& work, const Tiles& tiles, int top,
                          int begin) {
    float* const all = reinterpret_cast<float*>(where.shared);
    put_sums(all, work);
    where.barrier();
    const bool whole = params.outputs % 4 == 0;
    const int output = where.thread % kQuads * 4;
#pragma unroll
    for (int i = 0; i < kTileCount * kQuads / kThreads; i++) {
      const int tile = where.thread / kQuads + i * (kThreads / kQuads);
      if (top + tile < tiles.count && begin + output < params.outputs)
        write_tile(params, all + tile * kOutputCount + apart(tile, output), winograd::Place(tiles, top + tile),
                   begin + output, whole);
    }
    where.barrier();
  }
  // Of 8 threads that store together two rows of 4 tiles meet: they use other halves of the banks.
  NITRO_DEVICE int apart(int tile, int column) { return column ^ (tile >> 2 & 1) << 4; }

  NITRO_DEVICE void put_sums(float* all, const Work& work) {
    float* const to = all + (work.product * kTileCount + work.row) * kOutputCount + apart(work.row, work.column);
#pragma unroll
    for (int p = 0; p < kProducts; p++) {
#pragma unroll
      for (int i = 0; i < kDown; i++) {
#pragma unroll
        for (int j = 0; j < kAcross / 4; j++) {
          Four out;
#pragma unroll
          for (int e = 0; e < 4; e++) out.at[e] = work.sum[p][i][4 * j + e];
          *reinterpret_cast<Four*>(to + (p * kTileCount + i / 4 * 16 + i % 4) * kOutputCount + 32 * j) = out;
        }
      }
    }
  }
  NITRO_DEVICE void write_tile(const Params& params, const float* sums, const winograd::Place& at, int output,
                               bool whole) {
    Four half[2][4];
#pragma unroll
    for (int s = 0; s < 4; s++) {
      Four m[4];
#pragma unroll
      for (int r = 0; r < 4; r++)
        m[r] = *reinterpret_cast<const Four*>(sums + (4 * r + s) * kTileCount * kOutputCount);
#pragma unroll
      for (int e = 0; e < 4; e++)
        winograd::transform_sums(m[0].at[e], m[1].at[e], m[2].at[e], m[3].at[e], half[0][s].at[e], half[1][s].at[e]);
    }
    Four bias = zero_pack<float, 4>();
#pragma unroll
    for (int e = 0; e < 4; e++)
      if (params.bias && output + e < params.outputs) bias.at[e] = params.bias[output + e];
#pragma unroll
    for (int r = 0; r < 2; r++) {
      Four out[2];
#pragma unroll
      for (int e = 0; e < 4; e++)
        winograd::transform_sums(half[r][0].at[e], half[r][1].at[e], half[r][2].at[e], half[r][3].at[e], out[0].at[e],
                       out[1].at[e]);
#pragma unroll
      for (int s = 0; s < 2; s++) {
        if (at.line + r >= params.out_height || at.column + s >= params.out_width) continue;
#pragma unroll
        for (int e = 0; e < 4; e++) {
          if (params.bias) out[s].at[e] = out[s].at[e] + bias.at[e];
          if (params.relu) out[s].at[e] = out[s].at[e] < 0.f ? 0.f : out[s].at[e];
        }
        const size_t pixel =
            (static_cast<size_t>(at.image) * params.out_height + at.line + r) * params.out_width + at.column + s;
        float* y = params.y + pixel * params.outputs + output;
        if (whole) {
          *reinterpret_cast<Four*>(y) = out[s];
        } else {
#pragma unroll
          for (int e = 0; e < 4; e++)
            if (output + e < params.outputs) y[e] = out[s].at[e];
        }
      }
    }
  }

  template <class Where, class Hook>
  NITRO_DEVICE void tile(const Params& params, const Where& where, int unit, Hook& hook) {
    const Tiles tiles(params);
    const int across = ceil_div(params.outputs, kOutputCount);
    const int top = unit / across * kTileCount;
    const int begin = unit % across * kOutputCount;
    Work work;
    work.start(params, tiles, top, begin, where.thread);
    feed(params, where, work, hook);
    write(params, where, work, tiles, top, begin);
  }
};

}  // namespace nitro
#endif
