#include "mmu/touched_bytes.hpp"

#include <algorithm>
#include <bit>
#include <vector>

#include "format/frame_metadata.hpp"

namespace holdfast::mmu {

void TouchedBytes::add(VirtAddr address, std::uint64_t size_bytes) {
    std::uint64_t at = address.bits();
    while (size_bytes != 0) {
        Bits& bits = bits_of(at >> kPageShift);
        const std::uint64_t offset = at & (kPageSize - 1);
        const std::uint64_t in_page = std::min(size_bytes, kPageSize - offset);
        for (std::uint64_t done = 0; done < in_page;) {
            const std::uint64_t bit = (offset + done) % 64;
            const std::uint64_t count = std::min(in_page - done, 64 - bit);
            const std::uint64_t mask =
                count == 64 ? ~std::uint64_t{0} : ((std::uint64_t{1} << count) - 1) << bit;
            bits[(offset + done) / 64] |= mask;
            done += count;
        }
        at += in_page;
        size_bytes -= in_page;
    }
}

std::uint64_t TouchedBytes::bytes() const {
    std::uint64_t count = 0;
    for (const auto& [page, bits] : pages_)
        for (const std::uint64_t word : bits)
            count += static_cast<std::uint64_t>(std::popcount(word));
    return count;
}

PageSizeCost TouchedBytes::cost(unsigned page_shift, Levels levels) const {
    // The translated bits alone, in ascending order: so equal ones are neighbours however many low
    // bits are cut off.
    std::vector<std::uint64_t> pages;
    pages.reserve(pages_.size());
    const std::uint64_t mask =
        (std::uint64_t{1} << (virtual_address_bits(levels) - kPageShift)) - 1;
    for (const auto& [page, bits] : pages_) pages.push_back(page & mask);
    std::sort(pages.begin(), pages.end());
    const auto different = [&](unsigned shift) {
        std::uint64_t count = 0, last = ~std::uint64_t{0};
        for (const std::uint64_t page : pages) {
            const std::uint64_t number = page >> (shift - kPageShift);
            if (number != last) ++count;
            last = number;
        }
        return count;
    };
    PageSizeCost cost{.page_bytes = std::uint64_t{1} << page_shift};
    cost.on_x86 = page_shift == 12 || page_shift == 21 || page_shift == 30;
    cost.pages = different(page_shift);
    cost.mapped_bytes = cost.pages << page_shift;
    cost.wasted_bytes = cost.mapped_bytes - bytes();
    cost.tables = 1;  // the root, whatever is mapped
    for (unsigned span = page_shift + 9; span < virtual_address_bits(levels); span += 9)
        cost.tables += different(span);
    cost.table_bytes = cost.tables * kPageSize;
    cost.metadata_bytes =
        format::kFrameMetadataBytes * ((cost.mapped_bytes >> kPageShift) + cost.tables);
    return cost;
}

}  // namespace holdfast::mmu
