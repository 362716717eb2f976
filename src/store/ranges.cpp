#include "holdfast/ranges.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "memory/reader_section.hpp"
#include "space/space_access.hpp"
#include "store/mapped_files.hpp"
#include "store/store_state.hpp"
#include "table/visit.hpp"

namespace holdfast {

using table::PageRange;

Result<std::optional<Mapping>> find_mapping(const Space& space, VirtAddr address) {
    const memory::PhysicalMemory& memory = space.state().store->memory;
    const Levels levels = space.levels();
    if (VirtAddr::truncated(address.bits(), levels) != address) return std::nullopt;
    const PageRange all = table::all_pages(levels);
    const std::uint64_t page = table::page_index(address, levels);
    // From the table around the page on, until the run that it is in ends inside.
    PageRange seen{page & ~std::uint64_t{511}, (page | 511) + 1};
    for (;;) {
        auto mappings =
            detail::with_paths(*space.state().store, space::maps(memory, space.state(), seen));
        if (!mappings) return std::unexpected(mappings.error());
        const auto found = std::find_if(mappings->begin(), mappings->end(), [&](const Mapping& m) {
            return m.range.contains(address);
        });
        if (found == mappings->end()) return std::nullopt;
        const std::uint64_t begin = table::page_index(found->range.start, levels);
        const bool open_below = begin == seen.begin && begin != all.begin && begin != all.end / 2;
        const std::uint64_t end = begin + found->range.pages();
        const bool open_above = end == seen.end && end != all.end && end != all.end / 2;
        if (!open_below && !open_above) return std::optional(std::move(*found));
        const std::uint64_t more = seen.count();
        if (open_below) seen.begin -= std::min(more, seen.begin);
        if (open_above) seen.end = std::min(seen.end + more, all.end);
    }
}

Result<std::optional<VirtAddr>> find_hole(const Space& space, std::uint64_t size_bytes,
                                          const HoleOptions& options) {
    const Levels levels = space.levels();
    const Range within = options.within.value_or(user_half(levels));
    if (size_bytes == 0 || size_bytes % kPageSize != 0)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("a hole has a multiple of 4096 bytes, not {}", size_bytes));
    if (!std::has_single_bit(options.alignment_bytes) || options.alignment_bytes < kPageSize)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("{} is no power of two of at least 4096 to align to",
                                options.alignment_bytes));
    const VirtAddr last = within.start + (within.size_bytes - 1);
    if (within.size_bytes == 0 || !within.start.is_page_aligned() ||
        within.size_bytes % kPageSize != 0 || last < within.start ||
        VirtAddr::truncated(within.start.bits(), levels) != within.start ||
        VirtAddr::truncated(last.bits(), levels) != last ||
        within.start.bits() >> 63 != last.bits() >> 63)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("{:#x}+{:#x} is no range of pages of one half of the space",
                                within.start.bits(), within.size_bytes));
    const std::uint64_t pages = size_bytes >> kPageShift;
    const std::uint64_t alignment = options.alignment_bytes >> kPageShift;
    const PageRange all{table::page_index(within.start, levels),
                        table::page_index(within.start, levels) + within.pages()};
    // The first page from which on nothing that was looked at is mapped, aligned. (The halves are
    // aligned to more than any hole, so pages and addresses are aligned alike.)
    const auto aligned = [&](std::uint64_t page) {
        return (page + alignment - 1) & ~(alignment - 1);
    };
    std::uint64_t candidate = aligned(all.begin);
    const memory::ReaderSection section;
    const table::Root root = space.state().root();
    if (root.entry.is_empty()) return fail(ErrorCode::stale, "the space was removed");
    table::Visitor visitor;
    visitor.range = [&](const table::VisitedRange& visited) {
        if (candidate + pages > visited.pages.begin)
            candidate = std::max(candidate, aligned(visited.pages.end));
    };
    visitor.is_enough = [&](std::uint64_t page) { return candidate + pages <= page; };
    table::visit(space.state().store->memory, root, all, visitor);
    if (candidate + pages > all.end || candidate < all.begin) return std::nullopt;
    return table::address_of_page(candidate, levels);
}

std::expected<void, Fault> check_user_range(const Space& space, VirtAddr address,
                                            std::uint64_t size_bytes, Protection access) {
    const std::uint64_t half = std::uint64_t{1} << (virtual_address_bits(space.levels()) - 1);
    const Protection needed = access | protection::r | protection::u;
    // As a wrapping range, one that reaches past the half: its first byte there is to blame.
    if (address.bits() >= half)
        return std::unexpected(Fault{.kind = FaultKind::non_canonical, .address = address});
    if (size_bytes > half - address.bits())
        return std::unexpected(Fault{.kind = FaultKind::non_canonical, .address = VirtAddr(half)});
    const std::uint64_t end = address.bits() + size_bytes;
    for (std::uint64_t at = address.bits(); at < end;) {
        const auto found = space.translate(VirtAddr(at), needed);
        std::uint64_t span = kPageSize;
        if (found) {
            span = bytes(found->page_size);
        } else {
            const Fault& fault = found.error();
            const bool is_first_access =
                fault.kind == FaultKind::demand_zero || fault.kind == FaultKind::copy_on_write ||
                fault.kind == FaultKind::file_backed || fault.kind == FaultKind::swapped ||
                fault.kind == FaultKind::stack_room;
            if (!is_first_access || !fault.protection.permits(needed)) {
                Fault refused = fault;
                if (is_first_access) refused.kind = FaultKind::protection;
                return std::unexpected(refused);
            }
            // What one absent entry spans is the same all over.
            if (fault.kind != FaultKind::copy_on_write)
                span = format::entry_span_bytes(fault.level);
        }
        at = (at | (span - 1)) + 1;
    }
    return {};
}

}  // namespace holdfast
