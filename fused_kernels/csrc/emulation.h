// Runs the kernels of this folder on a CPU, to check what they compute where no GPU is: every thread of a block is a
// fibre, which runs until a barrier or an exchange within its warp. One block runs after another.
//
// It is strict where a GPU is not: shared memory starts as NaN, and is NaN where asynchronous copies will arrive, which
// they do only when they are waited for; products of warpgroups (wgmma) are computed only when they are waited for, from
// what was shown to them; misaligned packs are an error, and a barrier that not all threads reach is reported instead of
// hanging. What it cannot show are other races between warps that run at the same time; that is what compute-sanitizer is
// for.
//
// NITRO_EMULATION is the architecture to follow, for instance 800 for the paths of sm_80.
#ifndef NITRO_EMULATION_H
#define NITRO_EMULATION_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <vector>

#define NITRO_DEVICE static inline
#define NITRO_METHOD inline
#define __global__
#define __launch_bounds__(...)

namespace nitro_emulation {

struct PendingCopy {
  void* to;
  const void* from;
  int bytes;
  bool valid;
};

// A product of a warpgroup (wgmma) on its way. It is computed when it is waited for, which is as late as it can read.
struct PendingProduct {
  float (*sums)[4];
  int eights;
  unsigned long long left;
  unsigned long long right;
};

struct Fibre {
  ucontext_t context;
  char* stack = nullptr;
  const unsigned* watched = nullptr;  // waits until this is no longer `seen`
  unsigned seen = 0;
  bool done = true;
  std::vector<std::vector<PendingCopy>> groups;
  std::vector<PendingCopy> open;
  std::vector<PendingCopy> unseen;  // copies that arrived, and that products do not see yet
  std::vector<std::vector<PendingProduct>> products;
  std::vector<PendingProduct> open_products;
};

struct Warp {
  unsigned generation = 0;
  int arrived = 0;
  alignas(16) char values[2][32][64];
};

struct Barrier {
  unsigned generation = 0;
  int arrived = 0;
};

struct Machine {
  ucontext_t scheduler;
  std::vector<Fibre> fibres;
  std::vector<Warp> warps;
  Barrier barriers[16];
  std::vector<char> shared_space;
  char* shared = nullptr;
  std::vector<char> shown;  // shared memory as products of warpgroups see it
  int current = 0;
  int block = 0;
  int grid = 0;
  int sms = 1;
  char problem[256] = "";
  void (*kernel)(void**) = nullptr;
  void** arguments = nullptr;
};

static Machine machine;
static const size_t kStackBytes = 256 * 1024;

inline void report(const char* text) {
  if (!machine.problem[0])
    snprintf(machine.problem, sizeof(machine.problem), "block %d, thread %d: %s", machine.block, machine.current, text);
}

inline void wait_while_unchanged(const unsigned* watched, unsigned seen) {
  Fibre& fibre = machine.fibres[machine.current];
  fibre.watched = watched;
  fibre.seen = seen;
  swapcontext(&fibre.context, &machine.scheduler);
}

// Gives every lane of the warp the values of all 32; returns them.
template <class Value>
inline const char* exchange(const Value& value) {
  static_assert(sizeof(Value) <= 64, "a slot holds 64 bytes");
  Warp& warp = machine.warps[machine.current / 32];
  const unsigned seen = warp.generation;
  char(*values)[64] = warp.values[seen & 1];
  memcpy(values[machine.current % 32], &value, sizeof(Value));
  if (++warp.arrived == 32) {
    warp.arrived = 0;
    warp.generation++;
  } else {
    wait_while_unchanged(&warp.generation, seen);
  }
  return &values[0][0];
}
template <class Value>
inline Value value_of(const char* values, int lane) {
  Value value;
  memcpy(&value, values + lane * 64, sizeof(Value));
  return value;
}

inline void arrive(int id, int threads) {
  Barrier& barrier = machine.barriers[id];
  const unsigned seen = barrier.generation;
  if (++barrier.arrived >= threads) {
    barrier.arrived = 0;
    barrier.generation++;
  } else {
    wait_while_unchanged(&barrier.generation, seen);
  }
}

inline void fibre_main() {
  machine.kernel(machine.arguments);
  Fibre& fibre = machine.fibres[machine.current];
  if (!fibre.groups.empty() || !fibre.open.empty()) {
    for (const auto& group : fibre.groups)
      if (!group.empty()) report("ends with copies that nobody waited for");
    if (!fibre.open.empty()) report("ends with copies that were not committed");
  }
  if (!fibre.products.empty() || !fibre.open_products.empty()) report("ends with products that nobody waited for");
  fibre.done = true;
  swapcontext(&fibre.context, &machine.scheduler);
}

inline void run_block(int threads) {
  memset(machine.shared_space.data(), 0xff, machine.shared_space.size());
  memset(machine.shown.data(), 0xff, machine.shown.size());
  machine.warps.assign((threads + 31) / 32, Warp());
  for (auto& barrier : machine.barriers) barrier = Barrier();
  for (int i = 0; i < threads; i++) {
    Fibre& fibre = machine.fibres[i];
    if (!fibre.stack) fibre.stack = static_cast<char*>(malloc(kStackBytes));
    getcontext(&fibre.context);
    fibre.context.uc_stack.ss_sp = fibre.stack;
    fibre.context.uc_stack.ss_size = kStackBytes;
    fibre.context.uc_link = nullptr;
    makecontext(&fibre.context, reinterpret_cast<void (*)()>(fibre_main), 0);
    fibre.watched = nullptr;
    fibre.done = false;
    fibre.groups.clear();
    fibre.open.clear();
    fibre.unseen.clear();
    fibre.products.clear();
    fibre.open_products.clear();
  }
  bool backwards = machine.block % 2 == 1;
  for (bool moved = true; moved; backwards = !backwards) {
    moved = false;
    bool all_done = true;
    for (int n = 0; n < threads; n++) {
      const int i = backwards ? threads - 1 - n : n;
      Fibre& fibre = machine.fibres[i];
      if (fibre.done) continue;
      all_done = false;
      if (fibre.watched && *fibre.watched == fibre.seen) continue;
      fibre.watched = nullptr;
      machine.current = i;
      swapcontext(&machine.scheduler, &fibre.context);
      moved = true;
    }
    if (all_done) return;
  }
  report("the block hangs, because not all threads of a barrier or a warp arrive");
}

inline int run_grid(int grid, int threads, int shared_bytes, int sms, void (*kernel)(void**), void** arguments,
                    char* problem, int problem_size) {
  machine.problem[0] = 0;
  machine.grid = grid;
  machine.sms = sms;
  machine.kernel = kernel;
  machine.arguments = arguments;
  if (static_cast<int>(machine.fibres.size()) < threads) machine.fibres.resize(threads);
  machine.shared_space.resize(shared_bytes + 1024);
  machine.shared = machine.shared_space.data();
  machine.shared += (1024 - reinterpret_cast<uintptr_t>(machine.shared) % 1024) % 1024;
  machine.shown.resize(shared_bytes);
  for (machine.block = 0; machine.block < grid && !machine.problem[0]; machine.block++) run_block(threads);
  snprintf(problem, problem_size, "%s", machine.problem);
  return machine.problem[0] ? 1 : 0;
}

}  // namespace nitro_emulation

inline float __int_as_float(int bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

namespace nitro {

typedef unsigned int uint32;
typedef unsigned long long uint64;
struct half_t;
template <typename Element, int kCount>
struct Pack;

NITRO_DEVICE int block_index() { return nitro_emulation::machine.block; }
NITRO_DEVICE int grid_size() { return nitro_emulation::machine.grid; }
NITRO_DEVICE int thread_index() { return nitro_emulation::machine.current; }
NITRO_DEVICE char* dynamic_shared() { return nitro_emulation::machine.shared; }

template <int kId, int kThreads>
NITRO_DEVICE void named_barrier() {
  nitro_emulation::arrive(kId, kThreads);
}
NITRO_DEVICE int anew(int value) { return value; }
template <int kCount>
NITRO_DEVICE void shrink_registers() {}
template <int kCount>
NITRO_DEVICE void grow_registers() {}
NITRO_DEVICE void warp_barrier() { nitro_emulation::exchange(0); }
NITRO_DEVICE float shuffle_xor(float value, int mask) {
  const int lane = nitro_emulation::machine.current % 32;
  return nitro_emulation::value_of<float>(nitro_emulation::exchange(value), lane ^ mask);
}
NITRO_DEVICE uint32 shuffle_xor(uint32 value, int mask) {
  const int lane = nitro_emulation::machine.current % 32;
  return nitro_emulation::value_of<uint32>(nitro_emulation::exchange(value), lane ^ mask);
}
NITRO_DEVICE uint32 shuffle_first(uint32 value) {
  return nitro_emulation::value_of<uint32>(nitro_emulation::exchange(value), 0);
}
NITRO_DEVICE int shuffle_from(int value, int lane) {
  return nitro_emulation::value_of<int>(nitro_emulation::exchange(value), lane);
}
NITRO_DEVICE float shuffle_from(float value, int lane) {
  return nitro_emulation::value_of<float>(nitro_emulation::exchange(value), lane);
}

// Ids of SMs need not be dense: every other one is missing here.
NITRO_DEVICE uint32 sm_id() { return nitro_emulation::machine.block % nitro_emulation::machine.sms * 2; }
NITRO_DEVICE uint32 sm_id_count() { return nitro_emulation::machine.sms * 2; }
NITRO_DEVICE uint32 atomic_increment(uint32* counter) { return (*counter)++; }
NITRO_DEVICE void memory_fence() {}

NITRO_DEVICE float half_bits_to_float(unsigned short half) {
  const uint32 sign = (half & 0x8000u) << 16, exponent = half >> 10 & 31, fraction = half & 1023;
  if (exponent == 0) return ldexpf(static_cast<float>(fraction), -24) * (sign ? -1.f : 1.f);
  const uint32 bits = sign | (exponent == 31 ? 255 : exponent + 112) << 23 | fraction << 13;
  float value;
  memcpy(&value, &bits, 4);
  return value;
}
NITRO_DEVICE unsigned short float_to_half_bits(float value) {
  uint32 bits;
  memcpy(&bits, &value, 4);
  const unsigned short sign = bits >> 16 & 0x8000;
  const uint32 magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7fff;
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  if (magnitude < 0x38800000) {
    float absolute;
    memcpy(&absolute, &magnitude, 4);
    return sign | static_cast<unsigned short>(nearbyintf(ldexpf(absolute, 24)));
  }
  return sign | static_cast<unsigned short>((magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13);
}
template <class Half>
NITRO_DEVICE float half_to_float(Half value) {
  return half_bits_to_float(value.bits);
}
template <class Half = half_t>
NITRO_DEVICE Half float_to_half(float value) {
  Half half;
  half.bits = float_to_half_bits(value);
  return half;
}

NITRO_DEVICE float power_of_two(float value) { return exp2f(value); }
NITRO_DEVICE float reciprocal(float value) { return 1.f / value; }
NITRO_DEVICE float reciprocal_root(float value) { return 1.f / sqrtf(value); }

template <typename Element>
NITRO_DEVICE Element* rows_on(Element* from, int rows, int row_elements) {
  return from + static_cast<long long>(rows) * row_elements;
}
NITRO_DEVICE void check_alignment(const void* pointer, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(pointer) % bytes) nitro_emulation::report("misaligned access");
}
template <typename Element, int kCount>
NITRO_DEVICE Pack<Element, kCount> load_once(const Element* from) {
  check_alignment(from, sizeof(Element) * kCount);
  Pack<Element, kCount> pack;
  memcpy(&pack, from, sizeof(pack));
  return pack;
}
template <typename Element, int kCount>
NITRO_DEVICE Pack<Element, kCount> load_shared_by_all(const Element* from) {
  return load_once<Element, kCount>(from);
}
template <typename Element, int kCount>
NITRO_DEVICE void store_once(Element* to, const Pack<Element, kCount>& pack) {
  check_alignment(to, sizeof(Element) * kCount);
  memcpy(to, &pack, sizeof(pack));
}

typedef char* Shared;
NITRO_DEVICE Shared shared_at(const void* pointer) { return static_cast<char*>(const_cast<void*>(pointer)); }

template <int kBytes>
NITRO_DEVICE void copy_async(Shared to_shared, const void* from, bool valid) {
  check_alignment(to_shared, kBytes);
  if (valid) check_alignment(from, kBytes);
  auto& machine = nitro_emulation::machine;
  machine.fibres[machine.current].open.push_back({to_shared, from, kBytes, valid});
  // It may arrive at any time from now on: whoever still reads what was there finds out.
  memset(to_shared, 0xff, kBytes);
  memset(machine.shown.data() + (to_shared - machine.shared), 0xff, kBytes);
}
NITRO_DEVICE void commit_copies() {
  auto& fibre = nitro_emulation::machine.fibres[nitro_emulation::machine.current];
  fibre.groups.push_back(fibre.open);
  fibre.open.clear();
}
template <int kPending>
NITRO_DEVICE void wait_for_copies() {
  auto& groups = nitro_emulation::machine.fibres[nitro_emulation::machine.current].groups;
  while (groups.size() > kPending) {
    for (const auto& copy : groups.front()) {
      if (copy.valid)
        memcpy(copy.to, copy.from, copy.bytes);
      else
        memset(copy.to, 0, copy.bytes);
      nitro_emulation::machine.fibres[nitro_emulation::machine.current].unseen.push_back(copy);
    }
    groups.erase(groups.begin());
  }
}

struct FourWords {
  uint32 at[4];
};
struct SixWords {
  uint32 at[6];
};
struct EightWords {
  uint32 at[8];
};
NITRO_DEVICE float low_half(uint32 word) { return half_bits_to_float(word & 0xffff); }
NITRO_DEVICE float high_half(uint32 word) { return half_bits_to_float(word >> 16); }

NITRO_DEVICE void load_matrices(uint32 (&fragment)[4], Shared row) {
  check_alignment(row, 16);
  const int lane = nitro_emulation::machine.current % 32;
  const char* rows = nitro_emulation::exchange(static_cast<const void*>(row));
  for (int m = 0; m < 4; m++)
    memcpy(&fragment[m],
           static_cast<const char*>(nitro_emulation::value_of<const void*>(rows, m * 8 + lane / 4)) + lane % 4 * 4, 4);
}
NITRO_DEVICE void multiply_m16n8k16(float (&sum)[4], const uint32 (&left)[4], uint32 right0, uint32 right1) {
  const int lane = nitro_emulation::machine.current % 32;
  const SixWords mine = {{left[0], left[1], left[2], left[3], right0, right1}};
  const char* all = nitro_emulation::exchange(mine);
  for (int k = 0; k < 16; k++) {
    const int holder = k % 8 / 2;
    for (int e = 0; e < 4; e++) {
      const uint32 a = nitro_emulation::value_of<SixWords>(all, lane / 4 * 4 + holder).at[k / 8 * 2 + e / 2];
      const uint32 b = nitro_emulation::value_of<SixWords>(all, (lane % 4 * 2 + e % 2) * 4 + holder).at[4 + k / 8];
      sum[e] = k % 2 ? fmaf(high_half(a), high_half(b), sum[e]) : fmaf(low_half(a), low_half(b), sum[e]);
    }
  }
}

NITRO_DEVICE void wmma_load_left(uint32 (&fragment)[8], const half_t* tile, int stride) {
  check_alignment(tile, 32);
  const int lane = nitro_emulation::machine.current % 32;
  memset(fragment, 0, sizeof(fragment));
  memcpy(fragment, reinterpret_cast<const char*>(tile) + (lane / 2 * stride + lane % 2 * 8) * 2, 16);
}
NITRO_DEVICE void wmma_load_right(uint32 (&fragment)[8], const half_t* tile, int stride) {
  wmma_load_left(fragment, tile, stride);
}
NITRO_DEVICE void wmma_multiply(float (&sum)[8], const uint32 (&left)[8], const uint32 (&right)[8]) {
  const int lane = nitro_emulation::machine.current % 32;
  EightWords mine;
  memcpy(mine.at, left, 16);
  memcpy(mine.at + 4, right, 16);
  const char* all = nitro_emulation::exchange(mine);
  for (int e = 0; e < 8; e++) {
    const int column = lane % 2 * 8 + e;
    for (int k = 0; k < 16; k++) {
      const uint32 a = nitro_emulation::value_of<EightWords>(all, lane / 2 * 2 + k / 8).at[k % 8 / 2];
      const uint32 b = nitro_emulation::value_of<EightWords>(all, column * 2 + k / 8).at[4 + k % 8 / 2];
      sum[e] = k % 2 ? fmaf(high_half(a), high_half(b), sum[e]) : fmaf(low_half(a), low_half(b), sum[e]);
    }
  }
}
NITRO_DEVICE void wmma_store(float* tile, const float (&sum)[8], int stride) {
  check_alignment(tile, 32);
  const int lane = nitro_emulation::machine.current % 32;
  memcpy(tile + lane / 2 * stride + lane % 2 * 8, sum, 32);
}

// Products of warpgroups. Every thread computes its own sums, from the operands that the descriptors lead to. Shared
// memory begins at 1024 here, as on sm_90.
static const uint32 kSharedStart = 1024;
NITRO_DEVICE uint32 shared_number(Shared address) {
  return static_cast<uint32>(address - nitro_emulation::machine.shared) + kSharedStart;
}
NITRO_DEVICE void show_to_products() {
  auto& machine = nitro_emulation::machine;
  auto& unseen = machine.fibres[machine.current].unseen;
  for (const auto& copy : unseen)
    memcpy(machine.shown.data() + (static_cast<char*>(copy.to) - machine.shared), copy.to, copy.bytes);
  unseen.clear();
}
// 16 channels of a row of an operand.
NITRO_DEVICE void operand_row(uint64 descriptor, int row, float (&out)[16]) {
  auto& machine = nitro_emulation::machine;
  const uint32 start = (descriptor & 0x3fff) << 4, eight_rows = (descriptor >> 32 & 0x3fff) << 4;
  if (descriptor >> 62 != 1 || (descriptor >> 49 & 7) != 0)
    nitro_emulation::report("a descriptor asks for another order than 128 swizzled bytes from a multiple of 1024 on");
  for (int k = 0; k < 16; k++) {
    uint32 at = start + row / 8 * eight_rows + row % 8 * 128 + k * 2;
    at = (at ^ (at >> 3 & 0x70)) - kSharedStart;
    unsigned short bits = 0xffff;
    if (at + 2 > machine.shown.size())
      nitro_emulation::report("a descriptor leads out of shared memory");
    else
      memcpy(&bits, machine.shown.data() + at, 2);
    out[k] = half_bits_to_float(bits);
  }
}
NITRO_DEVICE void compute_product(const nitro_emulation::PendingProduct& product) {
  const int thread = nitro_emulation::machine.current % 128;
  const int row = thread / 32 * 16 + thread % 32 / 4;
  float left[2][16], right[16];
  for (int below = 0; below < 2; below++) operand_row(product.left, row + below * 8, left[below]);
  for (int j = 0; j < product.eights; j++) {
    for (int e = 0; e < 2; e++) {
      operand_row(product.right, j * 8 + thread % 4 * 2 + e, right);
      for (int below = 0; below < 2; below++) {
        float& sum = product.sums[j][below * 2 + e];
        for (int k = 0; k < 16; k++) sum = fmaf(left[below][k], right[k], sum);
      }
    }
  }
}
template <int kEights>
struct WarpgroupProduct {
  NITRO_DEVICE void issue(float (&sum)[kEights][4], uint64 left, uint64 right) {
    nitro_emulation::machine.fibres[nitro_emulation::machine.current].open_products.push_back(
        {sum, kEights, left, right});
  }
};
NITRO_DEVICE void begin_products() { warp_barrier(); }
NITRO_DEVICE void commit_products() {
  auto& fibre = nitro_emulation::machine.fibres[nitro_emulation::machine.current];
  fibre.products.push_back(fibre.open_products);
  fibre.open_products.clear();
}
template <int kPending>
NITRO_DEVICE void wait_for_products() {
  auto& groups = nitro_emulation::machine.fibres[nitro_emulation::machine.current].products;
  while (groups.size() > kPending) {
    for (const auto& product : groups.front()) compute_product(product);
    groups.erase(groups.begin());
  }
}
NITRO_DEVICE void pin(float&) {}

}  // namespace nitro
#endif
