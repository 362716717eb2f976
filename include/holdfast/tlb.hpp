// A software TLB: remembers recent translations of one space.
//
// Thread safety: a Tlb belongs to one thread; make one per thread. It never answers from before a
// completed `unmap`, `protect` or other removal: a lookup that begins after such a call returned
// sees its effect.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <expected>

#include "holdfast/fault.hpp"
#include "holdfast/space.hpp"

namespace holdfast {

class Tlb {
  public:
    explicit Tlb(Space space);

    // As Space::translate. A hit is two loads and two compares, and touches no persistent memory.
    std::expected<Translation, Fault> translate(VirtAddr address) {
        const std::uint64_t page = address.bits() >> kPageShift;
        const Entry& entry = entries_[page % kEntries];
        if (entry.page == page &&
            generation_ == generation_word_->load(std::memory_order_acquire)) {
            ++hits_;
            return Translation{PhysAddr(entry.frame_bits | address.page_offset()), entry.page_size,
                               entry.protection};
        }
        return miss(address);
    }

    void flush();
    std::uint64_t hits() const { return hits_; }
    std::uint64_t misses() const { return misses_; }

    static constexpr std::size_t kEntries = 1024;

  private:
    struct Entry {
        std::uint64_t page = ~std::uint64_t{0};  // no virtual page: pages have 52 bits
        std::uint64_t frame_bits = 0;
        PageSize page_size{};
        Protection protection;
    };
    std::expected<Translation, Fault> miss(VirtAddr address);

    Space space_;
    // Raised by every commit that takes something away from the space.
    const std::atomic<std::uint64_t>* generation_word_;
    std::uint64_t generation_ = 0;
    std::uint64_t hits_ = 0, misses_ = 0;
    std::array<Entry, kEntries> entries_{};
};

}  // namespace holdfast
