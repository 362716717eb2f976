// The walk: from a root and a virtual address to a frame, as the processor does it (SDM vol. 3A,
// 4.5), and validated as the processor cannot.
//
// Every table is validated once after the store was opened, on the first walk through it: each of
// its entries must carry a fitting tag, and point to a frame whose metadata says that it belongs
// right there (level, owner, index), or is data of this owner and page. The result is remembered in
// a volatile bitmap. A walk through validated tables costs one bit test a level, off the chain of
// dependent loads. A table with bad entries is never remembered: each walk through it checks the
// entry at hand, so that its good entries stay usable and its bad ones never translate.
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

    unsigned top() const { return static_cast<unsigned>(levels); }
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

// Where a table is linked.
struct TablePosition {
    unsigned level = 0;
    OwnerId owner = 0;
    std::uint64_t index = 0;

    TablePosition child(unsigned slot) const {
        return {level - 1, owner, index * kEntriesPerTable + slot};
    }
    std::uint64_t first_page() const { return index << (9 * level); }
};

// What is wrong with an entry of a table at `position`, or nothing. Present entries are checked
// against the metadata of their target; `load` reads a word of the medium.
std::optional<FaultKind> check_entry(const memory::PhysicalMemory& memory, Entry entry,
                                     const TablePosition& position, unsigned slot);

// Whether the frame's metadata says that it is the table for this position.
bool is_table_of(const memory::PhysicalMemory& memory, FrameNumber frame,
                 const TablePosition& position);

// Checks all entries of a table; remembers it as validated and returns true if all are well.
bool validate_table(const memory::PhysicalMemory& memory, FrameNumber frame,
                    const TablePosition& position);

// Whether the root's own word and the root table's metadata are as they should be.
bool check_root(const memory::PhysicalMemory& memory, const Root& root);

namespace detail {
// The walk's slow half: validates the table, or at least the entry at hand.
std::optional<Fault> check_step(const memory::PhysicalMemory& memory, FrameNumber table,
                                const TablePosition& position, unsigned slot, VirtAddr address);
Fault absent_fault(Entry entry, unsigned level, VirtAddr address);
}  // namespace detail

// `kValidate` = false is the same walk without any check, for measuring what the checks cost.
template <bool kValidate = true>
inline std::expected<Translation, Fault> walk(const memory::PhysicalMemory& memory,
                                              const Root& root, VirtAddr address) {
    if (VirtAddr::truncated(address.bits(), root.levels) != address) [[unlikely]]
        return std::unexpected(Fault{.kind = FaultKind::non_canonical, .address = address});
    Entry entry = root.entry;
    unsigned level = root.top();
    // R/W and U/S are ANDed along the path, NX is ORed.
    std::uint64_t permissive = Entry::kWritable | Entry::kUser;
    std::uint64_t no_execute = 0;
    for (;;) {
        const FrameNumber table = entry.frame();
        const memory::Window* const window = memory.window_of(table);
        const unsigned slot = format::slot_of(address, level);
        if constexpr (kValidate) {
            if (window == nullptr || !window->is_validated(table)) [[unlikely]] {
                const TablePosition position{level, root.owner,
                                             page_index(address, root.levels) >> (9 * level)};
                if (auto fault = detail::check_step(memory, table, position, slot, address))
                    return std::unexpected(*fault);
            }
        }
        // Acquire: a table is filled before it is linked.
        entry = Entry(pool::load_word(window->table(table) + slot, std::memory_order_acquire));
        if (!entry.is_present()) [[unlikely]]
            return std::unexpected(detail::absent_fault(entry, level, address));
        permissive &= entry.bits();
        no_execute |= entry.bits();
        if (entry.is_leaf(level)) break;
        --level;
    }
    const std::uint64_t offset_mask = format::entry_span_bytes(level) - 1;
    const auto mask = static_cast<std::uint8_t>(
        Protection::kRead | (permissive & Entry::kWritable ? Protection::kWrite : 0) |
        (no_execute & Entry::kNoExecute ? 0 : Protection::kExecute) |
        (permissive & Entry::kUser ? Protection::kUser : 0));
    return Translation{PhysAddr((entry.bits() & Entry::kFrameMask & ~offset_mask) |
                                (address.bits() & offset_mask)),
                       static_cast<PageSize>(kPageShift + 9 * (level - 1)), Protection(mask)};
}

}  // namespace holdfast::table
