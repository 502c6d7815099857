// The ring's roles (logits_ring.cuh), and the kernel that gives each warp one.
#pragma once

#include "cuda/logits_ring.cuh"

namespace elastic::cuda {

template <class Task, bool EMITS>
struct RingKernel : Ring<Task> {
  using Base = Ring<Task>;
  using T = typename Task::Element;
  using Roles = RingRoles<EMITS>;
  using Base::Base, Base::shared, Base::shape, Base::task, Base::rank, Base::ranks, Base::chunks;
  static_assert(!Task::SOFTCAP, "the logits pass takes those");

  __device__ __forceinline__ void init_barriers() const {
    for (int i = 0; i < shape.slots; i++) {
      barrier_init(&shared->full[i], 1);
      barrier_init(&shared->used[i], EMITS ? Roles::EMIT : Roles::COUNT);
    }
    for (int k = 0; k < RING_OPEN; k++) {
      barrier_init(&shared->counted[k], Roles::COUNT);
      barrier_init(&shared->exchanged[k], 1);
      barrier_init(&shared->joined[k], 1);
      barrier_init(&shared->planned[k], 1);
    }
    barrier_init_fence();
  }

  // One thread.
  __device__ __forceinline__ void move() const {
    RingChunks<Task> next(*this);
    RingSlot into;
    const auto load_next = [&] {
      const uint32_t bytes = next.bytes();
      const T* body = next.logits.values + next.layout.head;
      barrier_expect_bytes(&shared->full[into.index], bytes);
      if (bytes > 0)
        bulk_copy_streaming(this->at(into), reinterpret_cast<const Vec16*>(body) + next.begin(), bytes,
                            &shared->full[into.index]);
      next.next();
      into.next(shape.slots);
    };
    for (int i = 0; i < shape.slots && next.more(); i++) load_next();
    RingSlot slot;
    bool stored = false;  // some chunk, by a bulk store
    for (RingChunks<Task> chunk(*this); chunk.more(); chunk.next()) {
      barrier_wait(&shared->used[slot.index], slot.parity);
      if (!EMITS || !shape.bulk_stores) {
        if (next.more()) load_next();
      } else {
        const uint32_t bytes = chunk.bytes();
        T* body = chunk.logits.gradient + chunk.layout.head;
        if (bytes > 0)
          bulk_store_streaming(reinterpret_cast<Vec16*>(body) + chunk.begin(), this->at(slot), bytes);
        // The chunk before this one has left its slot, which is the next to be loaded into.
        bytes > 0 ? bulk_stores_left_shared<1>() : bulk_stores_left_shared<0>();
        if (stored && next.more()) load_next();
        stored = true;
      }
      slot.next(shape.slots);
    }
    if (EMITS) bulk_stores_wait();
  }

  __device__ __forceinline__ void count(int warp, int lane) const {
    RingSlot slot;
    const auto read = [&](int64_t, const TokenLogits<T>& logits, unsigned k) {
      const LogitsLayout layout = LogitsLayout::of<T>(logits.values, logits.vocab);
      const Transform<false> transform(logits.inv_temperature, logits.softcap);
      UnitStats* unit = shared->unit[k % RING_OPEN];
      barrier_wait(&shared->joined[k % RING_OPEN], (k / RING_OPEN & 1) ^ 1);
      for (int chunk = 0; chunk < chunks; chunk++) {
        barrier_wait(&shared->full[slot.index], slot.parity);
        const int32_t from = this->begin(layout, chunk), to = this->begin(layout, chunk + 1);
        const Span<Vec16> vectors(this->at(slot), to - from);
        const int first_unit = this->first_unit(chunk);
        const int end_unit = first_unit + (1 << shape.log2_chunk);
        for (int u = first_unit + ((warp - first_unit) & (Roles::COUNT - 1)); u < end_unit;
             u += Roles::COUNT) {
          const int32_t loose = u == 0 ? loose_element(layout, logits.vocab, lane) : -1;
          const UnitStats stats = unit_stats([&](int32_t v) { return vectors[v - from]; }, logits, transform,
                                             layout.begin(u), layout.begin(u + 1), loose);
          if (lane == 0) unit[u] = stats;
        }
        __syncwarp();
        if (!EMITS && lane == 0) barrier_arrive(&shared->used[slot.index]);
        slot.next(shape.slots);
      }
      if (lane == 0) barrier_arrive(&shared->counted[k % RING_OPEN]);
    };
    this->each_token(read, [](const TokenLogits<T>&) {});
  }

  // Sends this CTA's units to its peers, and waits for theirs.
  __device__ __forceinline__ void exchange(unsigned k, int lane) const {
    UnitStats* unit = shared->unit[k % RING_OPEN];
    Barrier* exchanged = &shared->exchanged[k % RING_OPEN];
    if (lane == 0) barrier_expect_bytes(exchanged, (UNITS - UNITS / ranks) * sizeof(UnitStats));
    for (int i = lane; i < UNITS; i += WARP) {
      const int u = this->first_unit(0) + (i >> shape.log2_ranks), to = i & (ranks - 1);
      if (to != rank) store_to_peer(&unit[u], unit[u], exchanged, static_cast<unsigned>(to));
    }
    barrier_wait_for_peers(exchanged, k / RING_OPEN & 1);
  }

  __device__ __forceinline__ void combine(int lane) const {
    const auto read = [&](int64_t token, const TokenLogits<T>& logits, unsigned k) {
      const Transform<false> transform(logits.inv_temperature, logits.softcap);
      // In place, the target's logit is gone soon: it is in shared memory before any peer hears of this
      // token.
      if (lane == 0) shared->inputs = task.inputs(token, logits);
      __syncwarp();
      barrier_wait(&shared->counted[k % RING_OPEN], k / RING_OPEN & 1);
      if (ranks > 1) exchange(k, lane);
      const UnitStats* unit = shared->unit[k % RING_OPEN];
      const Online all = join_units([&](int u) { return unit[u]; },
                                    [&] {
                                      __syncwarp();
                                      if (lane == 0) barrier_arrive(&shared->joined[k % RING_OPEN]);
                                    },
                                    transform.scale);
      if (lane == 0) {
        const Plan plan = task.combine(token, shared->inputs, logits, LogitsStats(all), transform, rank == 0);
        if constexpr (EMITS) {
          shared->plan[k % RING_OPEN] = plan;
          barrier_arrive(&shared->planned[k % RING_OPEN]);
        }
      }
      __syncwarp();
    };
    this->each_token(read, [](const TokenLogits<T>&) {});
  }

  // `t`: of the threads that emit.
  __device__ __forceinline__ void emit(int t) const {
    constexpr int THREADS = Roles::EMIT * WARP;
    RingSlot slot;
    const auto read = [&](int64_t, const TokenLogits<T>& logits, unsigned k) {
      const LogitsLayout layout = LogitsLayout::of<T>(logits.values, logits.vocab);
      const Transform<false> transform(logits.inv_temperature, logits.softcap);
      const WrittenLogits<T> out(logits.gradient, logits.vocab, layout);
      barrier_wait(&shared->planned[k % RING_OPEN], k / RING_OPEN & 1);
      const Plan plan = shared->plan[k % RING_OPEN];
      if (const int32_t loose = rank == 0 ? loose_element(layout, logits.vocab, t) : -1; loose >= 0)
        emit_loose(logits, transform, plan, out, loose);
      for (int chunk = 0; chunk < chunks; chunk++) {
        barrier_wait(&shared->full[slot.index], slot.parity);  // long ago; it lets this thread see the bytes
        const int32_t from = this->begin(layout, chunk), to = this->begin(layout, chunk + 1);
        const Span<Vec16> vectors(this->at(slot), to - from);
        if (shape.bulk_stores) {
          emit_chunk<THREADS>(transform, plan, vectors, to - from, t,
                              [&](int32_t v, const Vec16& gradient) { vectors[v] = gradient; });
          if (const int32_t v = target_vector(plan, layout, from, to, t); v >= 0)
            reinterpret_cast<T*>(&vectors[v])[(plan.target - layout.head) % PER_VECTOR<T>] =
                from_float<T>(plan.target_slope);
          if (to > from) bulk_store_fence(vectors.data(), static_cast<uint32_t>(to - from) * sizeof(Vec16));
        } else {
          emit_chunk<THREADS>(transform, plan, vectors, to - from, t, [&](int32_t v, const Vec16& gradient) {
            store_streaming(&out.vectors[from + v], gradient);
          });
          if (target_vector(plan, layout, from, to, t) >= 0)
            out.elements[plan.target] = from_float<T>(plan.target_slope);
        }
        __syncwarp();
        if (t % WARP == 0) barrier_arrive(&shared->used[slot.index]);
        slot.next(shape.slots);
      }
    };
    this->each_token(read, [&](const TokenLogits<T>& logits) {
      write_zeros(logits.gradient, logits.vocab, rank * THREADS + t, ranks * THREADS);
    });
  }

 private:
  // Where in vectors [from, to) of the token its target is, if thread `t` has written that vector; else -1.
  __device__ __forceinline__ int32_t target_vector(const Plan& plan, const LogitsLayout& layout, int32_t from,
                                                   int32_t to, int t) const {
    if (plan.emit == Emit::ZEROS || plan.target < layout.head) return -1;
    const int32_t v = (plan.target - layout.head) / PER_VECTOR<T> - from;
    return v >= 0 && v < to - from && v % (Roles::EMIT * WARP) == t ? v : -1;
  }

  __device__ __forceinline__ void emit_loose(const TokenLogits<T>& logits, const Transform<false>& transform,
                                             const Plan& plan, const WrittenLogits<T>& out,
                                             int32_t loose) const {
    float x[1] = {to_float(logits.values[loose])};
    if (plan.emit == Emit::ENTROPY_SLOPES)
      slopes<true>(transform, plan, x);
    else
      slopes<false>(transform, plan, x);
    const bool zero = plan.emit == Emit::ZEROS, target = loose == plan.target;
    out.elements[loose] = from_float<T>(zero ? 0.f : target ? plan.target_slope : x[0]);
  }

  // put(v, gradient) for every THREADS-th of a chunk's `count` vectors.
  template <int THREADS, class Put>
  __device__ __forceinline__ void emit_chunk(const Transform<false>& transform, const Plan& plan,
                                             const Span<Vec16>& vectors, int32_t count, int t,
                                             const Put& put) const {
    constexpr int AHEAD = 4;
    const auto with = [&](auto entropy) {
      for (int32_t v = t; v < count; v += THREADS * AHEAD) {
        Vec16 q[AHEAD];
#pragma unroll
        for (int i = 0; i < AHEAD; i++)
          if (v + THREADS * i < count) q[i] = vectors[v + THREADS * i];
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
          if (v + THREADS * i >= count) break;
          float x[PER_VECTOR<T>];
          unpack<T>(q[i], x);
          slopes<decltype(entropy)::value>(transform, plan, x);
          put(v + THREADS * i, pack<T>(x));
        }
      }
    };
    if (plan.emit == Emit::SLOPES) with(std::false_type{});
    if (plan.emit == Emit::ENTROPY_SLOPES) with(std::true_type{});
    if (plan.emit == Emit::ZEROS)
      for (int32_t v = t; v < count; v += THREADS) put(v, Vec16{});
  }
};

// EMITS: the task writes a gradient, which lies relative to 16 bytes as the logits do.
template <class Task, bool EMITS>
__global__ void __launch_bounds__(RingRoles<EMITS>::THREADS, 1) ring_kernel(Task task, RingShape shape) {
  if constexpr (!HAS_BARRIERS) {
    trap();
  } else {
    using Roles = RingRoles<EMITS>;
    const RingKernel<Task, EMITS> ring(task, shape);
    const int thread = static_cast<int>(threadIdx.x), warp = thread / WARP, lane = thread % WARP;
    if (thread == 0) ring.init_barriers();
    cluster_sync();
    if (warp < Roles::COUNT) {
      ring.count(warp, lane);
    } else if (warp < Roles::COMBINE) {
      if constexpr (EMITS) ring.emit(thread - Roles::COUNT * WARP);
    } else if (warp == Roles::COMBINE) {
      ring.combine(lane);
    } else if (lane == 0) {
      ring.move();
    }
    __syncwarp();
    cluster_sync();  // peers may still store here
  }
}

}  // namespace elastic::cuda
