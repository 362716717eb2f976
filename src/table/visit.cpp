#include "table/visit.hpp"

#include <algorithm>

namespace holdfast::table {
namespace {

void visit_in(const memory::PhysicalMemory& memory, FrameNumber table,
              const TablePosition& position, PageRange pages, const Visitor& visitor) {
    const memory::Window* const window = memory.window_of(table);
    const bool valid = window->is_validated(table) ||
                       validate_table(memory, table, position) == TableCondition::well;
    if (visitor.table) visitor.table(table, position);
    const std::uint64_t span = entry_pages(position.level);
    for (std::uint64_t page = pages.begin; page < pages.end;) {
        const std::uint64_t slot_begin = page & ~(span - 1);
        const PageRange part{page, std::min(pages.end, slot_begin + span)};
        if (visitor.is_enough && visitor.is_enough(page)) return;
        page = part.end;
        const auto slot = static_cast<unsigned>(slot_begin / span % kEntriesPerTable);
        std::uint64_t* const word = window->table(table) + slot;
        Entry entry(pool::load_word(word));
        if (entry.is_empty()) continue;
        VisitedRange visited{part, entry, position.level, entry.mapped_protection(), {}};
        if (!valid) visited.damage = check_entry(memory, entry, position, slot);
        if (!valid && !visited.damage)
            visited.entry = renumbered(memory, word, entry, position.entry(slot));
        if (entry.is_table(position.level) && !visited.damage)
            visit_in(memory, memory.current(entry.frame()), position.child(slot), part, visitor);
        else if (visitor.range)
            visitor.range(visited);
    }
}

}  // namespace

void visit(const memory::PhysicalMemory& memory, const Root& root, PageRange pages,
           const Visitor& visitor) {
    visit_in(memory, root.entry.frame(), top_position(root), pages, visitor);
}

}  // namespace holdfast::table
