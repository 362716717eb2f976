// Counts what reaches the medium by libpmem: flushes, copies, fences. Figures without noise, and so
// a test can hold them.
//
// It listens at the crash harness's boundary with libpmem (fuzz/tracer/boundary.hpp), where each
// event is seen once. (libpmem's own fences inside long non-temporal copies, a work-around of some
// processors that is off by default, are not seen.)
//
// Thread safety: any threads may flush meanwhile, and all are counted; one PmemCounters at a time.
#pragma once

#include <cstddef>
#include <cstdint>

namespace holdfast::test {

struct PmemCounts {
    std::uint64_t flush_calls = 0;  // pmem_flush
    std::uint64_t flush_lines = 0;  // cache lines that they covered
    std::uint64_t copy_calls = 0;   // pmem_memcpy, memmove and memset, which flush what they write
    std::uint64_t copy_lines = 0;
    std::uint64_t fences = 0;  // pmem_drain
    std::uint64_t syncs = 0;   // pmem_msync
    // Bytes that were flushed or copied to the logs in libpmemobj's lanes: where it keeps undo
    // entries (their headers and padding included), and redo entries.
    std::uint64_t undo_bytes = 0;
    std::uint64_t redo_bytes = 0;

    friend bool operator==(const PmemCounts&, const PmemCounts&) = default;
    friend PmemCounts operator-(const PmemCounts& a, const PmemCounts& b);
};

// Counts while it lives.
class PmemCounters {
  public:
    // `pool` is where the pool is mapped; without it the log bytes stay 0.
    explicit PmemCounters(const void* pool = nullptr);
    ~PmemCounters();
    PmemCounters(const PmemCounters&) = delete;
    PmemCounters& operator=(const PmemCounters&) = delete;

    // Since this was made.
    PmemCounts snapshot() const;
};

// What `action` costs, in the pool mapped at `pool`.
template <typename Action>
PmemCounts counted(const void* pool, const Action& action) {
    const PmemCounters counters(pool);
    action();
    return counters.snapshot();
}

}  // namespace holdfast::test
