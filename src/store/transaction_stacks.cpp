// Stacks that grow down (MapOptions::grows_down): three ranges of absent entries, guard, room and
// demand-zero pages, that come into being by one commit; and their growth, by another
// (table/stack_growth.cpp).
#include <fmt/format.h>

#include "store/transaction_state.hpp"

namespace holdfast::detail {

using format::AbsentKind;
using table::PageRange;
using table::TableEditor;

Result<void> TransactionState::check_stack(PageRange pages, const MapOptions& options) {
    const GrowsDown& stack = *options.grows_down;
    const std::uint64_t size_bytes = pages.count() << kPageShift;
    if (options.guard)
        return fail(ErrorCode::invalid_argument,
                    "a range is mapped for a stack or for nothing: grows_down or guard, not both");
    if (stack.guard_bytes == 0 || stack.guard_bytes % kPageSize != 0 || stack.mapped_bytes == 0 ||
        stack.mapped_bytes % kPageSize != 0)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("what a stack has at first, and its guard, are multiples of 4096 "
                                "bytes and not 0; {} and {} are not",
                                stack.mapped_bytes, stack.guard_bytes));
    if (stack.guard_bytes > size_bytes || stack.mapped_bytes > size_bytes - stack.guard_bytes)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("a range of {} bytes has no room for a stack of {} bytes and a "
                                "guard of {}; map a larger range, or ask for a smaller guard",
                                size_bytes, stack.mapped_bytes, stack.guard_bytes));
    // The room's entries have it in their payload.
    if (stack.guard_bytes > table::Entry::kFrameMask)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("a stack keeps less than 4 PiB to others, and not {} bytes",
                                stack.guard_bytes));
    return {};
}

Result<void> TransactionState::map_stack(TableEditor& editor, PageRange pages,
                                         Protection protection, const GrowsDown& stack) {
    const std::uint64_t gap = stack.guard_bytes >> kPageShift;
    const std::uint64_t room = pages.begin + gap;
    const std::uint64_t mapped = pages.end - (stack.mapped_bytes >> kPageShift);
    const auto map = [&](PageRange part, AbsentKind kind, Protection mapped_protection,
                         std::uint64_t payload) -> Result<void> {
        if (part.count() == 0) return {};
        auto place = editor.place_of(part);
        if (!place) return std::unexpected(place.error());
        return editor.map_absent(*place, kind, mapped_protection, payload);
    };
    if (auto done = map({pages.begin, room}, AbsentKind::guard, {}, 0); !done) return done;
    if (auto done = map({room, mapped}, AbsentKind::stack_room, protection, gap); !done)
        return done;
    return map({mapped, pages.end}, AbsentKind::demand_zero, protection, 0);
}

Result<bool> TransactionState::grow_stack(const std::shared_ptr<SpaceState>& of, VirtAddr address,
                                          bool for_writing) {
    const std::shared_ptr<SpaceState>& space = responsible_for(of, address);
    if (auto fine = check_half(*space, "access", {address, 1}, {}); !fine)
        return std::unexpected(fine.error());
    auto joined = join(space);
    if (!joined) return std::unexpected(joined.error());
    if (auto fine = check_change(*space); !fine) return std::unexpected(fine.error());
    const auto where = placement(**joined);
    if (!where) return std::unexpected(where.error());
    const std::uint64_t page = table::page_index(address, space->levels);
    const auto zero = zero_for(for_writing);
    if (!zero)
        if (auto room = make_way(**joined, 1); !room) return std::unexpected(room.error());
    TableEditor editor(session_, (*joined)->root);
    auto grown = editor.grow_down(page);
    if (!grown) spoiled_ = grown.error();
    if (!grown) return std::unexpected(grown.error());
    if (!*grown) return false;
    // What is charged is what the stack has, not what it may become.
    if (auto fine = spoiled_by(charge_since(**joined, **grown, 0)); !fine)
        return std::unexpected(fine.error());
    // The page in the same commit: a crash leaves a stack that the access has not met, or one that
    // has grown and has the page.
    Result<void> done;
    if (!zero)
        done = editor.populate(page, *where);
    else if (const auto read = editor.populate_zero(page, *zero); !read)
        done = std::unexpected(read.error());
    if (done = spoiled_by(std::move(done)); !done) return std::unexpected(done.error());
    return true;
}

}  // namespace holdfast::detail
