#include "table/walk.hpp"

namespace holdfast::table {

using format::AbsentKind;
using format::FrameKind;
using format::FrameMetadata;

namespace {

// A leaf to fixed frames: of a device region, with all that it spans, or to the frame of zeros.
std::optional<FaultKind> check_fixed(const memory::PhysicalMemory& memory, Entry entry,
                                     const TablePosition& position, const FrameMetadata& metadata) {
    const std::uint64_t span = entry_pages(position.level);
    const FrameNumber frame = memory.current(entry.frame());
    const memory::Region* const region = memory.region_of(frame);
    if (region == nullptr) return FaultKind::no_region;
    const bool is_device = metadata.kind == FrameKind::shared_data;
    if (is_device != region->has_fixed_frames() || frame.value() % span != 0 ||
        region->end() - frame < span || (!is_device && (entry.is_writable() || span != 1)))
        return FaultKind::stale_entry;
    if (const auto lost = memory.out_of_reach(frame)) return lost;
    // The file may end within it.
    if (span > 1 && memory.host(frame + (span - 1)) == nullptr) return FaultKind::region_shrunk;
    return std::nullopt;
}

}  // namespace

std::optional<FaultKind> check_entry(const memory::PhysicalMemory& memory, Entry entry,
                                     const TablePosition& position, unsigned slot) {
    if (entry.is_empty()) return std::nullopt;
    if (!entry.has_frame()) {
        if (!entry.tag_fits(position.entry(slot), 0)) return FaultKind::damaged_entry;
        return std::nullopt;
    }
    // Pages are swapped one by one.
    if (entry.is_swapped() && position.level != 1) return FaultKind::damaged_entry;
    const memory::MetadataWords words = memory.metadata(entry.frame());
    // Without a target the generation is unknown, and the tag cannot be checked.
    if (!words)
        return memory.replaced_region(entry.frame()) != nullptr ? FaultKind::region_replaced
                                                                : FaultKind::no_region;
    const std::uint64_t word0 = pool::load_word(words.word0);
    const std::uint64_t word1 = pool::load_word(words.word1());
    if (!FrameMetadata::is_valid(words.home, word0, word1)) return FaultKind::damaged_metadata;
    const FrameMetadata metadata = FrameMetadata::decode(word0, word1);
    if (!entry.tag_fits(position.entry(slot), metadata.generation)) {
        // A tag that fits no generation near by is damage, one of an earlier use is stale.
        return metadata.kind == FrameKind::free ? FaultKind::stale_entry : FaultKind::damaged_entry;
    }
    if (metadata.kind == FrameKind::free) return FaultKind::stale_entry;
    const TablePosition child = position.child(slot);
    if (!entry.is_leaf(position.level)) {
        const bool right = metadata.kind == format::table_kind(child.level) &&
                           metadata.owner == child.owner && metadata.index == child.index;
        if (!right) return FaultKind::wrong_table;
        // Tables are always in the pool.
        if (memory.host(entry.frame()) == nullptr) return FaultKind::no_region;
        return std::nullopt;
    }
    if (metadata.is_fixed() && entry.is_present())
        return check_fixed(memory, entry, position, metadata);
    if (metadata.kind == FrameKind::shared_data && position.level == 1 && entry.is_present()) {
        if (const auto lost = memory.out_of_reach(entry.frame())) return lost;
        return memory.file_out_of_reach(metadata.owner, metadata.index);
    }
    if (metadata.kind != format::leaf_kind(position.level) || metadata.owner != position.owner ||
        metadata.index != child.first_page())
        return FaultKind::stale_entry;
    if (const auto lost = memory.out_of_reach(entry.frame())) return lost;
    // The file may end within it.
    if (position.level > 1 &&
        memory.host(entry.frame() + (entry_pages(position.level) - 1)) == nullptr)
        return FaultKind::region_shrunk;
    return std::nullopt;
}

bool is_table_of(const memory::PhysicalMemory& memory, FrameNumber frame,
                 const TablePosition& position) {
    const auto metadata = memory.valid_metadata(frame);
    return metadata && format::is_table(metadata->kind) &&
           metadata->kind == format::table_kind(position.level) &&
           metadata->owner == position.owner && metadata->index == position.index;
}

// A crash leaves the entry with either number, or, if the line was not written back, later with the
// old one again: each is right, and whoever meets the old one repairs it again. So this needs no
// log, no fence and no lock: the word changes at once, from one right value to the other. A writer
// that changes the entry meanwhile has the last word.
Entry renumbered(const memory::PhysicalMemory& memory, std::uint64_t* word, Entry entry,
                 const format::EntryPlace& place) {
    if (!entry.has_frame()) return entry;
    const FrameNumber now = memory.current(entry.frame());
    if (now == entry.frame()) return entry;
    const auto metadata = memory.valid_metadata(now);
    if (!metadata) return entry;
    // Only whoever accesses the page may set A and D meanwhile, besides a writer.
    constexpr std::uint64_t kSeen = Entry::kAccessed | Entry::kDirty;
    for (;;) {
        const Entry repaired = entry.with_frame(now, place, metadata->generation);
        if (pool::exchange_word(word, entry.bits(), repaired.bits())) {
            memory.pool().flush(word, sizeof *word);
            return repaired;
        }
        const Entry changed(pool::load_word(word));
        if (!changed.is_present() || ((changed.bits() ^ entry.bits()) & ~kSeen) != 0)
            return repaired;
        entry = changed;
    }
}

// An entry that a writer replaces meanwhile stays what he has made it.
void mark_accessed(const memory::PhysicalMemory& memory, const Root& root, VirtAddr address,
                   bool is_write) {
    const std::uint64_t bits = Entry::kAccessed | (is_write ? Entry::kDirty : 0);
    Entry entry = root.entry;
    for (unsigned level = root.top(); level > 0; --level) {
        std::uint64_t* const table = memory.table(entry.frame());
        if (table == nullptr) return;
        std::uint64_t* const word = table + format::slot_of(address, level);
        entry = Entry(pool::load_word(word, std::memory_order_acquire));
        if (!entry.is_present()) return;
        if (!entry.is_leaf(level)) continue;
        if ((entry.bits() & bits) == bits) return;
        pool::exchange_word(word, entry.bits(), entry.bits() | bits);
        // Also if the exchange has failed: a page's way out may begin right here.
        if (is_write && (entry.bits() & Entry::kDirty) == 0)
            memory.swap_cache().forget(memory.current(entry.frame()));
        return;
    }
}

TableCondition validate_table(const memory::PhysicalMemory& memory, FrameNumber frame,
                              const TablePosition& position) {
    const memory::Window& window = *memory.window_of(frame);
    std::uint64_t* const table = window.table(frame);
    TableCondition condition = TableCondition::well;
    for (unsigned slot = 0; slot < kEntriesPerTable; ++slot) {
        const Entry entry(pool::load_word(table + slot));
        const auto kind = check_entry(memory, entry, position, slot);
        if (kind && !is_loss(*kind)) return TableCondition::damaged;
        if (kind) condition = TableCondition::has_losses;
        renumbered(memory, table + slot, entry, position.entry(slot));
    }
    // A table with losses is not remembered: who walks through it unchecked would not see them.
    if (condition == TableCondition::well) window.set_validated(frame, true);
    return condition;
}

bool check_root(const memory::PhysicalMemory& memory, const Root& root) {
    if (root.entry.is_empty() || !root.entry.is_present()) return false;
    const auto metadata = memory.valid_metadata(root.entry.frame());
    return metadata && memory.host(root.entry.frame()) != nullptr &&
           root.entry.tag_fits(root.place(), metadata->generation) &&
           is_table_of(memory, root.entry.frame(), {root.top(), root.owner, 0});
}

namespace {

// So many walks check only their own entry before one validates the table: what is read here and
// there after opening does not pay for 512 entries, and what is read again soon need not check.
constexpr std::uint8_t kWalksBeforeValidation = 8;

// Whether `table` is the one for its position. The parent's check of its entry has established that
// already, or, for a parent with other bad entries, its check of this one; a root is checked when
// its space is opened, or has been released since.
std::optional<FaultKind> check_table(const memory::PhysicalMemory& memory, FrameNumber table,
                                     const TablePosition& position) {
    if (memory.window_of(table) == nullptr) return FaultKind::no_region;
    if (!is_table_of(memory, table, position)) return FaultKind::wrong_table;
    return std::nullopt;
}

}  // namespace

namespace detail {

Fault absent_fault(Entry entry, unsigned level, VirtAddr address) {
    Fault fault{
        .address = address, .level = static_cast<std::uint8_t>(level), .entry = entry.bits()};
    if (entry.is_empty()) {
        fault.kind = FaultKind::not_mapped;
        return fault;
    }
    fault.protection = entry.protection();
    switch (entry.absent_kind()) {
        case AbsentKind::demand_zero:
            fault.kind = FaultKind::demand_zero;
            break;
        case AbsentKind::guard:
            fault.kind = FaultKind::guard;
            break;
        case AbsentKind::swapped:
            fault.kind = FaultKind::swapped;
            break;
        case AbsentKind::file_backed:
            fault.kind = FaultKind::file_backed;
            break;
        case AbsentKind::stack_room:
            fault.kind = FaultKind::stack_room;
            break;
        default:
            fault.kind = FaultKind::damaged_entry;
            break;
    }
    return fault;
}

std::expected<Translation, Fault> walk_checking(const memory::PhysicalMemory& memory, Root root,
                                                VirtAddr address) {
    if (root.entry.is_empty())
        return std::unexpected(Fault{.kind = FaultKind::not_mapped, .address = address});
    if (VirtAddr::truncated(address.bits(), root.levels) != address)
        return std::unexpected(Fault{.kind = FaultKind::non_canonical, .address = address});
    Entry entry = root.entry;
    std::uint64_t links = ~std::uint64_t{0};
    std::uint64_t no_execute = 0;
    for (unsigned level = root.top();; --level) {
        const FrameNumber table = memory.current(entry.frame());
        const TablePosition position = position_of(root, page_index(address, root.levels), level);
        const auto fault = [&](FaultKind kind, std::uint64_t bits) {
            return std::unexpected(Fault{.kind = kind,
                                         .address = address,
                                         .level = static_cast<std::uint8_t>(level),
                                         .entry = bits});
        };
        const memory::Window* const window = memory.window_of(table);
        bool is_validated = window != nullptr && window->is_validated(table);
        if (!is_validated) {
            if (const auto kind = check_table(memory, table, position)) return fault(*kind, 0);
            is_validated = window->has_walked(table, kWalksBeforeValidation) &&
                           validate_table(memory, table, position) == TableCondition::well;
        }
        const unsigned slot = format::slot_of(address, level);
        // Acquire: a table is filled before it is linked.
        entry = Entry(pool::load_word(window->table(table) + slot, std::memory_order_acquire));
        if (!is_validated)
            if (const auto kind = check_entry(memory, entry, position, slot)) {
                auto found = fault(*kind, entry.bits());
                if (is_loss(*kind)) {
                    found.error().protection = entry.mapped_protection();
                    const memory::Region* region = memory.region_of(entry.frame());
                    if (region == nullptr) region = memory.replaced_region(entry.frame());
                    if (!is_file_loss(*kind)) found.error().region = region->index();
                }
                return found;
            }
        if (!is_validated)
            entry = renumbered(memory, window->table(table) + slot, entry, position.entry(slot));
        if (!entry.is_present()) return std::unexpected(absent_fault(entry, level, address));
        no_execute |= entry.bits() & Entry::kNoExecute;
        if (entry.is_leaf(level))
            return translation(Entry(entry.bits() | no_execute), level, links, address);
        links &= entry.bits();
    }
}

}  // namespace detail
}  // namespace holdfast::table
