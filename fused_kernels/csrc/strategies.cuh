// Ways to run one body or two in one launch. Each function here is the inside of a kernel; the generated source gives it
// bodies, sizes and launch bounds (see strategies.py, which mirrors the choice of block roles in mapping.py).
//
// Bodies only supply units. Which block or warp computes a unit, and when, is decided here and cannot change its bits.
//
// Nothing waits for another block. Loops end because a counter only grows, so whatever the counters hold no launch can
// hang; a launch that found them in a state that it cannot have left behind says so in Counters::fault.
#ifndef NITRO_STRATEGIES_CUH
#define NITRO_STRATEGIES_CUH
#include "memory.cuh"

namespace nitro {

// Zeroed by the host once; the last block of every launch zeroes it again, so that a captured graph can replay.
struct Counters {
  uint32 taken[2];   // units given out, by operation
  uint32 finished;   // blocks, or groups of warps
  uint32 fault;      // stays: the host reads it
  uint32 turns[1];   // tickets by SM, as many as the host allocated
};

// Two words of the launch, not of a body: what one thread drew for all threads of its group.
struct Slot {
  int operation;
  int unit;
};

template <bool kBlockGranular>
struct Granularity;

// The context for one more unit: a tile needs all registers, so none may hold what follows from the thread's number.
template <class Where>
NITRO_DEVICE Where once_more(const Where& where) {
  Where same = where;
  same.thread = anew(where.thread);
  return same;
}

// Whether a body has a way of its own to compute several units of a block (tiles), one overlapping with the next.
template <class Body>
NITRO_DEVICE constexpr bool is_chained(decltype(&Body::kChained)) {
  return Body::kChained;
}
template <class Body>
NITRO_DEVICE constexpr bool is_chained(...) {
  return false;
}
template <bool kChained>
struct Tiles {
  template <class Body, class Where, class Hook>
  NITRO_DEVICE void run(const typename Body::Params& params, const Where& where, Range range, Hook& hook) {
    Body::tiles(params, where, range.first + where.block, range.first + range.count, where.blocks, hook);
  }
};
template <>
struct Tiles<false> {
  template <class Body, class Where, class Hook>
  NITRO_DEVICE void run(const typename Body::Params& params, const Where& where, Range range, Hook& hook) {
#pragma unroll 1
    for (int unit = where.block; unit < range.count; unit += where.blocks)
      Body::tile(params, once_more(where), range.first + unit, hook);
  }
};

// All threads of the block compute one unit together.
template <>
struct Granularity<true> {
  template <class Body>
  NITRO_DEVICE int blocks(Range range, int) {
    return range.count;
  }
  template <class Body, class Where>
  NITRO_DEVICE void block(const typename Body::Params& params, const Where& where, Range range, int block) {
    NoHook hook;
    if (block < range.count) Body::tile(params, where, range.first + block, hook);
  }
  template <class Body, class Where>
  NITRO_DEVICE void strided(const typename Body::Params& params, const Where& where, Range range) {
    NoHook hook;
    Tiles<is_chained<Body>(nullptr)>::template run<Body>(params, where, range, hook);
  }
  // Takes units from a counter until none is left. The next ticket is drawn while the present unit is computed.
  template <class Body, class Where>
  NITRO_DEVICE void drain(const typename Body::Params& params, const Where& where, Range range, uint32* counter,
                          volatile Slot* slot) {
    NoHook hook;
    uint32 next = 0;
    if (where.thread == 0) slot->unit = static_cast<int>(atomic_increment(counter));
    where.barrier();
    uint32 unit = static_cast<uint32>(slot->unit);
    where.barrier();
#pragma unroll 1
    while (unit < static_cast<uint32>(range.count)) {
      if (where.thread == 0) next = atomic_increment(counter);
      Body::tile(params, once_more(where), range.first + static_cast<int>(unit), hook);
      if (where.thread == 0) slot->unit = static_cast<int>(next);
      where.barrier();
      unit = static_cast<uint32>(slot->unit);
      where.barrier();
    }
  }
  // How many take from the counter; each of them draws one ticket too many.
  NITRO_DEVICE int takers(int) { return 1; }
};

// Where a warp has its next unit from: at a stride, or from a counter. -1 when none is left.
struct StridedUnits {
  int unit;
  int stride;
  int end;
  NITRO_METHOD int next() {
    if (unit >= end) return -1;
    const int mine = unit;
    unit = end - unit > stride ? unit + stride : end;
    return mine;
  }
};
struct DrawnUnits {
  uint32* counter;
  uint32 count;
  int lane;
  uint32 drawn;  // of the first lane; the next ticket is drawn before the present one is needed
  NITRO_METHOD void draw() {
    if (lane == 0) drawn = atomic_increment(counter);
  }
  NITRO_METHOD int next() {
    const uint32 mine = shuffle_first(drawn);
    if (mine >= count) return -1;
    draw();
    return static_cast<int>(mine);
  }
};

// Every warp computes units of its own.
template <>
struct Granularity<false> {
  template <class Body>
  NITRO_DEVICE int blocks(Range range, int warps) {
    return ceil_div(range.count, warps);
  }
  template <class Body, class Where>
  NITRO_DEVICE void block(const typename Body::Params& params, const Where& where, Range range, int block) {
    const int unit = block * Where::kWarps + where.warp();
    if (unit < range.count) Feed<(Body::kStages > 0)>::template one<Body>(params, where, range.first + unit);
  }
  template <class Body, class Where>
  NITRO_DEVICE void strided(const typename Body::Params& params, const Where& where, Range range) {
    StridedUnits units = {where.block * Where::kWarps + where.warp(), where.blocks * Where::kWarps, range.count};
    Feed<(Body::kStages > 0)>::template run<Body>(params, where, range.first, units);
  }
  template <class Body, class Where>
  NITRO_DEVICE void drain(const typename Body::Params& params, const Where& where, Range range, uint32* counter,
                          volatile Slot*) {
    DrawnUnits units = {counter, static_cast<uint32>(range.count), where.lane(), 0};
    units.draw();
    Feed<(Body::kStages > 0)>::template run<Body>(params, where, range.first, units);
  }
  NITRO_DEVICE int takers(int warps) { return warps; }
};

// Called by all threads of a group at its end: of a block, or of a part of it with a barrier of its own. The last of all
// groups of the launch checks the counters, if it knows what they must be, and resets them.
template <int kThreads, int kBarrier = 0>
NITRO_DEVICE void finish(Counters* counters, int turns, int thread, int groups, bool known, uint32 first,
                         uint32 second) {
  named_barrier<kBarrier, kThreads>();
  if (thread != 0) return;
  memory_fence();
  if (atomic_increment(&counters->finished) != static_cast<uint32>(groups - 1)) return;
  memory_fence();
  volatile Counters* all = counters;
  if (known && (all->taken[0] != first || all->taken[1] != second)) all->fault = 1;
  all->taken[0] = 0;
  all->taken[1] = 0;
  for (int i = 0; i < turns; i++) all->turns[i] = 0;
  all->finished = 0;
  memory_fence();
}

// ---- one body ---------------------------------------------------------------------------------------------------

// A unit a block (or a warp): grid = blocks of the range. Of a chained body the grid may be smaller.
template <class Body, int kThreads>
NITRO_DEVICE void run_alone(const typename Body::Params& params, Range range) {
  const Context<0, kThreads> where = {block_index(), grid_size(), thread_index(), dynamic_shared()};
  if (is_chained<Body>(nullptr))
    Granularity<Body::kBlockGranular>::template strided<Body>(params, where, range);
  else
    Granularity<Body::kBlockGranular>::template block<Body>(params, where, range, where.block);
}

// A capped grid whose blocks take units until none is left: the throttled half of "elastic" streams.
template <class Body, int kThreads, int kBodyBytes>
NITRO_DEVICE void run_persistent(const typename Body::Params& params, Range range, Counters* counters) {
  typedef Granularity<Body::kBlockGranular> Grain;
  const Context<1, kThreads> where = {block_index(), grid_size(), thread_index(), dynamic_shared()};
  Slot* slot = reinterpret_cast<Slot*>(dynamic_shared() + kBodyBytes);
  Grain::template drain<Body>(params, where, range, &counters->taken[0], slot);
  finish<kThreads>(counters, 0, where.thread, where.blocks, true,
                   static_cast<uint32>(range.count + where.blocks * Grain::takers(kThreads / 32)), 0);
}

// ---- two bodies in one block --------------------------------------------------------------------------------------

// The first warps run one body and the others the second, each with a barrier and shared memory of its own. The first
// has warps on all four schedulers of an SM, the second on two at least. With kFirstRegisters the warps divide the
// registers of the block so, instead of having the same number each.
template <class First, class Second, int kFirstThreads, int kSecondThreads, int kSecondShared, bool kDrain,
          int kBodyBytes, int kFirstRegisters = 0, int kSecondRegisters = 0>
NITRO_DEVICE void run_intra_block(const typename First::Params& first, Range first_range,
                                  const typename Second::Params& second, Range second_range, Counters* counters) {
  static_assert(kFirstThreads % 128 == 0 && kSecondThreads % 64 == 0, "the first warps are on all schedulers");
  static_assert(kFirstRegisters == 0 || kSecondThreads % 128 == 0, "registers move between groups of four warps");
  typedef Granularity<First::kBlockGranular> FirstGrain;
  typedef Granularity<Second::kBlockGranular> SecondGrain;
  const uint32 first_taken =
      static_cast<uint32>(first_range.count + grid_size() * FirstGrain::takers(kFirstThreads / 32));
  const uint32 second_taken =
      static_cast<uint32>(second_range.count + grid_size() * SecondGrain::takers(kSecondThreads / 32));
  const int thread = thread_index();
  Slot* slots = reinterpret_cast<Slot*>(dynamic_shared() + kBodyBytes);
  // The groups have no barrier and no instruction in common: where registers have moved, each keeps its number of them.
  if (thread < kFirstThreads) {
    grow_registers<kFirstRegisters>();
    const Context<1, kFirstThreads> where = {block_index(), grid_size(), thread, dynamic_shared()};
    if (kDrain) {
      FirstGrain::template drain<First>(first, where, first_range, &counters->taken[0], slots);
      finish<kFirstThreads, 1>(counters, 0, where.thread, 2 * grid_size(), true, first_taken, second_taken);
    } else {
      FirstGrain::template strided<First>(first, where, first_range);
    }
  } else {
    shrink_registers<kSecondRegisters>();
    const Context<2, kSecondThreads> where = {block_index(), grid_size(), thread - kFirstThreads,
                                              dynamic_shared() + kSecondShared};
    if (kDrain) {
      SecondGrain::template drain<Second>(second, where, second_range, &counters->taken[1], slots + 1);
      finish<kSecondThreads, 2>(counters, 0, where.thread, 2 * grid_size(), true, first_taken, second_taken);
    } else {
      SecondGrain::template strided<Second>(second, where, second_range);
    }
  }
}

// ---- two bodies in one grid ---------------------------------------------------------------------------------------

struct Role {
  bool second;
  int block;
};

enum Order { kSpread = 0, kProportional = 1, kFirstThenSecond = 2, kSecondThenFirst = 3 };

// sum over s < count of floor(wave * second / all + s / sms), in whole numbers.
template <typename Number>
NITRO_DEVICE Number spread_before(Number wave, Number count, Number second, Number all, Number sms) {
  const Number whole = wave * second / all;
  const Number part = wave * second % all;
  const Number turn = part ? (sms * (all - part) + all - 1) / all : sms;
  return count * whole + (count > turn ? count - turn : 0);
}

// The role of a block under kSpread. Blocks are dispatched over the SMs in turn, so block i is on SM i % sms in wave
// i / sms. Each SM sees the two operations in proportion, by error diffusion along its waves; the error starts at s / sms
// on SM s, which makes the sums of a wave exact as well (Hermite's identity) and keeps the operations from falling in
// step with the SMs: any n waves give each SM at least floor(n * share) blocks of an operation.
template <typename Number>
NITRO_DEVICE Role spread_role(Number block, Number first, Number second, Number sms) {
  const Number all = first + second;
  const Number waves = all / sms;
  const Number wave = block / sms;
  const Number sm = block % sms;
  Number before;
  bool is_second;
  if (wave < waves) {
    const Number here = spread_before<Number>(wave, sm, second, all, sms);
    const Number there = spread_before<Number>(wave + 1, sm, second, all, sms);
    before = spread_before<Number>(wave, sms, second, all, sms) + (there - here);
    is_second = spread_before<Number>(wave + 1, sm + 1, second, all, sms) - there >
                spread_before<Number>(wave, sm + 1, second, all, sms) - here;
  } else {
    const Number given = spread_before<Number>(waves, sms, second, all, sms);
    const Number rest = all - waves * sms;
    before = given + sm * (second - given) / rest;
    is_second = given + (sm + 1) * (second - given) / rest > before;
  }
  const Role role = {is_second, static_cast<int>(is_second ? before : block - before)};
  return role;
}

NITRO_DEVICE Role static_role(int block, int first, int second, int sms, int order) {
  const int all = first + second;
  Role role;
  if (order == kSpread) {
    // Division of 64-bit numbers is slow, and rarely needed.
    const uint64 largest_wave = static_cast<uint64>(all / sms + 1) * second;
    const bool small = largest_wave < 0x80000000ull && static_cast<uint64>(sms) * all < 0x80000000ull;
    role = small ? spread_role<uint32>(block, first, second, sms) : spread_role<uint64>(block, first, second, sms);
  } else if (order == kProportional) {
    const long long before = static_cast<long long>(block) * second / all;
    role.second = static_cast<long long>(block + 1) * second / all > before;
    role.block = static_cast<int>(role.second ? before : block - before);
  } else if (order == kFirstThenSecond) {
    role.second = block >= first;
    role.block = role.second ? block - first : block;
  } else {
    role.second = block < second;
    role.block = role.second ? block : block - second;
  }
  return role;
}

// Runs one virtual block of the body whose role the physical block has. Threads beyond the body's own have nothing to do.
template <class Body, int kThreads>
NITRO_DEVICE void run_role(const typename Body::Params& params, Range range, int block) {
  const Context<1, kThreads> where = {block, 0, thread_index(), dynamic_shared()};
  if (where.thread < kThreads) Granularity<Body::kBlockGranular>::template block<Body>(params, where, range, block);
}

// Whole blocks run one body or the other, in an order fixed before the launch. Grid = blocks of both ranges.
template <class First, class Second, int kFirstThreads, int kSecondThreads>
NITRO_DEVICE void run_inter_block_static(const typename First::Params& first, Range first_range,
                                         const typename Second::Params& second, Range second_range, int sms,
                                         int order) {
  const int firsts = Granularity<First::kBlockGranular>::template blocks<First>(first_range, kFirstThreads / 32);
  const int seconds = Granularity<Second::kBlockGranular>::template blocks<Second>(second_range, kSecondThreads / 32);
  const Role role = static_role(block_index(), firsts, seconds, sms, order);
  if (role.second)
    run_role<Second, kSecondThreads>(second, second_range, role.block);
  else
    run_role<First, kFirstThreads>(first, first_range, role.block);
}

// The ticket of a block on its SM says which operation is due there, a counter of the operation which block of it; when
// an operation has run out the other takes over. Called by one thread.
NITRO_DEVICE Slot take_ticket(Counters* counters, int turns, int firsts, int seconds) {
  const int all = firsts + seconds;
  const uint32 sm = sm_id() % static_cast<uint32>(turns);
  const long long turn = atomic_increment(&counters->turns[sm]);
  // SMs start at different points of the cycle, or all of them would begin with the same operation.
  const long long at = turn + static_cast<long long>(sm) * all / turns;
  const int due = (at + 1) * seconds / all > at * seconds / all ? 1 : 0;
  Slot slot = {-1, 0};
  for (int attempt = 0; attempt < 2 && slot.operation < 0; attempt++) {
    const int operation = due ^ attempt;
    const int limit = operation ? seconds : firsts;
    if (limit == 0) continue;
    const uint32 unit = atomic_increment(&counters->taken[operation]);
    if (unit < static_cast<uint32>(limit)) {
      slot.operation = operation;
      slot.unit = static_cast<int>(unit);
    }
  }
  return slot;
}

// Whole blocks run one body or the other, chosen as they arrive on an SM. Without kDrain the grid has a block for every
// unit of work; with it the grid is capped and blocks come back for more.
template <class First, class Second, int kFirstThreads, int kSecondThreads, bool kDrain, int kBodyBytes>
NITRO_DEVICE void run_inter_block_ticket(const typename First::Params& first, Range first_range,
                                         const typename Second::Params& second, Range second_range,
                                         Counters* counters, int turns) {
  constexpr int kThreads = kFirstThreads > kSecondThreads ? kFirstThreads : kSecondThreads;
  const int thread = thread_index();
  volatile Slot* slot = reinterpret_cast<Slot*>(dynamic_shared() + kBodyBytes);
  const int firsts = Granularity<First::kBlockGranular>::template blocks<First>(first_range, kFirstThreads / 32);
  const int seconds = Granularity<Second::kBlockGranular>::template blocks<Second>(second_range, kSecondThreads / 32);
  int operation;
#pragma unroll 1
  do {
    if (thread == 0) {
      const Slot mine = take_ticket(counters, turns, firsts, seconds);
      slot->operation = mine.operation;
      slot->unit = mine.unit;
      if (!kDrain && mine.operation < 0) {
        volatile Counters* all = counters;
        all->fault = 1;
      }
    }
    named_barrier<0, kThreads>();
    operation = slot->operation;
    const int unit = slot->unit;
    if (operation == 1)
      run_role<Second, kSecondThreads>(second, second_range, unit);
    else if (operation == 0)
      run_role<First, kFirstThreads>(first, first_range, unit);
    if (kDrain) named_barrier<0, kThreads>();
  } while (kDrain && operation >= 0);
  finish<kThreads>(counters, turns, thread, grid_size(), false, 0, 0);
}

// ---- two bodies in one thread -------------------------------------------------------------------------------------

// Runs pieces of a memory body between the slabs of a compute body: what was loaded at the last due step is consumed,
// then the next piece is loaded and has until the next due step to arrive.
template <class Body>
struct Interleaved {
  const typename Body::Params& params;
  int lane;
  int unit;
  int stride;
  int end;
  int piece;
  int pieces;
  int pace;
  int due;
  int period;
  typename Body::Piece held;
  typename Body::State state;

  NITRO_METHOD explicit Interleaved(const typename Body::Params& params_) : params(params_) {}

  // Pieces are spread over `steps`, the steps that the compute body will make; 0 pieces means that nothing is loaded.
  NITRO_METHOD void start(Range range, int lane_, int warp, int warps, int steps) {
    lane = lane_;
    unit = range.first + warp;
    stride = warps;
    end = range.first + range.count;
    piece = 0;
    pieces = 0;
    pace = 0;
    due = unit < end ? ceil_div(range.count, warps) * Body::pieces(params, range.first) + 1 : 0;
    period = steps > 0 ? steps : 1;
  }
  NITRO_METHOD bool busy() const { return pieces > 0 || unit < end; }
  NITRO_METHOD void one() {
    if (pieces > 0) {
      Body::consume(params, lane, unit, piece, held, state);
      piece++;
      if (piece == pieces) {
        pieces = 0;
        piece = 0;
        unit += stride;
      }
    }
    if (pieces == 0 && unit < end) {
      pieces = Body::pieces(params, unit);
      piece = 0;
    }
    if (pieces > 0) Body::load(params, lane, unit, piece, held);
  }
  NITRO_METHOD void step() {
    pace += due;
    if (pace >= period) {
      pace -= period;
      if (busy()) one();
    }
  }
  NITRO_METHOD void flush() {
#pragma unroll 1
    while (busy()) one();
  }
};

// Every thread computes its part of a tile of the first body and, between its slabs, units of the second.
template <class First, class Second, int kThreads>
NITRO_DEVICE void run_intra_thread(const typename First::Params& first, Range first_range,
                                   const typename Second::Params& second, Range second_range) {
  static_assert(First::kBlockGranular && !Second::kBlockGranular, "only units of a warp fit between slabs");
  const Context<0, kThreads> where = {block_index(), grid_size(), thread_index(), dynamic_shared()};
  Interleaved<Second> hook(second);
  hook.start(second_range, where.lane(), where.block * where.kWarps + where.warp(), where.blocks * where.kWarps,
             First::slabs(first) * First::kHookSteps);
  if (where.block < first_range.count) First::tile(first, where, first_range.first + where.block, hook);
  hook.flush();
}

}  // namespace nitro
#endif
