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
  int extent;
  int left;  // rows of the matrix from this thread's first row on; none where its column is outside
  int place;
  Vector held[kLoads];

  NITRO_METHOD void start(const float* matrix, int extent_, int depth, int origin, int thread) {
    const int row = thread / kAcross;
    const int column = thread % kAcross * kWidth;
    extent = extent_;
    from = matrix + static_cast<long long>(extent) * row + origin + column;
    left = origin + column < extent_ ? depth - row : 0;
    place = row * kTile + column;
  }
  NITRO_METHOD void advance() {
    from += static_cast<long long>(extent) * kDepth;
    left -= kDepth;
  }
  NITRO_METHOD const float* row(int i) const { return from + static_cast<long long>(extent) * (i * kRowStep); }
  NITRO_METHOD void copy(Shared stage) {
#pragma unroll
    for (int i = 0; i < kLoads; i++)
      copy_async<sizeof(Vector)>(stage + (place + i * kRowStep * kTile) * 4, row(i), i * kRowStep < left);
    advance();
  }
  NITRO_METHOD void fetch() {
#pragma unroll
    for (int i = 0; i < kLoads; i++)
      held[i] = i * kRowStep < left ? load_shared_by_all<float, kWidth>(row(i))
                                    : zero_pack<float, kWidth>();
    advance();
  }
  NITRO_METHOD void put(float* stage) const {
#pragma unroll
    for (int i = 0; i < kLoads; i++) *reinterpret_cast<Vector*>(stage + place + i * kRowStep * kTile) = held[i];
  }
};

// How many of so many threads copy `packs` packs, the same number each: all of them if that is possible. The others are
// idle, and their first channel is -1.
NITRO_DEVICE constexpr int copying_threads(int packs, int threads) {
  return packs % threads == 0 ? threads : copying_threads(packs, threads - 128);
}

// Where an element of a row of channels lies in shared memory, so that the accesses of a warp meet no bank conflicts:
// channel by channel, each with all rows (as the products of scalars want it) in groups of 8 exchanged by a function of
// the channel; padded rows; or rows whose 16-byte chunks are exchanged by a function of the row. Such a function has a
// period: rows a multiple of it apart have their elements at places a constant apart.
template <int kTile>
struct Channels {
  static_assert(kTile % 32 == 0, "groups of 8 rows are exchanged four by four");
  static constexpr int kChannelStride = kTile;  // of channels that are not a multiple of 4 apart
  static constexpr int kStride = 1;
  static constexpr int kPeriod = 32;
  NITRO_DEVICE int at(int row, int channel) { return channel * kTile + along(row, channel); }
  NITRO_DEVICE int along(int row, int channel) { return row ^ ((channel >> 2 & 3) << 3); }
};
template <int kDepth, int kPadding>
struct PaddedRows {
  static constexpr int kChannelStride = 1;
  static constexpr int kStride = kDepth + kPadding;
  static constexpr int kPeriod = 1;
  NITRO_DEVICE int at(int row, int channel) { return row * kStride + channel; }
};
template <int kDepth>
struct SwizzledRows {
  static_assert(kDepth == 32 || kDepth == 64, "rows of 64 or 128 bytes of halves");
  static constexpr int kChannelStride = 1;
  static constexpr int kStride = kDepth;
  static constexpr int kPeriod = 8;
  NITRO_DEVICE int at(int row, int channel) {
    const int turn = kDepth == 64 ? row & 7 : (row >> 1) & 3;
    return row * kStride + (((channel >> 3) ^ turn) << 3) + (channel & 7);
  }
  // From the place of a channel below 16 to that of the channel `further` on, a multiple of 16, in the same row.
  NITRO_DEVICE int along(int place, int further) { return place ^ further; }
};

// The places of a thread's kLoads rows, `step` apart. One register where the layout allows it, and else one each.
template <class Layout, int kLoads, int kStep, bool kConstant = kStep % Layout::kPeriod == 0>
struct Places {
  int first;
  NITRO_METHOD void start(int row, int channel) { first = Layout::at(row, channel); }
  NITRO_METHOD int of(int i) const { return first + i * kStep * Layout::kStride; }
};
template <class Layout, int kLoads, int kStep>
struct Places<Layout, kLoads, kStep, false> {
  int at[kLoads];
  NITRO_METHOD void start(int row, int channel) {
#pragma unroll
    for (int i = 0; i < kLoads; i++) at[i] = Layout::at(row + i * kStep, channel);
  }
  NITRO_METHOD int of(int i) const { return at[i]; }
};

// How kWidth channels of a row get to their places: at once where they lie together, else one by one.
template <typename Element, int kWidth, int kChannelStride>
struct Move {
  NITRO_DEVICE void put(Element* to, const Pack<Element, kWidth>& held) {
#pragma unroll
    for (int e = 0; e < kWidth; e++) to[e * kChannelStride] = held.at[e];
  }
};
template <typename Element, int kWidth>
struct Move<Element, kWidth, 1> {
  NITRO_DEVICE void put(Element* to, const Pack<Element, kWidth>& held) {
    *reinterpret_cast<Pack<Element, kWidth>*>(to) = held;
  }
};

// The place in the sum over filter taps and channels that both operands of a convolution walk through together.
template <int kFilter, int kDepth>
struct Walk {
  int channel;
  int channels;
  int tap;
  int pixel;  // elements from the pixel under the first tap to the one under this tap
  int down;   // the same from the last pixel of one row of the filter to the first of the next
  NITRO_METHOD void start(int channels_, int row_length) {
    channel = 0;
    channels = channels_;
    tap = 0;
    pixel = 0;
    down = row_length - (kFilter - 1) * channels;
  }
  NITRO_METHOD void advance() {
    channel += kDepth;
    if (kFilter > 1 && channel >= channels) {
      channel = 0;
      tap++;
      pixel += tap % kFilter ? channels : down;
    }
  }
  // From now on everything is beyond an edge.
  NITRO_METHOD void end() { channels = 0; }
  NITRO_METHOD int pixel_offset() const { return kFilter == 1 ? channel : pixel + channel; }
  NITRO_METHOD int weight_offset() const { return kFilter == 1 ? channel : tap * channels + channel; }
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
  typedef Move<Element, kWidth, Layout::kChannelStride> Mover;
  static constexpr int kAcross = kDepth / kWidth;
  static constexpr int kCopying = copying_threads(kTile * kAcross, kThreads);
  static constexpr int kLoads = kTile * kAcross / kCopying;
  static constexpr int kRowStep = kCopying / kAcross;
  static_assert(kCopying % kAcross == 0 && kLoads * kRowStep == kTile, "the threads must tile the slab");
  const Element* from[kLoads];
  int taps[kLoads];  // bit r * kFilter + s: the pixel under this tap lies inside the image
  int first;
  Places<Layout, kLoads, kRowStep> places;
  Vector held[kLoads];

  NITRO_METHOD bool idle() const { return kCopying < kThreads && first < 0; }

  NITRO_METHOD void start(const Element* x, const Image& image, int rows, int channels, int origin, int thread) {
    const int row = thread / kAcross;
    first = thread % kAcross * kWidth;
    places.start(row, first);
    if (thread >= kCopying) first = -1;
    if (idle()) return;
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
  NITRO_METHOD bool inside(const Position& walk, int i) const {
    return (taps[i] >> walk.tap & 1) && walk.channel + first < walk.channels;
  }
  template <class Position>
  NITRO_METHOD void copy(const Position& walk, Shared stage) const {
    if (idle()) return;
    const int ahead = walk.pixel_offset();
#pragma unroll
    for (int i = 0; i < kLoads; i++)
      copy_async<sizeof(Vector)>(stage + places.of(i) * static_cast<int>(sizeof(Element)), from[i] + ahead,
                                 inside(walk, i));
  }
  // Into a corner of shared memory that only this thread reads, from where `turn` brings them to their places.
  template <class Position>
  NITRO_METHOD void copy_aside(const Position& walk, Shared corner) const {
    if (idle()) return;
    const int ahead = walk.pixel_offset();
#pragma unroll
    for (int i = 0; i < kLoads; i++)
      copy_async<sizeof(Vector)>(corner + i * kCopying * static_cast<int>(sizeof(Vector)), from[i] + ahead,
                                 inside(walk, i));
  }
  NITRO_METHOD void turn(const Vector* corner, Element* stage) const {
    if (idle()) return;
#pragma unroll
    for (int i = 0; i < kLoads; i++) {
      const Vector held = corner[i * kCopying];
      Mover::put(stage + places.of(i), held);
    }
  }
  template <class Position>
  NITRO_METHOD void fetch(const Position& walk) {
    if (idle()) return;
    const int ahead = walk.pixel_offset();
#pragma unroll
    for (int i = 0; i < kLoads; i++)
      held[i] = inside(walk, i) ? load_shared_by_all<Element, kWidth>(from[i] + ahead) : zero_pack<Element, kWidth>();
  }
  NITRO_METHOD void put(Element* stage) const {
    if (idle()) return;
#pragma unroll
    for (int i = 0; i < kLoads; i++) Mover::put(stage + places.of(i), held[i]);
  }
};

// kTile rows of kDepth channels: KRSC weights under one filter tap, or the rows of an [outputs, channels] matrix.
template <typename Element, int kFilter, int kTile, int kDepth, int kThreads, int kWidth, class Layout>
struct WeightOperand {
  typedef Pack<Element, kWidth> Vector;
  typedef Move<Element, kWidth, Layout::kChannelStride> Mover;
  static constexpr int kAcross = kDepth / kWidth;
  static constexpr int kCopying = copying_threads(kTile * kAcross, kThreads);
  static constexpr int kLoads = kTile * kAcross / kCopying;
  static constexpr int kRowStep = kCopying / kAcross;
  static_assert(kCopying % kAcross == 0 && kLoads * kRowStep == kTile, "the threads must tile the slab");
  const Element* from;
  int step;  // elements of a row
  int left;  // rows of the weights from this thread's first row on
  int first;
  Places<Layout, kLoads, kRowStep> places;
  Vector held[kLoads];

  NITRO_METHOD bool idle() const { return kCopying < kThreads && first < 0; }

  NITRO_METHOD void start(const Element* weights, int outputs, int channels, int origin, int thread) {
    const int row = thread / kAcross;
    first = thread % kAcross * kWidth;
    const int length = kFilter * kFilter * channels;
    from = weights + static_cast<long long>(length) * (origin + row) + first;
    step = length;
    left = outputs - origin - row;
    places.start(row, first);
    if (thread >= kCopying) first = -1;
  }
  template <class Position>
  NITRO_METHOD const Element* at(const Position& walk, int i) const {
    return from + walk.weight_offset() + static_cast<long long>(step) * (i * kRowStep);
  }
  template <class Position>
  NITRO_METHOD void copy(const Position& walk, Shared stage) const {
    if (idle()) return;
    const bool within = walk.channel + first < walk.channels;
#pragma unroll
    for (int i = 0; i < kLoads; i++)
      copy_async<sizeof(Vector)>(stage + places.of(i) * static_cast<int>(sizeof(Element)), at(walk, i),
                                 within && i * kRowStep < left);
  }
  template <class Position>
  NITRO_METHOD void copy_aside(const Position& walk, Shared corner) const {
    if (idle()) return;
    const bool within = walk.channel + first < walk.channels;
#pragma unroll
    for (int i = 0; i < kLoads; i++)
      copy_async<sizeof(Vector)>(corner + i * kCopying * static_cast<int>(sizeof(Vector)), at(walk, i),
                                 within && i * kRowStep < left);
  }
  NITRO_METHOD void turn(const Vector* corner, Element* stage) const {
    if (idle()) return;
#pragma unroll
    for (int i = 0; i < kLoads; i++) {
      const Vector held = corner[i * kCopying];
      Mover::put(stage + places.of(i), held);
    }
  }
  template <class Position>
  NITRO_METHOD void fetch(const Position& walk) {
    if (idle()) return;
    const bool within = walk.channel + first < walk.channels;
#pragma unroll
    for (int i = 0; i < kLoads; i++)
      held[i] = within && i * kRowStep < left ? load_shared_by_all<Element, kWidth>(at(walk, i))
                                              : zero_pack<Element, kWidth>();
  }
  NITRO_METHOD void put(Element* stage) const {
    if (idle()) return;
#pragma unroll
    for (int i = 0; i < kLoads; i++) Mover::put(stage + places.of(i), held[i]);
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
    const Shared stages = shared_at(where.shared);
#pragma unroll
    for (int s = 0; s < kStages - 1; s++) {
      if (s < slabs) work.copy(stages + s * kStageBytes);
      commit_copies();
    }
    int read = 0;
    int write = kStages - 1;
#pragma unroll 1
    for (int slab = 0; slab < slabs; slab++) {
      wait_for_copies<kStages - 2>();
      where.barrier();
      if (slab + kStages - 1 < slabs) work.copy(stages + write * kStageBytes);
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

// Asynchronous copies bring whole vectors, so where the elements of a vector belong to different places they are copied
// aside first. Every thread moves what it copied itself, so that takes no barrier more, and no registers over time as
// staging through them would; it happens amid the products of the slab before. `Work` offers copy_aside(corner),
// turn(corner, stage) and multiply(stage, hook, between), which calls between.now() once; kStages slabs are on their way
// or aside, behind two stages to multiply from.
template <class Work, int kStages>
struct Turn {
  const Work& work;
  const char* corner;
  char* stage;
  bool due;
  NITRO_METHOD void now() const {
    if (!due) return;
    wait_for_copies<kStages - 1>();
    work.turn(corner, stage);
  }
};

template <int kStages, int kStageBytes>
struct TurningPipeline {
  template <class Where, class Work, class Hook>
  NITRO_DEVICE void run(const Where& where, Work& work, int slabs, Hook& hook) {
    char* const corner = where.shared + 2 * kStageBytes + where.thread * Work::kCornerBytes;
    const Shared aside = shared_at(corner);
#pragma unroll
    for (int s = 0; s < kStages; s++) {
      if (s < slabs) work.copy_aside(aside + s * kStageBytes);
      commit_copies();
    }
    const Turn<Work, kStages> first = {work, corner, where.shared, slabs > 0};
    first.now();
    int slot = 0;
#pragma unroll 1
    for (int slab = 0; slab < slabs; slab++) {
      const int read = slab & 1;
      where.barrier();
      if (slab + kStages < slabs) work.copy_aside(aside + slot * kStageBytes);
      commit_copies();
      slot = slot + 1 == kStages ? 0 : slot + 1;
      const Turn<Work, kStages> next = {work, corner + slot * kStageBytes, where.shared + (read ^ 1) * kStageBytes,
                                        slab + 1 < slabs};
      work.multiply(where.shared + read * kStageBytes, hook, next);
    }
    wait_for_copies<0>();
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
