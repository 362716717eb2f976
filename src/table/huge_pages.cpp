// What TableEditor does about leaves of 2 MiB and 1 GiB: a part of one is made a page of its own,
// one that is shared is copied, and pages are made one. None of it changes a translation but for
// where the bytes are.
#include <fmt/format.h>

#include "table/slots.hpp"
#include "table/table_editor.hpp"

namespace holdfast::table {

using format::AbsentKind;
using format::FrameKind;
using format::LimboKind;
using format::Sharing;

Result<void> TableEditor::check_reach(FrameNumber frame, std::uint64_t page,
                                      std::uint64_t frames) const {
    const memory::PhysicalMemory& memory = session_.memory();
    if (!memory.out_of_reach(frame) && memory.host(frame + (frames - 1)) != nullptr) return {};
    return fail(ErrorCode::lost,
                fmt::format("{}: the memory of the page at {:#x} is out of reach, and it cannot "
                            "be copied",
                            memory.pool().path(), address_of_page(page, root_.levels).bits()));
}

// The copies are flushed, and durable with the commit that leads to them.
Result<Entry> TableEditor::copied_leaf(FrameNumber old, Protection protection,
                                       const TablePosition& position, unsigned slot,
                                       memory::Placement placement) {
    const memory::PhysicalMemory& memory = session_.memory();
    const TablePosition child = position.child(slot);
    const auto copy =
        session_.take_leaf(position.level, root_.owner, child.first_page(), placement);
    if (copy) {
        memory.pool().copy(memory.host(copy->frame), memory.host(old),
                           format::entry_span_bytes(position.level));
        return Entry::leaf(copy->frame, protection, position.entry(slot), copy->generation);
    }
    if (position.level == 1 || copy.error().code != ErrorCode::no_space)
        return std::unexpected(copy.error());
    // Not in one piece.
    const auto parts = copied_parts(old, protection, child, placement);
    if (!parts) return std::unexpected(parts.error());
    return Entry::table(parts->frame, position.entry(slot), parts->generation);
}

Result<TakenFrame> TableEditor::copied_parts(FrameNumber old, Protection protection,
                                             const TablePosition& position,
                                             memory::Placement placement) {
    auto made = session_.take_table(position);
    if (!made) return made;
    for (unsigned part = 0; part < kEntriesPerTable; ++part) {
        const auto entry = copied_leaf(old + part * entry_pages(position.level), protection,
                                       position, part, placement);
        if (!entry) return std::unexpected(entry.error());
        session_.store_entry(made->frame, part, *entry);
    }
    session_.flush_entries(made->frame, 0, kEntriesPerTable);
    return made;
}

Result<TakenFrame> TableEditor::split_leaf(FrameNumber table, const TablePosition& position,
                                           unsigned slot, Entry entry) {
    const TablePosition child = position.child(slot);
    const FrameNumber old = session_.memory().current(entry.frame());
    const bool gone = is_gone(entry);
    const auto metadata = gone ? std::nullopt : session_.metadata(old);
    const bool is_fixed = metadata && metadata->is_fixed();
    bool in_place = true;
    if (!gone && !is_fixed) {
        const auto claim = session_.claim(old);
        if (!claim) return std::unexpected(claim.error());
        in_place = *claim;
    }
    std::array<std::uint16_t, kEntriesPerTable> generations{};
    if (!in_place) {
        if (auto fine = check_reach(old, child.first_page(), entry_pages(position.level)); !fine)
            return std::unexpected(fine.error());
    } else if (is_fixed) {
        // Each has a record of its own already.
        for (unsigned part = 0; part < kEntriesPerTable; ++part) {
            const auto each = session_.metadata_of(old + part * entry_pages(child.level));
            if (!each) return std::unexpected(each.error());
            generations[part] = each->generation;
        }
    } else if (!gone) {
        const auto split = session_.split(old, position.level);
        if (!split) return std::unexpected(split.error());
        generations = *split;
    }
    auto made = in_place ? session_.take_table(child)
                         : copied_parts(old, entry.mapped_protection(), child, {});
    if (!made) return made;
    if (in_place) {
        constexpr std::uint64_t kSeen = Entry::kAccessed | Entry::kDirty;
        for (unsigned part = 0; part < kEntriesPerTable; ++part) {
            const Entry leaf =
                Entry::leaf(old + part * entry_pages(child.level), entry.mapped_protection(),
                            child.entry(part), generations[part]);
            session_.store_entry(made->frame, part, Entry(leaf.bits() | (entry.bits() & kSeen)));
        }
        session_.flush_entries(made->frame, 0, kEntriesPerTable);
        // Whose memory is out of reach stays a fault: each entry is checked when it is met.
        if (gone || !check_reach(old, child.first_page(), entry_pages(position.level)))
            session_.distrust(made->frame);
    } else {
        session_.drop_shared(old);
        moved_.push_back({child.first_page(), child.first_page() + entry_pages(position.level)});
    }
    link(table, slot, Entry::table(made->frame, position.entry(slot), made->generation));
    return made;
}

Result<void> TableEditor::split_to_page(std::uint64_t page) {
    for (;;) {
        const auto found = find_to_edit(page);
        if (!found) return std::unexpected(found.error());
        if (!found->entry.is_present() || found->level == 1) return {};
        const TablePosition position{found->level, root_.owner, page >> (9 * found->level)};
        if (auto made = split_leaf(found->table, position, found->slot, found->entry); !made)
            return std::unexpected(made.error());
    }
}

Result<std::uint64_t> TableEditor::pages_to_copy(std::uint64_t page) {
    const auto found = find(page);
    if (!found) return std::unexpected(found.error());
    if (!found->entry.is_present() || is_gone(found->entry)) return 0;
    const auto metadata = session_.metadata_of(found->entry.frame());
    if (!metadata) return std::unexpected(metadata.error());
    // (Of a page that has one reference below a table that is shared, it is known only when the
    // table is copied or taken over.)
    const bool copies = metadata->kind != FrameKind::shared_data &&
                        (metadata->references != 1 || metadata->is_fixed());
    return copies ? entry_pages(found->level) : 0;
}

// --- promotion ---

// The entry of level 2, in a table that may be written, whatever it is.
Result<TableEditor::Found> TableEditor::find_block(std::uint64_t first_page) {
    FrameNumber table = root_.entry.frame();
    for (TablePosition position = top();;) {
        if (auto fine = enter(table, position); !fine) return std::unexpected(fine.error());
        const auto slot =
            static_cast<unsigned>(first_page / entry_pages(position.level) % kEntriesPerTable);
        const Entry entry = session_.load_entry(table, slot);
        if (position.level == 2 || !entry.is_table(position.level))
            return Found{entry, position.level, table, slot};
        const auto below =
            editable(table, position, slot, {first_page, first_page + entry_pages(2)});
        if (!below) return std::unexpected(below.error());
        table = *below;
        position = position.child(slot);
    }
}

Result<TableEditor::Promotable> TableEditor::promotable(std::uint64_t first_page) {
    const auto found = find(first_page);
    if (!found) return std::unexpected(found.error());
    if (found->level > 1) {
        if (found->entry.is_present()) return Promotable::is_huge;
        return !found->entry.is_empty() && found->entry.absent_kind() == AbsentKind::demand_zero
                   ? Promotable::yes
                   : Promotable::no;
    }
    const TablePosition position{1, root_.owner, first_page / kEntriesPerTable};
    const memory::PhysicalMemory& memory = session_.memory();
    for (unsigned slot = 0; slot < kEntriesPerTable; ++slot) {
        const Entry entry = session_.load_entry(found->table, slot);
        if (entry.is_empty() || entry.mapped_protection() != found->entry.mapped_protection())
            return Promotable::no;
        if (!entry.is_present()) {
            if (entry.absent_kind() != AbsentKind::demand_zero) return Promotable::no;
            continue;
        }
        if (check_entry(memory, entry, position, slot)) return Promotable::no;
        const auto metadata = session_.metadata_of(entry.frame());
        if (!metadata) return std::unexpected(metadata.error());
        // Others are to see what is written here, and cannot in a copy.
        if (metadata->kind != FrameKind::data) return Promotable::no;
    }
    return Promotable::yes;
}

// One word, the link to their table: as for a table that is shared.
Result<void> TableEditor::write_protect(std::uint64_t first_page) {
    const auto found = find_block(first_page);
    if (!found) return std::unexpected(found.error());
    if (!found->entry.is_table(found->level) || !found->entry.is_writable()) return {};
    const auto metadata = session_.metadata_of(found->entry.frame());
    if (!metadata) return std::unexpected(metadata.error());
    const TablePosition position{2, root_.owner, first_page >> (9 * 2)};
    // A crash from here on leaves a link that whoever writes next finds to be his alone.
    link(found->table, found->slot,
         found->entry.with_sharing(Sharing::copy_on_write, position.entry(found->slot),
                                   metadata->generation));
    return {};
}

Result<void> TableEditor::promote(std::uint64_t first_page, const TakenFrame& huge) {
    auto found = find_block(first_page);
    if (!found) return std::unexpected(found.error());
    memory::PhysicalMemory& memory = session_.memory();
    std::byte* const target = memory.host(huge.frame);
    while (found->level > 2) {
        // Demand-zero, all of it.
        const TablePosition above{found->level, root_.owner, first_page >> (9 * found->level)};
        if (auto made = split_absent(found->table, above, found->slot, found->entry); !made)
            return std::unexpected(made.error());
        found = find_block(first_page);
        if (!found) return std::unexpected(found.error());
    }
    const TablePosition position{2, root_.owner, first_page >> (9 * 2)};
    const TablePosition child = position.child(found->slot);
    Protection protection = found->entry.protection();
    if (!found->entry.is_table(2)) {
        memory.pool().fill(target, 0, format::entry_span_bytes(2));
    } else {
        const FrameNumber table = memory.current(found->entry.frame());
        protection = session_.load_entry(table, 0).mapped_protection();
        for (unsigned slot = 0; slot < kEntriesPerTable; ++slot) {
            const Entry entry = session_.load_entry(table, slot);
            std::byte* const part = target + slot * kPageSize;
            if (entry.is_present())
                memory.pool().copy(part, memory.host(entry.frame()), kPageSize);
            else
                memory.pool().fill(part, 0, kPageSize);
        }
        // Its frames go with it, but for those that others have, too.
        const auto claim = session_.claim(table);
        if (!claim) return std::unexpected(claim.error());
        const auto metadata = session_.metadata_of(table);
        if (!metadata) return std::unexpected(metadata.error());
        if (*claim)
            session_.detach(LimboKind::subtree, child, {table, metadata->generation});
        else
            session_.drop_shared(table);
    }
    // The copy is flushed, and durable with the commit of this one word: a crash before it leaves
    // the pages as they were, and a huge frame that is free.
    link(found->table, found->slot,
         Entry::leaf(huge.frame, protection, position.entry(found->slot), huge.generation));
    return {};
}

}  // namespace holdfast::table
