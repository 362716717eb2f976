// What TableEditor does about tables and pages that forks and snapshots share: see the head of
// table_editor.hpp for the rule, and EditSession for the references.
#include <fmt/format.h>

#include "table/slots.hpp"
#include "table/table_editor.hpp"

namespace holdfast::table {

using format::FrameKind;
using format::Sharing;

Result<Entry> TableEditor::claimed(Entry entry, const TablePosition& position,
                                   unsigned slot) const {
    if (!entry.is_present() || !entry.is_writable() || is_gone(entry)) return entry;
    const auto metadata = session_.metadata_of(entry.frame());
    if (!metadata) return std::unexpected(metadata.error());
    // A table below may have been shared by way of this one when others copied it, and then has
    // entries that are out of date: it waits for its own turn.
    if (!entry.is_table(position.level) &&
        session_.sharing_of(entry.frame(), *metadata) == Sharing::exclusive)
        return entry;
    return entry.with_sharing(Sharing::copy_on_write, position.entry(slot), metadata->generation);
}

Result<Entry> TableEditor::shared(Entry entry, const TablePosition& position, unsigned slot) {
    // Links to a supervisor object's tables are not counted, and its pages not copied.
    if (!entry.has_frame() || position.leads_away(slot) || is_gone(entry)) return entry;
    const auto metadata = session_.share(entry.frame());
    if (!metadata) return std::unexpected(metadata.error());
    // A swapped page needs no mark: whoever brings it back gets a frame of its own.
    if (!entry.is_present() || !entry.is_writable() || metadata->kind == FrameKind::shared_data)
        return entry;
    return entry.with_sharing(Sharing::copy_on_write, position.entry(slot), metadata->generation);
}

// Of a frame that is gone with its region's memory nobody knows the generation, or counts the
// references, any more.
bool TableEditor::is_gone(Entry entry) const {
    const memory::PhysicalMemory& memory = session_.memory();
    return !memory.metadata(entry.frame()) && memory.replaced_region(entry.frame()) != nullptr;
}

// The table below `slot`, to be changed over `part`: as it is if few entries will change and nobody
// shares it, otherwise a fresh copy in its place, whose entries are then written without a log.
// (What a processor sets in A and D of the old table between this and the commit is lost; whoever
// runs one stops it meanwhile.)
Result<FrameNumber> TableEditor::editable(FrameNumber table, const TablePosition& position,
                                          unsigned slot, PageRange part) {
    const Entry old_link = session_.load_entry(table, slot);
    const FrameNumber old = old_link.frame();
    const TablePosition child = position.child(slot);
    const bool in_place = is_edited_in_place(old, child, part);
    if (old_link.is_writable() && in_place) return old;
    if (auto fine = enter(old, child); !fine) return std::unexpected(fine.error());
    bool exclusive = old_link.is_writable();
    if (!exclusive) {
        const auto claim = session_.claim(old);
        if (!claim) return std::unexpected(claim.error());
        exclusive = *claim;
    }
    if (exclusive && in_place) {
        // The link and all entries below that may not permit writing change by one commit.
        for (unsigned each = 0; each < kEntriesPerTable; ++each) {
            const Entry entry = session_.load_entry(old, each);
            const auto now = claimed(entry, child, each);
            if (!now) return std::unexpected(now.error());
            if (*now != entry) session_.store_entry(old, each, *now);
        }
        const auto metadata = session_.metadata_of(old);
        if (!metadata) return std::unexpected(metadata.error());
        link(table, slot,
             old_link.with_sharing(Sharing::exclusive, position.entry(slot), metadata->generation));
        return old;
    }
    auto copy = session_.take_table(child);
    if (!copy) return std::unexpected(copy.error());
    for (unsigned each = 0; each < kEntriesPerTable; ++each) {
        const Entry entry = session_.load_entry(old, each);
        if (entry.is_empty()) continue;
        const auto now = !exclusive               ? shared(entry, child, each)
                         : old_link.is_writable() ? Result<Entry>(entry)
                                                  : claimed(entry, child, each);
        if (!now) return std::unexpected(now.error());
        session_.store_entry(copy->frame, each, *now);
    }
    copied(old, copy->frame);
    session_.flush_entries(copy->frame, 0, kEntriesPerTable);
    link(table, slot, Entry::table(copy->frame, position.entry(slot), copy->generation));
    if (!exclusive)
        session_.drop_shared(session_.memory().current(old));
    else if (auto done = session_.release(old); !done)
        return std::unexpected(done.error());
    return copy->frame;
}

Result<TableEditor::Found> TableEditor::find_to_edit(std::uint64_t page) {
    FrameNumber table = root_.entry.frame();
    for (TablePosition position = top();;) {
        if (auto fine = enter(table, position); !fine) return std::unexpected(fine.error());
        const auto slot =
            static_cast<unsigned>(page / entry_pages(position.level) % kEntriesPerTable);
        const Entry entry = session_.load_entry(table, slot);
        if (!entry.is_table(position.level)) return Found{entry, position.level, table, slot};
        const auto below = editable(table, position, slot, {page, page + 1});
        if (!below) return std::unexpected(below.error());
        table = *below;
        position = position.child(slot);
    }
}

Result<void> TableEditor::unshare_page(std::uint64_t page, memory::Placement placement) {
    const auto found = find_to_edit(page);
    if (!found) return std::unexpected(found.error());
    const Entry entry = found->entry;
    if (!entry.is_present() || is_gone(entry)) return {};
    const auto metadata = session_.metadata_of(entry.frame());
    if (!metadata) return std::unexpected(metadata.error());
    // Perhaps only tables were shared, or somebody was faster.
    if (!entry.is_copy_on_write() &&
        session_.sharing_of(entry.frame(), *metadata) == Sharing::exclusive)
        return {};
    const TablePosition position{found->level, root_.owner, page >> (9 * found->level)};
    const FrameNumber old = session_.memory().current(entry.frame());
    const auto claim = session_.claim(old);
    if (!claim) return std::unexpected(claim.error());
    const PageRange pages{position.child(found->slot).first_page(),
                          position.child(found->slot).first_page() + entry_pages(found->level)};
    if (pages.count() != 1) moved_.push_back(pages);
    if (*claim) {
        link(found->table, found->slot,
             entry.with_sharing(Sharing::exclusive, position.entry(found->slot),
                                metadata->generation));
        return {};
    }
    if (auto fine = check_reach(old, page, pages.count()); !fine) return fine;
    // Nobody writes to the old frame while it is shared. The copy is flushed, and durable with the
    // commit that leads to it: a crash before that leaves the old frame, and a free one.
    const auto copy = copied_leaf(old, entry.mapped_protection(), position, found->slot, placement);
    if (!copy) return std::unexpected(copy.error());
    link(found->table, found->slot, *copy);
    session_.drop_shared(old);
    return {};
}

Result<void> TableEditor::unshare_tables_in(FrameNumber table, const TablePosition& position,
                                            PageRange range, std::uint64_t& tables) {
    if (position.level == 1) return {};
    if (auto fine = enter(table, position); !fine) return fine;
    return each_slot(position, range, [&](unsigned slot, PageRange part, bool) -> Result<void> {
        const Entry link = session_.load_entry(table, slot);
        if (tables == 0 || !link.is_table(position.level)) return {};
        FrameNumber below = link.frame();
        if (!link.is_writable()) {
            const auto own = editable(table, position, slot, {part.begin, part.begin + 1});
            if (!own) return std::unexpected(own.error());
            below = *own;
            --tables;
        }
        return unshare_tables_in(below, position.child(slot), part, tables);
    });
}

Result<bool> TableEditor::unshare_tables(PageRange range, std::uint64_t tables) {
    if (auto done = unshare_tables_in(root_.entry.frame(), top(), range, tables); !done)
        return std::unexpected(done.error());
    return tables == 0;
}

Result<TakenFrame> TableEditor::share_root() {
    const FrameNumber root = root_.entry.frame();
    if (auto fine = enter(root, top()); !fine) return std::unexpected(fine.error());
    auto copy = session_.take_table(top());
    if (!copy) return copy;
    for (unsigned slot = 0; slot < kEntriesPerTable; ++slot) {
        const Entry entry = session_.load_entry(root, slot);
        if (entry.is_empty()) continue;
        const auto now = shared(entry, top(), slot);
        if (!now) return std::unexpected(now.error());
        // Both trees have the same entry from the commit on. What is below does not change.
        if (*now != entry) session_.store_entry(root, slot, *now);
        session_.store_entry(copy->frame, slot, *now);
    }
    copied(root, copy->frame);
    session_.flush_entries(copy->frame, 0, kEntriesPerTable);
    if (session_.is_fresh(root)) session_.flush_entries(root, 0, kEntriesPerTable);
    return copy;
}

}  // namespace holdfast::table
