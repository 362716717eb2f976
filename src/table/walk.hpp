// The walk: from a root and a virtual address to a frame, as the processor does it (SDM vol. 3A,
// 4.5), and validated as the processor cannot.
//
// No entry is followed that was not checked since the store was opened: its tag must fit, and its
// target's metadata say that it belongs right there (level, owner, index), or is data of this owner
// and page. The first walks through a table check the entry at hand; a later one validates the
// whole table, and remembers it in volatile memory. A walk through validated tables costs one test
// of a byte a level, off the chain of dependent loads. A table with bad entries is never
// remembered: each walk through it checks the entry at hand, so that its good entries stay usable
// and its bad ones never translate.
//
// Thread safety: walks may run in any number of threads, inside a ReaderSection, beside one editor.
// A walk that meets a change half-way may report damage that is none; callers repeat it under the
// space's writer lock before they believe it.
#pragma once

#include <cstdint>
#include <expected>

#include "format/entry.hpp"
#include "format/frame_metadata.hpp"
#include "holdfast/fault.hpp"
#include "memory/physical_memory.hpp"
#include "pool/write_set.hpp"

namespace holdfast::table {

using format::Entry;
using format::kEntriesPerTable;
using format::OwnerId;

// What identifies a tree of tables.
struct Root {
    Entry entry;  // at level levels+1, slot 0
    Levels levels = Levels::four;
    OwnerId owner = 0;
    // Of the tables that the upper half of the root links to, if the half is a supervisor object's;
    // the owner itself if this is that object.
    OwnerId upper_owner = 0;

    unsigned top() const { return static_cast<unsigned>(levels); }
    bool shares_upper_half() const { return upper_owner != 0 && upper_owner != owner; }
    // Of the word that holds the entry.
    constexpr format::EntryPlace place() const { return place_of_root(levels, owner); }
    static constexpr format::EntryPlace place_of_root(Levels levels, OwnerId owner) {
        return {static_cast<unsigned>(levels) + 1, format::kRootSlot, owner, 0};
    }
};

// The number of the page within the translated bits; what tables and metadata index by.
constexpr std::uint64_t page_index(VirtAddr address, Levels levels) {
    return address.bits() >> kPageShift &
           ((std::uint64_t{1} << (9 * static_cast<unsigned>(levels))) - 1);
}
constexpr VirtAddr address_of_page(std::uint64_t page_index, Levels levels) {
    return VirtAddr::truncated(page_index << kPageShift, levels);
}
// How many pages one entry at `level` spans.
constexpr std::uint64_t entry_pages(unsigned level) {
    return std::uint64_t{1} << (9 * (level - 1));
}

// The level of the entries that map pages of this size, and the size.
constexpr unsigned level_of(PageSize size) {
    return (static_cast<unsigned>(size) - static_cast<unsigned>(kPageShift)) / 9 + 1;
}
constexpr PageSize page_size_of(unsigned level) {
    return static_cast<PageSize>(kPageShift + 9 * (level - 1));
}

// Where a table is linked.
struct TablePosition {
    unsigned level = 0;
    OwnerId owner = 0;
    std::uint64_t index = 0;
    OwnerId upper_owner = 0;  // of a root, as Root has it
    // Other roots link to this very table, and do not count: it is there as long as its object, and
    // no other takes its place.
    bool is_pinned = false;

    TablePosition child(unsigned slot) const {
        const bool upper = upper_owner != 0 && slot >= kEntriesPerTable / 2;
        return {level - 1, upper ? upper_owner : owner, index * kEntriesPerTable + slot, 0,
                upper && upper_owner == owner};
    }
    // Whether the entry there links to a supervisor object's table.
    bool leads_away(unsigned slot) const {
        return upper_owner != 0 && upper_owner != owner && slot >= kEntriesPerTable / 2;
    }
    std::uint64_t first_page() const { return index << (9 * level); }
    constexpr format::EntryPlace entry(unsigned slot) const { return {level, slot, owner, index}; }
};

// Of the root table, and of the table at `level` that translates the page.
constexpr TablePosition top_position(const Root& root) {
    return {static_cast<unsigned>(root.levels), root.owner, 0, root.upper_owner};
}
constexpr TablePosition position_of(const Root& root, std::uint64_t page, unsigned level) {
    if (level == static_cast<unsigned>(root.levels)) return top_position(root);
    const bool is_upper = page >> (9 * static_cast<unsigned>(root.levels) - 1) != 0;
    return {level, is_upper && root.upper_owner != 0 ? root.upper_owner : root.owner,
            page >> (9 * level)};
}

// Where the entry at `level` stands that translates the address.
constexpr format::EntryPlace place_of(const Root& root, VirtAddr address, unsigned level) {
    return position_of(root, page_index(address, root.levels), level)
        .entry(format::slot_of(address, level));
}

// What is wrong with an entry of a table at `position`, or nothing. Present entries are checked
// against the metadata of their target. A loss (is_loss) is found last: then all else is well.
std::optional<FaultKind> check_entry(const memory::PhysicalMemory& memory, Entry entry,
                                     const TablePosition& position, unsigned slot);

// Whether the frame's metadata says that it is the table for this position.
bool is_table_of(const memory::PhysicalMemory& memory, FrameNumber frame,
                 const TablePosition& position);

// If the well entry names its frame by a number of before its region was moved: the entry with the
// number of now, which also takes its place in the table. Otherwise the entry.
Entry renumbered(const memory::PhysicalMemory& memory, std::uint64_t* word, Entry entry,
                 const format::EntryPlace& place);

// Sets A, and D, of the leaf that maps the address, as a processor does: for whoever has walked
// there in this reader section. Neither is flushed; a crash may lose them. With D the page is not
// what the swap cache remembers any more.
void mark_accessed(const memory::PhysicalMemory& memory, const Root& root, VirtAddr address,
                   bool is_write);

enum class TableCondition : std::uint8_t {
    well,
    has_losses,  // but for pages whose memory is out of reach
    damaged,
};

// Checks all entries of a table, which has a window; remembers it as validated if all are well.
// Entries with numbers of before a move are repaired.
TableCondition validate_table(const memory::PhysicalMemory& memory, FrameNumber frame,
                              const TablePosition& position);

// Whether the root's own word and the root table's metadata are as they should be.
bool check_root(const memory::PhysicalMemory& memory, const Root& root);

namespace detail {

// The walk's other half, from the root again: whatever is mapped, wherever the tables are.
// Validates tables on the way, or at least the entries at hand.
std::expected<Translation, Fault> walk_checking(const memory::PhysicalMemory& memory, Root root,
                                                VirtAddr address);
Fault absent_fault(Entry entry, unsigned level, VirtAddr address);

// `links`: the AND of the links' bits, whose R/W are 0 where a table is shared.
inline Translation translation(Entry leaf, unsigned level, std::uint64_t links, VirtAddr address) {
    const std::uint64_t offset_mask = format::entry_span_bytes(level) - 1;
    const Protection protection = Entry::protection_of(leaf.bits() & links, leaf.bits());
    return {
        PhysAddr((leaf.bits() & Entry::kFrameMask & ~offset_mask) | (address.bits() & offset_mask)),
        page_size_of(level), protection,
        leaf.is_copy_on_write() || (leaf.is_writable() && !protection.writable())};
}

// The walk's straight half: links to validated tables, down to a page. A processor
// overlaps as many walks as fit into its window, so the number of instructions is what counts: the
// number of levels is known to the compiler, and all that following a link takes is in registers.
template <bool kValidate, Levels kLevels>
[[gnu::always_inline]] inline std::expected<Translation, Fault> walk_straight(
    const memory::PhysicalMemory& memory, Root root, VirtAddr address) {
    if (VirtAddr::truncated(address.bits(), kLevels) != address) [[unlikely]]
        return walk_checking(memory, root, address);
    // A copy, which stays in registers: through a reference it would be loaded again at each level.
    // NOLINTNEXTLINE(performance-unnecessary-copy-initialization)
    const memory::LinkedTables tables = memory.linked_tables();
    Entry entry = root.entry;
    std::uint64_t links = ~std::uint64_t{0};
#pragma GCC unroll 5
    for (unsigned level = static_cast<unsigned>(kLevels); level > 0; --level) {
        if (!(kValidate ? tables.fits(entry) : tables.fits_unvalidated(entry))) [[unlikely]] {
            // It stood in a validated table, or is the root's.
            if (entry.is_present() && entry.is_leaf(level + 1) &&
                level < static_cast<unsigned>(kLevels))
                return translation(entry, level + 1, links, address);
            return walk_checking(memory, root, address);
        }
        links &= entry.bits();
        // Acquire: a table is filled before it is linked.
        entry = Entry(pool::load_word(tables.table(entry) + format::slot_of(address, level),
                                      std::memory_order_acquire));
    }
    if (!entry.is_present()) [[unlikely]]
        return walk_checking(memory, root, address);
    return translation(entry, 1, links, address);
}

}  // namespace detail

// An empty root maps nothing. `kValidate` = false does not look whether tables were validated, for
// measuring what that costs.
template <bool kValidate = true>
[[gnu::always_inline]] inline std::expected<Translation, Fault> walk(
    const memory::PhysicalMemory& memory, Root root, VirtAddr address) {
    if (root.levels == Levels::four) [[likely]]
        return detail::walk_straight<kValidate, Levels::four>(memory, root, address);
    if (root.levels == Levels::five)
        return detail::walk_straight<kValidate, Levels::five>(memory, root, address);
    return detail::walk_straight<kValidate, Levels::three>(memory, root, address);
}

}  // namespace holdfast::table
