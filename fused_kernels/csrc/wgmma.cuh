// The same bodies as tensor.cuh by wgmma, for sm_90 alone: four warps issue a product of 64 rows at once, which reads both
// operands from shared memory and runs on by itself. The warps' issue slots are left to what else there is to do: to copy
// later slabs, and to memory warps beside.
#ifndef NITRO_WGMMA_CUH
#define NITRO_WGMMA_CUH
#include "tensor.cuh"

namespace nitro {

// Where a product finds an operand: rows of 128 bytes, whose 16-byte chunks are exchanged by the row as SwizzledRows<64>
// has it. The hardware takes the row from bits 7 to 9 of the address, so stages begin at multiples of 1024 bytes. From
// PTX ISA, "Matrix Descriptor Format"; an operand of 16 channels begins 32 bytes behind the one before.
NITRO_DEVICE uint64 swizzled_operand(Shared at) {
  constexpr uint64 kEightRows = 8 * 128;
  constexpr uint64 kSwizzle128 = 1;
  return (shared_number(at) & 0x3ffff) >> 4 | static_cast<uint64>(1) << 16 | kEightRows >> 4 << 32 | kSwizzle128 << 62;
}

// The kGroupM x kGroupN part of the tile that four warps have.
template <int kGroupM, int kGroupN>
struct WarpGroup : Fragments<kGroupM / 64, kGroupN / 8, 64> {
  static constexpr int kRowBytes = 128;
  int left_place;  // of the group's rows, in bytes of a stage
  int right_place;

  // Leaves products of the slab in `stage` on their way, which read it until they are waited for. A warp can issue few
  // of them ahead, so what else it has to do happens in between: others.part(k) behind the products of 16 channels.
  template <class Others>
  NITRO_METHOD void multiply(Shared stage, const Others& others) {
    const uint64 left = swizzled_operand(stage + left_place);
    const uint64 right = swizzled_operand(stage + right_place);
    begin_products();
#pragma unroll
    for (int k = 0; k < 4; k++) {
#pragma unroll
      for (int i = 0; i < kGroupM / 64; i++)
        WarpgroupProduct<kGroupN / 8>::issue(this->sum[i], left + (i * 64 * kRowBytes + k * 32) / 16, right + k * 32 / 16);
      others.part(k);
    }
    commit_products();
  }
  // Waits for all products.
  NITRO_METHOD void settle() {
    wait_for_products<0>();
#pragma unroll
    for (int i = 0; i < kGroupM / 64; i++) {
#pragma unroll
      for (int j = 0; j < kGroupN / 8; j++) {
#pragma unroll
        for (int e = 0; e < 4; e++) pin(this->sum[i][j][e]);
      }
    }
  }
};

// A slab's copies, one operand behind the other. Without a branch: products on their way across one are slow.
template <class Operands>
struct SlabCopies {
  const Operands& operands;
  Shared stage;
  NITRO_METHOD void part(int k) const {
    if (k == 0) operands.copy_pixels(stage);
    if (k == 1) operands.copy_weights(stage);
  }
};

// kGroupM x kGroupN: the part of four warps. With kAhead the products of a slab are issued while those of the slab before
// still run, which takes one of the kStages stages more; without, the tensor cores wait at the barrier between slabs.
// kChain: a block computes several tiles, see tiles(), which pays where a block has an SM for itself.
template <int kFilter, int kTileM, int kTileN, int kGroupM, int kGroupN, int kStages, bool kAhead, bool kChain>
struct WgmmaConvolution {
  typedef TensorParams Params;
  static constexpr bool kBlockGranular = true;
  static constexpr int kGroupsDown = kTileM / kGroupM;
  static constexpr int kThreads = kGroupsDown * (kTileN / kGroupN) * 128;
  static constexpr int kDepth = 64;
  static constexpr int kBehind = kAhead ? 1 : 0;  // slabs whose products still run when those of the next are issued
  static constexpr int kCopied = kStages - 1 - kBehind;  // slabs on their way when the products of one are issued
  static_assert(kCopied >= 1, "a slab arrives while others are multiplied");
  static_assert(kTileM % 8 == 0 && kTileN % 8 == 0, "stages begin at multiples of 1024 bytes");
  typedef SwizzledRows<kDepth> Layout;
  typedef TileOperands<kFilter, kTileM, kTileN, kDepth, kThreads, 8, Layout> Operands;
  static constexpr int kStageBytes = Operands::kStageBytes;
  static constexpr int kSharedBytes = kStages * kStageBytes;
  static constexpr int kHookSteps = 1;

  NITRO_DEVICE int units(const Params& params) { return Operands::units(params); }
  NITRO_DEVICE int slabs(const Params& params) { return Walk<kFilter, kDepth>::slabs(params.channels); }

  struct Work : Operands {
    WarpGroup<kGroupM, kGroupN> group;
  };

  // Leaves the first slabs of a unit's tile on their way.
  template <class Where>
  NITRO_DEVICE void begin(const Params& params, const Where& where, int unit, int slabs, Work& work) {
    const Shared stages = shared_at(where.shared);
    work.start(params, Operands::tile_top(params, unit), Operands::tile_start(params, unit), where.thread);
#pragma unroll
    for (int s = 0; s < kCopied; s++) {
      if (s < slabs) work.copy(stages + s * kStageBytes);
      commit_copies();
    }
  }
  // What begin() left on its way, and the rest.
  template <class Where, class Hook>
  NITRO_DEVICE void multiply(const Where& where, Work& work, int slabs, Hook& hook) {
    const Shared stages = shared_at(where.shared);
    work.group.clear();
    int read = 0;
    int write = kCopied;
#pragma unroll 1
    for (int slab = 0; slab < slabs; slab++) {
      wait_for_copies<kCopied - 1>();
      show_to_products();
      // Behind the barrier every thread's part of the slab is there, and no group reads the stage that is filled next.
      wait_for_products<kBehind>();
      where.barrier();
      // Behind the last slab zeros arrive, from nowhere, in stages that nobody reads.
      if (slab + kCopied >= slabs) work.walk.end();
      const SlabCopies<Operands> next = {work, stages + write * kStageBytes};
      work.group.multiply(stages + read * kStageBytes, next);
      work.walk.advance();
      commit_copies();
      hook.step();
      read = read + 1 == kStages ? 0 : read + 1;
      write = write + 1 == kStages ? 0 : write + 1;
    }
    work.group.settle();
    wait_for_copies<0>();
    // The next tile may overwrite the stages only once no group reads them.
    where.barrier();
  }

  // The four warps that this thread belongs to. The same in all lanes, and the compiler must see that it is.
  template <class Where>
  NITRO_DEVICE int group_of(const Where& where) {
    return static_cast<int>(shuffle_first(static_cast<uint32>(where.warp() / 4)));
  }
  template <class Where>
  NITRO_DEVICE void place(const Where& where, Work& work) {
    const int group = group_of(where);
    work.group.left_place = group % kGroupsDown * kGroupM * 128;
    work.group.right_place = (kTileM + group / kGroupsDown * kGroupN) * 128;
  }
  template <class Where>
  NITRO_DEVICE void write(const Params& params, const Where& where, int unit, Work& work) {
    const int group = group_of(where);
    const int top = Operands::tile_top(params, unit) + group % kGroupsDown * kGroupM + where.warp() % 4 * 16;
    work.group.write(params, where, top, Operands::tile_start(params, unit) + group / kGroupsDown * kGroupN, true);
  }

  template <class Where, class Hook>
  NITRO_DEVICE void tile(const Params& params, const Where& where, int unit, Hook& hook) {
    Work work;
    begin(params, where, unit, slabs(params), work);
    place(where, work);
    multiply(where, work, slabs(params), hook);
    write(params, where, unit, work);
  }

  // Every `stride`-th unit from one on. While a tile is written, the first slabs of the next are on their way.
  static constexpr bool kChained = kChain;
  template <class Where, class Hook>
  NITRO_DEVICE void tiles(const Params& params, const Where& where, int unit, int end, int stride, Hook& hook) {
    if (unit >= end) return;
    Work work;
    begin(params, where, unit, slabs(params), work);
    place(where, work);
    bool more;
#pragma unroll 1
    do {
      multiply(where, work, slabs(params), hook);
      more = end - unit > stride;
      Where same = where;
      same.thread = anew(where.thread);
      if (more) begin(params, same, unit + stride, slabs(params), work);
      write(params, same, unit, work);
      unit += more ? stride : 0;
    } while (more);
  }
};

}  // namespace nitro
#endif
