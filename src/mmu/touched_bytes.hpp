// Which bytes a trace has touched, and what it would take to map them with pages of any size.
//
// Takes 512 bytes of memory for each 4 KiB of which something was touched.
//
// Thread safety: none.
#pragma once

#include <array>
#include <cstdint>
#include <unordered_map>

#include "holdfast/replay.hpp"
#include "holdfast/types.hpp"

namespace holdfast::mmu {

class TouchedBytes {
  public:
    // The range wraps nowhere.
    void add(VirtAddr address, std::uint64_t size_bytes);

    std::uint64_t bytes() const;
    // `page_shift` is log2 of the page size, 12 at least.
    PageSizeCost cost(unsigned page_shift, Levels levels) const;

  private:
    using Bits = std::array<std::uint64_t, kPageSize / 64>;

    Bits& bits_of(std::uint64_t page) {
        Recent& recent = recent_[page % recent_.size()];
        if (recent.bits == nullptr || recent.page != page) [[unlikely]]
            recent = {page, &pages_[page]};
        return *recent.bits;
    }

    std::unordered_map<std::uint64_t, Bits> pages_;  // whose values stay where they are
    struct Recent {
        std::uint64_t page = 0;
        Bits* bits = nullptr;
    };
    std::array<Recent, 256> recent_;
};

}  // namespace holdfast::mmu
