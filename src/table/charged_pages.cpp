#include "table/charged_pages.hpp"

#include "table/slots.hpp"
#include "table/table_editor.hpp"

namespace holdfast::table {

Result<std::uint64_t> TableEditor::charged_pages(PageRange range) {
    return charged_pages_in(root_.entry.frame(), top(), range);
}

Result<std::uint64_t> TableEditor::charged_pages_in(FrameNumber table,
                                                    const TablePosition& position,
                                                    PageRange range) {
    // What a damaged table maps nobody knows: it counts for nothing, here and when all is counted,
    // and can be unmapped with what is above it.
    if (!enter(table, position)) return 0;
    std::uint64_t pages = 0;
    const auto visit = [&](unsigned slot, PageRange part, bool) -> Result<void> {
        const Entry entry = session_.load_entry(table, slot);
        if (entry.is_table(position.level)) {
            const auto below = charged_pages_in(entry.frame(), position.child(slot), part);
            if (!below) return std::unexpected(below.error());
            pages += *below;
        } else if (is_charged(entry, [&](FrameNumber frame) { return session_.metadata(frame); })) {
            pages += part.count();
        }
        return {};
    };
    if (auto done = each_slot(position, range, visit); !done) return std::unexpected(done.error());
    return pages;
}

}  // namespace holdfast::table
