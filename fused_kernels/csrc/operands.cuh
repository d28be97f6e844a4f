// How tiles of the operands of a matrix product come into shared memory: plain K-major matrices, and rows of channels
// (pixels of an NHWC image seen through a filter, rows of a matrix, rows of KRSC weights). Everything beyond an edge
// arrives as zero. Each operand can be copied asynchronously (sm_80 and newer) or staged through registers.
#ifndef NITRO_OPERANDS_CUH
#define NITRO_OPERANDS_CUH
#include "base.cuh"

namespace nitro {

// A slab of kDepth rows of a [depth, extent] matrix, kTile columns wide; in shared memory as [kDepth][kTile].
// Needs extent to be a multiple of kWidth, and the matrix aligned to as many elements.
template <int kTile, int kDepth, int kThreads, int kWidth>
struct KMajorOperand {
  typedef Pack<float, kWidth> Vector;
  static constexpr int kAcross = kTile / kWidth;
  static constexpr int kLoads = kDepth * kAcross / kThreads;
  static constexpr int kRowStep = kThreads / kAcross;
  static_assert(kThreads % kAcross == 0 && kLoads * kRowStep == kDepth, "the threads must tile the slab");
  const float* from;
  size_t extent;
  int left;  // rows of the matrix from this thread's first row on; none where its column is outside
  int place;
  Vector held[kLoads];

  NITRO_METHOD void start(const float* matrix, int extent_, int depth, int origin, int thread) {
    const int row = thread / kAcross;
    const int column = thread % kAcross * kWidth;
    extent = extent_;
    from = matrix + row * extent + origin + column;
    left = origin + column < extent_ ? depth - row : 0;
    place = row * kTile + column;
  }
  NITRO_METHOD void advance() {
    from += kDepth * extent;
    left -= kDepth;
  }
  NITRO_METHOD void copy(float* stage) {
#pragma unroll
    for (int i = 0; i < kLoads; i++)
      copy_async<sizeof(Vector)>(stage + place + i * kRowStep * kTile, from + i * kRowStep * extent,
                                 i * kRowStep < left);
    advance();
  }
  NITRO_METHOD void fetch() {
#pragma unroll
    for (int i = 0; i < kLoads; i++)
      held[i] = i * kRowStep < left ? load_shared_by_all<float, kWidth>(from + i * kRowStep * extent)
                                    : zero_pack<float, kWidth>();
    advance();
  }
  NITRO_METHOD void put(float* stage) const {
#pragma unroll
    for (int i = 0; i < kLoads; i++) *reinterpret_cast<Vector*>(stage + place + i * kRowStep * kTile) = held[i];
  }
};

// Where an element of a row of channels lies in shared memory. Both layouts keep the accesses of a warp free of bank
// conflicts: padded rows, or 16-byte chunks of a row exchanged by a function of the row.
template <int kDepth, int kPadding>
struct PaddedRows {
  static constexpr int kStride = kDepth + kPadding;
  NITRO_DEVICE int at(int row, int channel) { return row * kStride + channel; }
};
template <int kDepth>
struct SwizzledRows {
  static_assert(kDepth == 32 || kDepth == 64, "rows of 64 or 128 bytes of halves");
  static constexpr int kStride = kDepth;
  NITRO_DEVICE int at(int row, int channel) {
    const int turn = kDepth == 64 ? row & 7 : (row >> 1) & 3;
    return row * kStride + (((channel >> 3) ^ turn) << 3) + (channel & 7);
  }
};

// The place in the sum over filter taps and channels that both operands of a convolution walk through together.
template <int kFilter, int kDepth>
struct Walk {
  int channel;
  int tap;
  int channels;
  NITRO_METHOD void start(int channels_) {
    channel = 0;
    tap = 0;
    channels = channels_;
  }
  NITRO_METHOD void advance() {
    channel += kDepth;
    if (kFilter > 1 && channel >= channels) {
      channel = 0;
      tap++;
    }
  }
  NITRO_DEVICE int slabs(int channels) { return kFilter * kFilter * ceil_div(channels, kDepth); }
};

// The geometry of a convolution. With a 1x1 filter and stride 1 it is a matrix product of [rows, channels] by
// [outputs, channels], and the sizes of the image are not looked at.
struct Image {
  int height;
  int width;
  int out_height;
  int out_width;
  int stride;
  int padding;
};

// kTile rows of kDepth channels: pixels under one filter tap.
template <typename Element, int kFilter, int kTile, int kDepth, int kThreads, int kWidth, class Layout>
struct PixelOperand {
  typedef Pack<Element, kWidth> Vector;
  static constexpr int kAcross = kDepth / kWidth;
  static constexpr int kLoads = kTile * kAcross / kThreads;
  static constexpr int kRowStep = kThreads / kAcross;
  static_assert(kThreads % kAcross == 0 && kLoads * kRowStep == kTile, "the threads must tile the slab");
  const Element* from[kLoads];
  int taps[kLoads];  // bit r * kFilter + s: the pixel under this tap lies inside the image
  int row;
  int first;
  int row_length;
  Vector held[kLoads];

  NITRO_METHOD void start(const Element* x, const Image& image, int rows, int channels, int origin, int thread) {
    row = thread / kAcross;
    first = thread % kAcross * kWidth;
    row_length = image.width * channels;
#pragma unroll
    for (int i = 0; i < kLoads; i++) {
      const int pixel = origin + row + i * kRowStep;
      taps[i] = 0;
      from[i] = x;
      if (pixel >= rows) continue;
      if (kFilter == 1 && image.stride == 1) {
        taps[i] = 1;
        from[i] = x + static_cast<size_t>(pixel) * channels + first;
        continue;
      }
      const int column = pixel % image.out_width * image.stride - image.padding;
      const int line = pixel / image.out_width;
      const int top = line % image.out_height * image.stride - image.padding;
      const int n = line / image.out_height;
      from[i] = x + ((static_cast<long long>(n) * image.height + top) * image.width + column) * channels + first;
#pragma unroll
      for (int r = 0; r < kFilter; r++) {
#pragma unroll
        for (int s = 0; s < kFilter; s++) {
          const bool inside = static_cast<uint32>(top + r) < static_cast<uint32>(image.height) &&
                              static_cast<uint32>(column + s) < static_cast<uint32>(image.width);
          taps[i] |= (inside ? 1 : 0) << (r * kFilter + s);
        }
      }
    }
  }
  template <class Position>
  NITRO_METHOD int offset(const Position& walk) const {
    if (kFilter == 1) return walk.channel;
    return walk.tap / kFilter * row_length + walk.tap % kFilter * walk.channels + walk.channel;
  }
  template <class Position>
  NITRO_METHOD bool inside(const Position& walk, int i) const {
    return (taps[i] >> walk.tap & 1) && walk.channel + first < walk.channels;
  }
  template <class Position>
  NITRO_METHOD void copy(const Position& walk, Element* stage) const {
    const int ahead = offset(walk);
#pragma unroll
    for (int i = 0; i < kLoads; i++)
      copy_async<sizeof(Vector)>(stage + Layout::at(row + i * kRowStep, first), from[i] + ahead, inside(walk, i));
  }
  template <class Position>
  NITRO_METHOD void fetch(const Position& walk) {
    const int ahead = offset(walk);
#pragma unroll
    for (int i = 0; i < kLoads; i++)
      held[i] = inside(walk, i) ? load_shared_by_all<Element, kWidth>(from[i] + ahead) : zero_pack<Element, kWidth>();
  }
  NITRO_METHOD void put(Element* stage) const {
#pragma unroll
    for (int i = 0; i < kLoads; i++)
      *reinterpret_cast<Vector*>(stage + Layout::at(row + i * kRowStep, first)) = held[i];
  }
};

// kTile rows of kDepth channels: KRSC weights under one filter tap, or the rows of an [outputs, channels] matrix.
template <typename Element, int kFilter, int kTile, int kDepth, int kThreads, int kWidth, class Layout>
struct WeightOperand {
  typedef Pack<Element, kWidth> Vector;
  static constexpr int kAcross = kDepth / kWidth;
  static constexpr int kLoads = kTile * kAcross / kThreads;
  static constexpr int kRowStep = kThreads / kAcross;
  static_assert(kThreads % kAcross == 0 && kLoads * kRowStep == kTile, "the threads must tile the slab");
  const Element* from;
  size_t step;  // elements between the rows of two loads
  int left;     // rows of the weights from this thread's first row on
  int row;
  int first;
  Vector held[kLoads];

  NITRO_METHOD void start(const Element* weights, int outputs, int channels, int origin, int thread) {
    row = thread / kAcross;
    first = thread % kAcross * kWidth;
    const size_t length = static_cast<size_t>(kFilter * kFilter) * channels;
    from = weights + (origin + row) * length + first;
    step = kRowStep * length;
    left = outputs - origin - row;
  }
  template <class Position>
  NITRO_METHOD void copy(const Position& walk, Element* stage) const {
    const int ahead = walk.tap * walk.channels + walk.channel;
    const bool within = walk.channel + first < walk.channels;
#pragma unroll
    for (int i = 0; i < kLoads; i++)
      copy_async<sizeof(Vector)>(stage + Layout::at(row + i * kRowStep, first), from + i * step + ahead,
                                 within && i * kRowStep < left);
  }
  template <class Position>
  NITRO_METHOD void fetch(const Position& walk) {
    const int ahead = walk.tap * walk.channels + walk.channel;
    const bool within = walk.channel + first < walk.channels;
#pragma unroll
    for (int i = 0; i < kLoads; i++)
      held[i] = within && i * kRowStep < left ? load_shared_by_all<Element, kWidth>(from + i * step + ahead)
                                              : zero_pack<Element, kWidth>();
  }
  NITRO_METHOD void put(Element* stage) const {
#pragma unroll
    for (int i = 0; i < kLoads; i++)
      *reinterpret_cast<Vector*>(stage + Layout::at(row + i * kRowStep, first)) = held[i];
  }
};

// Feeds slabs of two operands to `Work::multiply` through kStages stages of shared memory. `Work` offers copy(stage),
// fetch(), put(stage) and multiply(stage, hook); both ways bring the same numbers in the same order.
template <bool kAsync, int kStages, int kStageBytes>
struct Pipeline;

template <int kStages, int kStageBytes>
struct Pipeline<true, kStages, kStageBytes> {
  static_assert(kStages >= 2, "one stage is read while others arrive");
  template <class Where, class Work, class Hook>
  NITRO_DEVICE void run(const Where& where, Work& work, int slabs, Hook& hook) {
#pragma unroll
    for (int s = 0; s < kStages - 1; s++) {
      if (s < slabs) work.copy(where.shared + s * kStageBytes);
      commit_copies();
    }
    int read = 0;
    int write = kStages - 1;
#pragma unroll 1
    for (int slab = 0; slab < slabs; slab++) {
      wait_for_copies<kStages - 2>();
      where.barrier();
      if (slab + kStages - 1 < slabs) work.copy(where.shared + write * kStageBytes);
      commit_copies();
      work.multiply(where.shared + read * kStageBytes, hook);
      read = read + 1 == kStages ? 0 : read + 1;
      write = write + 1 == kStages ? 0 : write + 1;
    }
    wait_for_copies<0>();
    // The next tile, or the epilogue, may overwrite the stages only once every warp has read them.
    where.barrier();
  }
};

template <int kStages, int kStageBytes>
struct Pipeline<false, kStages, kStageBytes> {
  static_assert(kStages == 2, "registers hold the third stage");
  template <class Where, class Work, class Hook>
  NITRO_DEVICE void run(const Where& where, Work& work, int slabs, Hook& hook) {
    if (slabs > 0) {
      work.fetch();
      work.put(where.shared);
    }
    where.barrier();
#pragma unroll 1
    for (int slab = 0; slab < slabs; slab++) {
      const int read = slab & 1;
      if (slab + 1 < slabs) work.fetch();
      work.multiply(where.shared + read * kStageBytes, hook);
      if (slab + 1 < slabs) work.put(where.shared + (read ^ 1) * kStageBytes);
      where.barrier();
    }
  }
};

}  // namespace nitro
#endif
