#include "table/table_editor.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

#include "table/slots.hpp"

namespace holdfast::table {

using format::AbsentKind;
using format::FrameKind;
using format::LimboKind;

// Tables of an earlier commit are validated before they are edited, as they are before a walk.
Result<void> TableEditor::enter(FrameNumber table, const TablePosition& position) {
    if (session_.is_fresh(table)) return {};
    const memory::PhysicalMemory& memory = session_.memory();
    const memory::Window* const window = memory.window_of(table);
    if (window != nullptr && window->is_validated(table)) return {};
    // What lies in a region that is out of reach can be unmapped, and stands in nobody's way.
    if (window != nullptr && is_table_of(memory, table, position) &&
        validate_table(memory, table, position) != TableCondition::damaged)
        return {};
    return fail(ErrorCode::damaged,
                fmt::format("{}: the level-{} table for {:#x} is damaged, and the range cannot be "
                            "changed; `verify` lists what is lost",
                            memory.pool().path(), position.level,
                            address_of_page(position.first_page(), root_.levels).bits()));
}

void TableEditor::copied(FrameNumber old, FrameNumber copy) {
    // Of a table that was entered and is neither fresh nor validated, some pages are out of reach.
    if (!session_.is_fresh(old) && !session_.memory().window_of(old)->is_validated(old))
        session_.distrust(copy);
}

// Whether the entries of this table that `part` touches are written into it: if they are few, or
// it is fresh, or no copy can take its place.
bool TableEditor::is_edited_in_place(FrameNumber table, const TablePosition& position,
                                     PageRange part) const {
    const auto [first, end] = slots_touched(position, part);
    return end - first <= kFewEntries || position.is_pinned || session_.is_fresh(table);
}

Result<TableEditor::Place> TableEditor::place_of(PageRange range) {
    Place place{range, root_.entry.frame(), top()};
    for (;;) {
        if (auto fine = enter(place.table, place.position); !fine)
            return std::unexpected(fine.error());
        const auto [slot, end] = slots_touched(place.position, range);
        const Entry entry = session_.load_entry(place.table, slot);
        if (end - slot != 1 || !entry.is_table(place.position.level)) return place;
        const TablePosition child = place.position.child(slot);
        if (!entry.is_writable() || !is_edited_in_place(entry.frame(), child, range)) return place;
        place.table = entry.frame();
        place.position = child;
    }
}

template <typename Predicate>
Result<std::optional<std::uint64_t>> TableEditor::first(FrameNumber table,
                                                        const TablePosition& position,
                                                        PageRange range, const Predicate& wanted) {
    if (auto fine = enter(table, position); !fine) return std::unexpected(fine.error());
    std::optional<std::uint64_t> found;
    const auto visit = [&](unsigned slot, PageRange part, bool) -> Result<void> {
        if (found) return {};
        const Entry entry = session_.load_entry(table, slot);
        if (entry.is_table(position.level)) {
            auto below = first(entry.frame(), position.child(slot), part, wanted);
            if (!below) return std::unexpected(below.error());
            found = *below;
        } else if (wanted(entry)) {
            found = part.begin;
        }
        return {};
    };
    if (auto done = each_slot(position, range, visit); !done) return std::unexpected(done.error());
    return found;
}

Result<std::optional<std::uint64_t>> TableEditor::first_mapped(const Place& place) {
    return first(place.table, place.position, place.range,
                 [](Entry entry) { return !entry.is_empty(); });
}

Result<std::optional<std::uint64_t>> TableEditor::first_hole(const Place& place) {
    return first(place.table, place.position, place.range,
                 [](Entry entry) { return entry.is_empty(); });
}

Result<std::optional<std::uint64_t>> TableEditor::first_of(PageRange range, bool (*wanted)(Entry)) {
    return first(root_.entry.frame(), top(), range, wanted);
}

Result<TableEditor::Found> TableEditor::find(std::uint64_t page) {
    FrameNumber table = root_.entry.frame();
    std::uint64_t links = ~std::uint64_t{0};
    for (TablePosition position = top();;) {
        if (auto fine = enter(table, position); !fine) return std::unexpected(fine.error());
        const auto slot =
            static_cast<unsigned>(page / entry_pages(position.level) % kEntriesPerTable);
        const Entry entry = session_.load_entry(table, slot);
        if (!entry.is_table(position.level))
            return Found{entry, position.level, table, slot, links};
        links &= entry.bits();
        table = entry.frame();
        position = position.child(slot);
    }
}

// --- map ---

struct TableEditor::FreshFrames final : LeafSource {
    FreshFrames(EditSession& session_in, OwnerId owner_in, memory::Placement placement_in,
                unsigned leaf_level = 1)
        : LeafSource(leaf_level), session(session_in), owner(owner_in), placement(placement_in) {}
    Result<TakenFrame> next(std::uint64_t page) override {
        auto taken = session.take_leaf(level, owner, page, placement);
        if (taken) {
            memory::PhysicalMemory& memory = session.memory();
            memory.pool().fill(memory.host(taken->frame), 0, format::entry_span_bytes(level));
        }
        return taken;
    }
    EditSession& session;
    OwnerId owner;
    memory::Placement placement;
};

struct TableEditor::GivenFrames final : LeafSource {
    GivenFrames(std::uint64_t begin_in, std::vector<TakenFrame> frames_in)
        : begin(begin_in), frames(std::move(frames_in)) {}
    Result<TakenFrame> next(std::uint64_t page) override {
        return frames[(page - begin) % frames.size()];
    }
    std::uint64_t begin;
    std::vector<TakenFrame> frames;
};

struct TableEditor::DeviceFrames final : LeafSource {
    DeviceFrames(const EditSession& session_in, std::uint64_t begin_in, FrameNumber first_in,
                 std::uint64_t count_in, unsigned leaf_level)
        : LeafSource(leaf_level),
          session(session_in),
          begin(begin_in),
          first(first_in),
          count(count_in) {}
    Result<TakenFrame> next(std::uint64_t page) override {
        const FrameNumber frame = first + (page - begin) % count;
        const auto metadata = session.metadata_of(frame);
        if (!metadata) return std::unexpected(metadata.error());
        return TakenFrame{frame, metadata->generation};
    }
    const EditSession& session;
    std::uint64_t begin;
    FrameNumber first;
    std::uint64_t count;
};

// How many tables a range needs below an empty slot of its position.
std::uint64_t TableEditor::tables_for(const TablePosition& position, PageRange range,
                                      unsigned leaf_level) {
    std::uint64_t tables = 0;
    for (unsigned level = leaf_level; level <= position.level; ++level) {
        const std::uint64_t span = entry_pages(level + 1);
        tables += (range.end - 1) / span - range.begin / span + 1;
    }
    return tables;
}

std::uint64_t TableEditor::missing_tables(FrameNumber table, const TablePosition& position,
                                          PageRange range, unsigned leaf_level) const {
    if (position.level == leaf_level) return 0;
    std::uint64_t tables = 0;
    std::ignore =
        each_slot(position, range, [&](unsigned slot, PageRange part, bool) -> Result<void> {
            const Entry entry = session_.load_entry(table, slot);
            const TablePosition child = position.child(slot);
            tables += entry.is_empty() ? tables_for(child, part, leaf_level)
                                       : missing_tables(entry.frame(), child, part, leaf_level);
            return {};
        });
    return tables;
}

// Reserves so many frames for pages, and those for the tables that the range is missing, if they
// are many together.
Result<void> TableEditor::reserve_for(const Place& place, std::uint64_t leaves,
                                      memory::Placement placement, unsigned leaf_level) {
    // They are few even if all tables are missing: no need to look.
    if (leaves + tables_for(place.position, place.range, leaf_level) <= EditSession::kFewFrames)
        return {};
    const std::uint64_t tables =
        missing_tables(place.table, place.position, place.range, leaf_level);
    if (leaves + tables <= EditSession::kFewFrames) return {};
    if (leaf_level == 1 && (placement.is_pool() || leaves == 0))
        return session_.reserve(leaves + tables + edge_tables());
    const auto done = leaf_level == 1 ? session_.reserve(leaves, placement)
                                      : session_.reserve_huge(leaf_level, leaves, placement);
    if (!done) return done;
    return session_.reserve(tables + edge_tables());
}

Result<void> TableEditor::map(const Place& place, Protection protection,
                              memory::Placement placement, unsigned leaf_level) {
    const std::uint64_t leaves = place.range.count() / entry_pages(leaf_level);
    if (auto done = reserve_for(place, leaves, placement, leaf_level); !done) return done;
    FreshFrames source(session_, root_.owner, placement, leaf_level);
    return map_in(place.table, place.position, place.range, protection, &source);
}

Result<void> TableEditor::map_frames(const Place& place, Protection protection,
                                     const std::vector<FrameNumber>& frames) {
    if (auto done = reserve_for(place, 0, {}); !done) return done;
    const PageRange range = place.range;
    std::vector<TakenFrame> given;
    for (std::size_t i = 0; i < std::min<std::uint64_t>(frames.size(), range.count()); ++i) {
        const std::uint64_t references =
            range.count() / frames.size() + (i < range.count() % frames.size() ? 1 : 0);
        auto shared = session_.add_references(frames[i], references);
        if (!shared) return std::unexpected(shared.error());
        given.push_back(*shared);
    }
    GivenFrames source(range.begin, std::move(given));
    return map_in(place.table, place.position, range, protection, &source);
}

Result<void> TableEditor::map_device(const Place& place, Protection protection, FrameNumber first,
                                     std::uint64_t count, unsigned leaf_level) {
    if (auto done = reserve_for(place, 0, {}, leaf_level); !done) return done;
    DeviceFrames source(session_, place.range.begin, first, count, leaf_level);
    return map_in(place.table, place.position, place.range, protection, &source);
}

Result<void> TableEditor::map_absent(const Place& place, AbsentKind kind, Protection protection,
                                     std::uint64_t payload) {
    return map_in(place.table, place.position, place.range, protection, nullptr, kind, payload);
}

Result<void> TableEditor::map_in(FrameNumber table, const TablePosition& position, PageRange range,
                                 Protection protection, LeafSource* source, AbsentKind kind,
                                 std::uint64_t payload) {
    if (auto fine = enter(table, position); !fine) return fine;
    const auto visit = [&](unsigned slot, PageRange part, bool whole) -> Result<void> {
        const Entry old = session_.load_entry(table, slot);
        if (old.is_empty() && position.level > 1 && position.child(slot).is_pinned)
            return fail(ErrorCode::damaged,
                        fmt::format("{}: the table for {:#x} of the supervisor half was lost, and "
                                    "the spaces that share it would not see another; use another "
                                    "supervisor object",
                                    session_.memory().pool().path(),
                                    address_of_page(part.begin, root_.levels).bits()));
        if (source == nullptr && whole && old.is_empty()) {
            // One entry stands for all the range below it.
            session_.store_entry(table, slot,
                                 Entry::absent(kind, protection, payload, position.entry(slot)));
            return {};
        }
        if (source != nullptr && position.level == source->level) {
            // A table of which damage has left nothing.
            if (old.is_table(position.level))
                if (auto done = session_.release(old.frame()); !done) return done;
            auto frame = source->next(part.begin);
            if (!frame) return std::unexpected(frame.error());
            session_.store_entry(
                table, slot,
                Entry::leaf(frame->frame, protection, position.entry(slot), frame->generation));
            return {};
        }
        const TablePosition child = position.child(slot);
        if (!old.is_empty()) {
            auto below = editable(table, position, slot, part);
            if (!below) return std::unexpected(below.error());
            return map_in(*below, child, part, protection, source, kind, payload);
        }
        auto made = session_.take_table(child);
        if (!made) return std::unexpected(made.error());
        if (auto done = map_in(made->frame, child, part, protection, source, kind, payload); !done)
            return done;
        session_.store_entry(table, slot,
                             Entry::table(made->frame, position.entry(slot), made->generation));
        return {};
    };
    if (auto done = each_slot(position, range, visit); !done) return done;
    if (session_.is_fresh(table)) {
        const auto [first, end] = slots_touched(position, range);
        session_.flush_entries(table, first, end);
    }
    return {};
}

Result<TakenFrame> TableEditor::split_absent(FrameNumber table, const TablePosition& position,
                                             unsigned slot, Entry entry) {
    const TablePosition child = position.child(slot);
    auto made = session_.take_table(child);
    if (!made) return made;
    for (unsigned below = 0; below < kEntriesPerTable; ++below)
        session_.store_entry(made->frame, below,
                             Entry::absent(entry.absent_kind(), entry.protection(), entry.payload(),
                                           child.entry(below)));
    session_.flush_entries(made->frame, 0, kEntriesPerTable);
    link(table, slot, Entry::table(made->frame, position.entry(slot), made->generation));
    return made;
}

void TableEditor::link(FrameNumber table, unsigned slot, Entry entry) {
    session_.store_entry(table, slot, entry);
    if (session_.is_fresh(table)) session_.flush_entries(table, slot, slot + 1);
}

Result<void> TableEditor::populate(std::uint64_t page, memory::Placement placement,
                                   unsigned largest_level) {
    auto found = find_to_edit(page);
    if (!found) return std::unexpected(found.error());
    if (found->entry.is_empty())
        return fail(ErrorCode::not_mapped, fmt::format("nothing is mapped at {:#x}",
                                                       address_of_page(page, root_.levels).bits()));
    // Somebody was faster; who asks looks again, at a page with a frame, or swapped out already.
    if (found->entry.is_present() || found->entry.absent_kind() != AbsentKind::demand_zero)
        return {};
    unsigned wished = std::min(1 + static_cast<unsigned>(found->entry.payload()), largest_level);
    for (;;) {
        const TablePosition position{found->level, root_.owner, page >> (9 * found->level)};
        if (found->level <= wished) {
            FreshFrames source(session_, root_.owner, placement, found->level);
            auto frame = source.next(position.child(found->slot).first_page());
            if (frame) {
                link(found->table, found->slot,
                     Entry::leaf(frame->frame, found->entry.protection(),
                                 position.entry(found->slot), frame->generation));
                return {};
            }
            if (found->level == 1 || frame.error().code != ErrorCode::no_space)
                return std::unexpected(frame.error());
            // Not in one piece: its size was a wish.
            wished = found->level - 1;
        }
        if (auto made = split_absent(found->table, position, found->slot, found->entry); !made)
            return std::unexpected(made.error());
        found = find_to_edit(page);
        if (!found) return std::unexpected(found.error());
    }
}

Result<bool> TableEditor::populate_zero(std::uint64_t page, const TakenFrame& zero) {
    const auto found = find(page);
    if (!found) return std::unexpected(found.error());
    if (found->entry.payload() != 0) return false;
    return fill_absent(
        page, AbsentKind::demand_zero, [&] { return Result<TakenFrame>(zero); },
        format::Sharing::copy_on_write);
}

Result<bool> TableEditor::fill_absent(std::uint64_t page, AbsentKind kind,
                                      const std::function<Result<TakenFrame>()>& frame,
                                      format::Sharing sharing) {
    auto found = find_to_edit(page);
    const auto is_so = [&] {
        return !found->entry.is_empty() && !found->entry.is_present() &&
               found->entry.absent_kind() == kind;
    };
    while (found && is_so() && found->level > 1) {
        const TablePosition position{found->level, root_.owner, page >> (9 * found->level)};
        if (auto made = split_absent(found->table, position, found->slot, found->entry); !made)
            return std::unexpected(made.error());
        found = find_to_edit(page);
    }
    if (!found) return std::unexpected(found.error());
    if (!is_so()) return false;
    const auto taken = frame();
    if (!taken) return std::unexpected(taken.error());
    const TablePosition position{1, root_.owner, page / kEntriesPerTable};
    link(found->table, found->slot,
         Entry::leaf(taken->frame, found->entry.protection(), position.entry(found->slot),
                     taken->generation, sharing));
    return true;
}

// --- unmap ---

Result<void> TableEditor::unmap(PageRange range) {
    const bool directly = range.count() <= kFewPages;
    auto gathered = unmap_in(root_.entry.frame(), top(), range, directly);
    if (!gathered) return std::unexpected(gathered.error());
    if (gathered->gather) session_.detach(LimboKind::subtree, top(), *gathered->gather);
    return {};
}

// Looks at slot `likely_used` and onwards first: mostly the next page is mapped.
bool TableEditor::is_all_empty(FrameNumber table, unsigned likely_used) const {
    const std::uint64_t* const words = session_.memory().table(table);
    for (unsigned i = 0; i < kEntriesPerTable; ++i) {
        const unsigned slot = (likely_used + i) % kEntriesPerTable;
        if (pool::load_word(words + slot, std::memory_order_relaxed) != 0 &&
            !session_.load_entry(table, slot).is_empty())
            return false;
    }
    return !session_.has_nonzero_writes(words, words + kEntriesPerTable);
}

// Empties the range in this table.
Result<TableEditor::Unmapped> TableEditor::unmap_in(FrameNumber table,
                                                    const TablePosition& position, PageRange range,
                                                    bool directly) {
    if (auto fine = enter(table, position); !fine) return std::unexpected(fine.error());
    Unmapped outcome;
    std::optional<TakenFrame>& gather = outcome.gather;
    const auto remove_entry = [&](unsigned slot) {
        session_.store_entry(table, slot, Entry());
        outcome.emptied = true;
    };
    const auto gather_entry = [&](unsigned slot, Entry entry) -> Result<void> {
        if (!gather) {
            auto made = session_.take_table(position);
            if (!made) return std::unexpected(made.error());
            gather = *made;
        }
        session_.store_entry(gather->frame, slot, entry);
        return {};
    };
    const auto visit = [&](unsigned slot, PageRange part, bool whole) -> Result<void> {
        Entry entry = session_.load_entry(table, slot);
        if (entry.is_empty()) return {};
        const TablePosition child = position.child(slot);
        if (!entry.has_frame()) {
            if (whole) {
                remove_entry(slot);
                return {};
            }
            auto made = split_absent(table, position, slot, entry);
            if (!made) return std::unexpected(made.error());
            entry = session_.load_entry(table, slot);
        } else if (entry.is_leaf(position.level) && !whole) {
            auto made = split_leaf(table, position, slot, entry);
            if (!made) return std::unexpected(made.error());
            entry = session_.load_entry(table, slot);
        } else if (entry.is_leaf(position.level)) {
            remove_entry(slot);
            // The frame goes with its entry: directly, or with the gather table.
            return directly ? session_.release(entry.frame()) : gather_entry(slot, entry);
        } else if (whole && !child.is_pinned) {
            // A whole subtree: one entry changes its place.
            remove_entry(slot);
            return gather_entry(slot, entry);
        }
        auto table_below = editable(table, position, slot, part);
        if (!table_below) return std::unexpected(table_below.error());
        auto below = unmap_in(*table_below, child, part, directly);
        if (!below) return std::unexpected(below.error());
        if (below->gather)
            if (auto done =
                    gather_entry(slot, Entry::table(below->gather->frame, position.entry(slot),
                                                    below->gather->generation));
                !done)
                return done;
        if (below->emptied && !child.is_pinned &&
            is_all_empty(*table_below, slots_touched(child, part).second)) {
            // An empty table is of no use, and would be missed by the accounting of free frames.
            remove_entry(slot);
            return session_.release(*table_below);
        }
        return {};
    };
    if (auto done = each_slot(position, range, visit); !done) return std::unexpected(done.error());
    const auto [first, end] = slots_touched(position, range);
    if (session_.is_fresh(table)) session_.flush_entries(table, first, end);
    if (gather) session_.flush_entries(gather->frame, first, end);
    return outcome;
}

// --- protect ---

// How many tables will be copied: all of every subtree that lies whole in the range.
std::uint64_t TableEditor::copied_tables(FrameNumber table, const TablePosition& position,
                                         PageRange range) const {
    if (position.level == 1) return 0;
    std::uint64_t tables = 0;
    std::ignore =
        each_slot(position, range, [&](unsigned slot, PageRange part, bool whole) -> Result<void> {
            const Entry entry = session_.load_entry(table, slot);
            if (!entry.is_table(position.level)) return {};
            tables += (whole && !position.child(slot).is_pinned ? 1 : 0) +
                      copied_tables(entry.frame(), position.child(slot), part);
            return {};
        });
    return tables;
}

Result<void> TableEditor::protect(const Place& place, Protection protection) {
    const std::uint64_t tables = copied_tables(place.table, place.position, place.range);
    if (tables + edge_tables() > EditSession::kFewFrames)
        if (auto done = session_.reserve(tables + edge_tables()); !done) return done;
    auto shell = protect_in(place.table, place.position, place.range, protection);
    if (!shell) return std::unexpected(shell.error());
    if (*shell) session_.detach(LimboKind::shell, place.position, **shell);
    return {};
}

Result<Entry> TableEditor::reprotected(Entry entry, const TablePosition& position, unsigned slot,
                                       Protection protection) const {
    if (!entry.is_present() && entry.absent_kind() == AbsentKind::guard) return entry;
    if (!entry.has_frame() || is_gone(entry))
        return entry.with_protection(protection, position.entry(slot), 0);
    const auto metadata = session_.metadata_of(entry.frame());
    if (!metadata) return std::unexpected(metadata.error());
    return entry.with_protection(protection, position.entry(slot), metadata->generation,
                                 session_.sharing_of(entry.frame(), *metadata));
}

// Returns a gather table with the old tables of subtrees that were replaced by copies, if any.
Result<std::optional<TakenFrame>> TableEditor::protect_in(FrameNumber table,
                                                          const TablePosition& position,
                                                          PageRange range, Protection protection) {
    if (auto fine = enter(table, position); !fine) return std::unexpected(fine.error());
    std::optional<TakenFrame> shell;
    const auto shell_entry = [&](unsigned slot, Entry entry) -> Result<void> {
        if (!shell) {
            auto made = session_.take_table(position);
            if (!made) return std::unexpected(made.error());
            shell = *made;
        }
        session_.store_entry(shell->frame, slot, entry);
        return {};
    };
    const auto visit = [&](unsigned slot, PageRange part, bool whole) -> Result<void> {
        Entry entry = session_.load_entry(table, slot);
        const TablePosition child = position.child(slot);
        if (!whole && !entry.is_table(position.level)) {
            auto made = entry.is_present() ? split_leaf(table, position, slot, entry)
                                           : split_absent(table, position, slot, entry);
            if (!made) return std::unexpected(made.error());
            entry = session_.load_entry(table, slot);
        }
        if (!entry.is_table(position.level)) {
            auto changed = reprotected(entry, position, slot, protection);
            if (!changed) return std::unexpected(changed.error());
            session_.store_entry(table, slot, *changed);
            return {};
        }
        if (whole && !child.is_pinned && !session_.is_fresh(entry.frame())) {
            auto copy = copy_protected(entry.frame(), child, protection);
            if (!copy) return std::unexpected(copy.error());
            session_.store_entry(table, slot,
                                 Entry::table(copy->frame, position.entry(slot), copy->generation));
            return shell_entry(slot, entry);
        }
        auto table_below = editable(table, position, slot, part);
        if (!table_below) return std::unexpected(table_below.error());
        auto below = protect_in(*table_below, child, part, protection);
        if (!below) return std::unexpected(below.error());
        if (!*below) return {};
        return shell_entry(
            slot, Entry::table((*below)->frame, position.entry(slot), (*below)->generation));
    };
    if (auto done = each_slot(position, range, visit); !done) return std::unexpected(done.error());
    const auto [first, end] = slots_touched(position, range);
    if (session_.is_fresh(table)) session_.flush_entries(table, first, end);
    if (shell) session_.flush_entries(shell->frame, first, end);
    return shell;
}

Result<TakenFrame> TableEditor::copy_protected(FrameNumber table, const TablePosition& position,
                                               Protection protection) {
    if (auto fine = enter(table, position); !fine) return std::unexpected(fine.error());
    auto copy = session_.take_table(position);
    if (!copy) return copy;
    for (unsigned slot = 0; slot < kEntriesPerTable; ++slot) {
        const Entry entry = session_.load_entry(table, slot);
        if (entry.is_empty()) continue;
        if (entry.is_table(position.level)) {
            auto below = copy_protected(entry.frame(), position.child(slot), protection);
            if (!below) return below;
            session_.store_entry(
                copy->frame, slot,
                Entry::table(below->frame, position.entry(slot), below->generation));
        } else {
            auto changed = reprotected(entry, position, slot, protection);
            if (!changed) return std::unexpected(changed.error());
            session_.store_entry(copy->frame, slot, *changed);
        }
    }
    session_.flush_entries(copy->frame, 0, kEntriesPerTable);
    copied(table, copy->frame);
    return copy;
}

}  // namespace holdfast::table
