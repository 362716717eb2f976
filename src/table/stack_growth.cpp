// How a stack grows: entries of its room, from the page that was accessed up to what it has
// already, become demand-zero entries of the same protection.
//
// The room ends where anything else begins, so growing finds its own edge, and nothing but the
// entries says how large the stack is. Like Linux (mm/mmap.c, acct_stack_growth and
// expand_downwards) it keeps a gap to the next mapping below that somebody could use; guards and
// other stacks' room are none.
#include <algorithm>

#include "table/slots.hpp"
#include "table/table_editor.hpp"

namespace holdfast::table {

using format::AbsentKind;

namespace {

bool is_stack_room(Entry entry) {
    return !entry.is_empty() && !entry.is_present() &&
           entry.absent_kind() == AbsentKind::stack_room;
}
bool ends_room(Entry entry) { return !is_stack_room(entry); }
bool is_accessible(Entry entry) {
    return !entry.is_empty() && !is_stack_room(entry) &&
           (entry.is_present() || entry.absent_kind() != AbsentKind::guard);
}

}  // namespace

Result<std::optional<PageRange>> TableEditor::grow_down(std::uint64_t page) {
    const auto found = find(page);
    if (!found) return std::unexpected(found.error());
    if (!is_stack_room(found->entry)) return PageRange{};  // somebody was faster
    // The two halves of a space are not neighbours.
    const std::uint64_t half_pages = entry_pages(root_.top() + 1) / 2;
    const std::uint64_t half = page / half_pages * half_pages;
    const std::uint64_t gap = std::min(found->entry.payload(), page - half);
    const auto below = first_of({page - gap, page}, is_accessible);
    if (!below) return std::unexpected(below.error());
    if (*below) return std::nullopt;
    const auto stack = first_of({page, half + half_pages}, ends_room);
    if (!stack) return std::unexpected(stack.error());
    const PageRange room{page, stack->value_or(half + half_pages)};
    if (auto done = make_stack(root_.entry.frame(), top(), room); !done)
        return std::unexpected(done.error());
    return room;
}

// Entries become others by the words of one commit, or as a fresh table's: a crash leaves the stack
// as it was, or grown.
Result<void> TableEditor::make_stack(FrameNumber table, const TablePosition& position,
                                     PageRange room) {
    const auto visit = [&](unsigned slot, PageRange part, bool whole) -> Result<void> {
        const Entry entry = session_.load_entry(table, slot);
        if (!entry.is_present() && whole) {
            session_.store_entry(table, slot,
                                 Entry::absent(AbsentKind::demand_zero, entry.protection(), 0,
                                               position.entry(slot)));
            return {};
        }
        FrameNumber below;
        if (entry.is_present()) {
            auto own = editable(table, position, slot, part);
            if (!own) return std::unexpected(own.error());
            below = *own;
        } else {
            auto made = split_absent(table, position, slot, entry);
            if (!made) return std::unexpected(made.error());
            below = made->frame;
        }
        return make_stack(below, position.child(slot), part);
    };
    if (auto done = each_slot(position, room, visit); !done) return done;
    if (session_.is_fresh(table)) {
        const auto [first_slot, end] = slots_touched(position, room);
        session_.flush_entries(table, first_slot, end);
    }
    return {};
}

}  // namespace holdfast::table
