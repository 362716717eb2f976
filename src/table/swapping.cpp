// What TableEditor does about pages that lose their frame for a while: which ones, and the way out
// and back. Only pages that nobody else has: of one reference, below links that are this tree's
// alone.
//
// Writers take no lock, so a page goes out by two commits, as in a promotion: the first takes R/W
// from its leaf, as copy-on-write does; when those who had begun to write have left, its bytes are
// copied to a frame of a swap region, and the second commit puts the entry of a swapped page in the
// leaf's place and frees its frame. A crash between the two leaves a page that its next writer
// finds to be his own.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "table/slots.hpp"
#include "table/table_editor.hpp"
#include "table/visit.hpp"

namespace holdfast::table {

using format::AbsentKind;
using format::FrameKind;
using format::Sharing;

namespace {

bool is_zero(const std::byte* page) {
    static constexpr std::array<std::byte, kPageSize> kZeros{};
    return std::memcmp(page, kZeros.data(), kPageSize) == 0;
}

}  // namespace

// The leaf of 4 KiB, if it may go out.
std::optional<TableEditor::Found> TableEditor::evictable(std::uint64_t page) {
    const memory::PhysicalMemory& memory = session_.memory();
    FrameNumber table = root_.entry.frame();
    for (TablePosition position = top();;) {
        // What goes out is tagged anew, so it has to be well before.
        if (!enter(table, position)) return std::nullopt;
        const auto slot =
            static_cast<unsigned>(page / entry_pages(position.level) % kEntriesPerTable);
        const Entry entry = session_.load_entry(table, slot);
        if (position.level > 1) {
            if (!entry.is_table(position.level) || !entry.is_writable()) return std::nullopt;
            table = entry.frame();
            position = position.child(slot);
            continue;
        }
        if (!entry.is_present() || check_entry(memory, entry, position, slot)) return std::nullopt;
        const auto metadata = session_.metadata(entry.frame());
        if (!metadata || metadata->kind != FrameKind::data || metadata->references != 1 ||
            metadata->is_fixed())
            return std::nullopt;
        return Found{entry, 1, table, slot};
    }
}

TableEditor::Clock TableEditor::candidates(std::uint64_t hand, std::uint64_t count) {
    const memory::PhysicalMemory& memory = session_.memory();
    Clock clock{.pages = {}, .hand = hand};
    const std::uint64_t end = own_pages(root_).end;
    // Down to the level-1 tables that are this tree's alone, in order.
    const auto look_in = [&](const auto& self, FrameNumber table, const TablePosition& position,
                             PageRange range) -> bool {
        for (std::uint64_t page = range.begin; page < range.end;) {
            const std::uint64_t span = entry_pages(position.level);
            const auto slot = static_cast<unsigned>(page / span % kEntriesPerTable);
            const PageRange part{page, std::min(range.end, (page & ~(span - 1)) + span)};
            page = part.end;
            if (!enter(table, position)) return false;
            const Entry entry = session_.load_entry(table, slot);
            clock.hand = part.end == end ? 0 : part.end;
            if (position.level > 1) {
                if (entry.is_table(position.level) && entry.is_writable() &&
                    memory.window_of(entry.frame()) != nullptr &&
                    self(self, entry.frame(), position.child(slot), part))
                    return true;
                continue;
            }
            if (!entry.is_present() || !evictable(part.begin)) continue;
            // The second chance. A processor or a writer sets A at the same time: one of the two
            // has the last word, and either is right. Nor is it flushed: after a crash A may be set
            // again.
            if (entry.bits() & Entry::kAccessed) {
                pool::clear_bits(memory.table(table) + slot, Entry::kAccessed);
                continue;
            }
            clock.pages.push_back(part.begin);
            if (clock.pages.size() == count) return true;
        }
        return false;
    };
    const TablePosition root_position = top();
    // Once around, and once more for what has had its second chance.
    for (int round = 0; round < 2 && clock.pages.size() < count; ++round) {
        if (!look_in(look_in, root_.entry.frame(), root_position, {hand, end}) && hand != 0)
            look_in(look_in, root_.entry.frame(), root_position, {0, hand});
    }
    std::ranges::sort(clock.pages);
    const auto twice = std::ranges::unique(clock.pages);
    clock.pages.erase(twice.begin(), twice.end());
    return clock;
}

Result<void> TableEditor::write_protect_page(std::uint64_t page) {
    const auto found = evictable(page);
    if (!found || !found->entry.is_writable()) return {};
    const auto metadata = session_.metadata_of(found->entry.frame());
    if (!metadata) return std::unexpected(metadata.error());
    const TablePosition position{1, root_.owner, page / kEntriesPerTable};
    link(found->table, found->slot,
         found->entry.with_sharing(Sharing::copy_on_write, position.entry(found->slot),
                                   metadata->generation));
    return {};
}

Result<TableEditor::SwappedOut> TableEditor::swap_out(std::uint64_t page,
                                                      std::optional<memory::Placement> swap) {
    const auto found = evictable(page);
    if (!found) return SwappedOut::no;
    const memory::PhysicalMemory& memory = session_.memory();
    const FrameNumber frame = memory.current(found->entry.frame());
    const TablePosition position{1, root_.owner, page / kEntriesPerTable};
    const Protection protection = found->entry.mapped_protection();
    const std::byte* const bytes = memory.host(frame);
    const auto metadata = session_.metadata_of(frame);
    if (!metadata) return std::unexpected(metadata.error());
    // Not written since it came back: its bytes are in the slot that it came from, if nobody has
    // that by now. They were made durable there by the commit that first sent it out: a crash
    // before this commit leaves the page in its frame and a free slot, one after it the slot.
    const auto slot = (found->entry.bits() & Entry::kDirty) != 0
                          ? std::nullopt
                          : memory.swap_cache().slot_of(frame, metadata->generation);
    const auto again =
        slot ? session_.take_again(*slot, root_.owner, page) : std::optional<TakenFrame>();
    SwappedOut how = SwappedOut::yes;
    if (again) {
        how = SwappedOut::clean;
        link(found->table, found->slot,
             Entry::swapped(again->frame, protection, position.entry(found->slot),
                            again->generation));
    } else if (is_zero(bytes)) {
        // It was never written, or with zeros: it needs no place.
        link(found->table, found->slot,
             Entry::absent(AbsentKind::demand_zero, protection, 0, position.entry(found->slot)));
    } else {
        if (!swap) return SwappedOut::no;
        auto taken = session_.take(FrameKind::data, root_.owner, page, *swap);
        if (!taken) return std::unexpected(taken.error());
        memory.swap_cache().forget_slot(taken->frame);
        // Flushed, and durable before the entry that names it: a crash before the commit leaves the
        // page where it was, and a free frame in the swap region.
        memory.pool().copy(memory.host(taken->frame), bytes, kPageSize);
        link(found->table, found->slot,
             Entry::swapped(taken->frame, protection, position.entry(found->slot),
                            taken->generation));
    }
    if (auto done = session_.release(frame); !done) return std::unexpected(done.error());
    return how;
}

Result<void> TableEditor::swap_in(std::uint64_t page, memory::Placement placement) {
    const auto found = find_to_edit(page);
    if (!found) return std::unexpected(found.error());
    if (!found->entry.is_swapped()) return {};  // somebody was faster
    const FrameNumber slot_frame = session_.memory().current(found->entry.frame());
    if (auto fine = check_reach(slot_frame, page); !fine) return fine;
    const TablePosition position{1, root_.owner, page / kEntriesPerTable};
    // Others that have the page go on to have it in the swap region.
    const auto copy =
        copied_leaf(slot_frame, found->entry.protection(), position, found->slot, placement);
    if (!copy) return std::unexpected(copy.error());
    link(found->table, found->slot, *copy);
    if (const auto metadata = session_.metadata_of(copy->frame()))
        session_.remember_swapped({copy->frame(), metadata->generation}, slot_frame);
    return session_.release(slot_frame);
}

}  // namespace holdfast::table
