// The slots of a table that a range of pages touches.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "holdfast/error.hpp"
#include "table/table_editor.hpp"

namespace holdfast::table {

// Calls `visit(slot, part, whole)` for every slot of the table that the range touches: `part` is
// the range's part in it, `whole` whether that is all the slot spans. Stops at the first error.
template <typename Visit>
Result<void> each_slot(const TablePosition& position, PageRange range, const Visit& visit) {
    const std::uint64_t span = entry_pages(position.level);
    for (std::uint64_t page = range.begin; page < range.end;) {
        const std::uint64_t slot_begin = page & ~(span - 1);
        const PageRange part{page, std::min(range.end, slot_begin + span)};
        const auto slot = static_cast<unsigned>(page / span % kEntriesPerTable);
        if (Result<void> done = visit(slot, part, part.count() == span); !done) return done;
        page = part.end;
    }
    return {};
}

// The first, and the one behind the last.
inline std::pair<unsigned, unsigned> slots_touched(const TablePosition& position, PageRange range) {
    const std::uint64_t span = entry_pages(position.level);
    return {static_cast<unsigned>(range.begin / span % kEntriesPerTable),
            static_cast<unsigned>((range.end - 1) / span % kEntriesPerTable) + 1};
}

}  // namespace holdfast::table
