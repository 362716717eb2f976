#include "support/pmem_counters.hpp"

#include <libpmem.h>

#include <atomic>
#include <cstring>

#include "tracer/boundary.hpp"

namespace holdfast::test {
namespace {

std::atomic<std::uint64_t> flush_calls, flush_lines, copy_calls, copy_lines, fences, syncs,
    undo_bytes, redo_bytes;

// libpmemobj's layout of a pool: behind the header of 4,096 bytes the layout's name (1,024), then
// the offset of the lanes (8) and their number (8). A lane has 3,072 bytes: an internal and an
// external redo log of 192 and 640 bytes and an undo log of 2,048, each behind a header of 64.
constexpr std::uint64_t kLanesOffsetAt = 4096 + 1024, kLaneBytes = 3072,
                        kUndoAt = 64 + 192 + 64 + 640;
std::atomic<std::uintptr_t> lanes_begin = 0, lanes_end = 0;

void count_log(const void* address, std::size_t size_bytes) {
    const auto at = reinterpret_cast<std::uintptr_t>(address);
    const std::uintptr_t begin = lanes_begin.load(std::memory_order_relaxed);
    if (at < begin || at >= lanes_end.load(std::memory_order_relaxed)) return;
    ((at - begin) % kLaneBytes < kUndoAt ? redo_bytes : undo_bytes) += size_bytes;
}

std::uint64_t lines(const void* address, std::size_t size_bytes) {
    if (size_bytes == 0) return 0;
    const auto at = reinterpret_cast<std::uintptr_t>(address);
    return (at + size_bytes - 1) / 64 - at / 64 + 1;
}

void count_flush(const void* address, std::size_t size_bytes) {
    ++flush_calls;
    flush_lines += lines(address, size_bytes);
    count_log(address, size_bytes);
}

void count_copy(const void* address, std::size_t size_bytes, unsigned flags) {
    if ((flags & PMEM_F_MEM_NOFLUSH) != 0) return;
    ++copy_calls;
    copy_lines += lines(address, size_bytes);
    count_log(address, size_bytes);
}

// Counts, and lets libpmem do the work.
class Observer final : public crash::BoundaryObserver {
  public:
    bool flush(const void* address, std::size_t size_bytes, const void*) override {
        count_flush(address, size_bytes);
        return false;
    }
    bool drain(const void*) override {
        ++fences;
        return false;
    }
    bool sync(const void*, std::size_t, const void*) override {
        ++syncs;
        return false;
    }
    bool copy(void* destination, const void*, int, std::size_t size_bytes, unsigned flags,
              const void*) override {
        count_copy(destination, size_bytes, flags);
        return false;
    }
};
Observer observer;

PmemCounts now() {
    return {flush_calls, flush_lines, copy_calls, copy_lines,
            fences,      syncs,       undo_bytes, redo_bytes};
}

PmemCounts at_start;

}  // namespace

PmemCounts operator-(const PmemCounts& a, const PmemCounts& b) {
    return {.flush_calls = a.flush_calls - b.flush_calls,
            .flush_lines = a.flush_lines - b.flush_lines,
            .copy_calls = a.copy_calls - b.copy_calls,
            .copy_lines = a.copy_lines - b.copy_lines,
            .fences = a.fences - b.fences,
            .syncs = a.syncs - b.syncs,
            .undo_bytes = a.undo_bytes - b.undo_bytes,
            .redo_bytes = a.redo_bytes - b.redo_bytes};
}

PmemCounters::PmemCounters(const void* pool) {
    if (pool != nullptr) {
        std::uint64_t words[2];  // offset of the lanes, and how many there are
        std::memcpy(words, static_cast<const char*>(pool) + kLanesOffsetAt, sizeof words);
        lanes_begin = reinterpret_cast<std::uintptr_t>(pool) + words[0];
        lanes_end = lanes_begin + words[1] * kLaneBytes;
    }
    at_start = now();
    crash::observe_boundary(&observer);
}

PmemCounters::~PmemCounters() {
    crash::observe_boundary(nullptr);
    lanes_begin = lanes_end = 0;
}

PmemCounts PmemCounters::snapshot() const { return now() - at_start; }

}  // namespace holdfast::test
