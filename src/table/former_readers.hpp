// Readers that may still be below what a space has replaced by a copy of its own, though another
// space has it for itself now: before that one writes there, they must have left.
//
// Thread safety: `add` under the commit lock; `wait` from any thread outside a reader section.
#pragma once

#include <atomic>
#include <cstdint>

#include "memory/reader_section.hpp"

namespace holdfast::table {

class FormerReaders {
  public:
    // A commit has taken a reference away from what others still refer to.
    void add() { added_.fetch_add(1, std::memory_order_release); }
    // Returns when all of them have left; at once if it is known already.
    void wait() {
        const std::uint64_t added = added_.load(std::memory_order_acquire);
        std::uint64_t gone = gone_.load(std::memory_order_acquire);
        if (gone >= added) return;
        memory::ReaderSection::wait_for_readers();
        while (gone < added && !gone_.compare_exchange_weak(gone, added)) {
        }
    }

  private:
    std::atomic<std::uint64_t> added_ = 0, gone_ = 0;
};

}  // namespace holdfast::table
