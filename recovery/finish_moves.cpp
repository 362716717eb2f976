#include "recovery/finish_moves.hpp"

#include <fmt/format.h>

#include <cstring>
#include <map>
#include <set>

#include "format/space_record.hpp"
#include "table/visit.hpp"
#include "table/walk.hpp"

namespace holdfast::recovery {

namespace {

struct Found {
    std::map<std::string, FrameNumber> renumbered;  // names whose records have other numbers now
    std::set<unsigned> still_used;                  // regions whose replaced frames are mapped
    std::optional<Error> damage;
};

void repair_space(memory::PhysicalMemory& memory, const std::string& name, FrameNumber frame,
                  Found& found) {
    const auto damaged = [&](VirtAddr address) {
        found.damage =
            Error{ErrorCode::damaged,
                  fmt::format("{}: space \"{}\" is damaged at {:#x}, and its entries cannot all "
                              "be repaired; run `repair` first",
                              memory.pool().path(), name, address.bits())};
    };
    auto* const record = reinterpret_cast<format::SpaceRecord*>(memory.host(frame));
    const auto metadata = memory.valid_metadata(frame);
    if (record == nullptr || !metadata || metadata->kind != format::FrameKind::space_record ||
        record->checksum != record->computed_checksum())
        return damaged({});
    table::Root root{table::Entry(pool::load_word(&record->root)),
                     static_cast<Levels>(record->levels), record->owner, record->upper_owner()};
    if (!table::check_root(memory, root)) return damaged({});
    root.entry = table::renumbered(memory, &record->root, root.entry, root.place());
    memory.pool().flush(&record->root, sizeof record->root);
    table::Visitor visitor;
    // Whoever has repaired an entry of it before us may not have waited for its write-back.
    visitor.table = [&](FrameNumber table, const table::TablePosition&) {
        memory.pool().flush(memory.table(table), kPageSize);
    };
    visitor.range = [&](const table::VisitedRange& visited) {
        if (!visited.damage) return;
        if (*visited.damage == FaultKind::region_replaced) {
            if (const auto* region = memory.replaced_region(visited.entry.frame()))
                found.still_used.insert(region->index());
        } else if (!is_loss(*visited.damage)) {
            damaged(table::address_of_page(visited.pages.begin, root.levels));
        }
    };
    table::visit(memory, root, table::all_pages(root.levels), visitor);
}

}  // namespace

Result<void> finish_moves(memory::PhysicalMemory& memory, pool::OrderedMap directory) {
    // What this opening knows as the numbers of now are those of before: it would find nothing to
    // repair, and what is to be repaired would be forgotten.
    for (const memory::Region& region : memory.regions())
        if (region.is_outlived())
            return fail(ErrorCode::busy, fmt::format("{}: region {} was changed; close the store "
                                                     "and open it again",
                                                     memory.pool().path(), region.index()));
    Found found;
    directory.visit("", [&](std::string_view name, std::string_view value) {
        std::uint64_t number = 0;
        if (value.size() == sizeof number) std::memcpy(&number, value.data(), sizeof number);
        const FrameNumber frame = memory.current(FrameNumber(number));
        if (frame.value() != number) found.renumbered.emplace(name, frame);
        repair_space(memory, std::string(name), frame, found);
        return !found.damage;
    });
    if (found.damage) return std::unexpected(*found.damage);
    // Every entry is durable with its number of now before a region forgets those of before.
    memory.pool().drain();
    pool::WriteSet none;
    // Commit point: a crash before it leaves regions that answer to both numbers.
    return memory.pool().commit(none, [&](pool::TransactionScope& scope) -> Result<void> {
        for (const auto& [name, frame] : found.renumbered) {
            const std::uint64_t value = frame.value();
            directory.put(scope, name, {reinterpret_cast<const char*>(&value), sizeof value});
        }
        for (const memory::Region& region : memory.regions())
            if (region.record().previous != format::PreviousBase::none &&
                !found.still_used.contains(region.index()))
                memory::change_record(scope, memory.superblock().regions[region.index()],
                                      [](format::RegionRecord& record) {
                                          record.previous = format::PreviousBase::none;
                                          record.previous_base = 0;
                                      });
        return {};
    });
}

}  // namespace holdfast::recovery
