#include "recovery/table_survey.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <iterator>
#include <tuple>

#include "recovery/parallel.hpp"

namespace holdfast::recovery {

using format::Entry;
using format::kEntriesPerTable;

namespace {

constexpr std::size_t kTablesPerPiece = 32;

const char* invariant_of(FaultKind kind) {
    if (is_loss(kind)) return "lost page";
    switch (kind) {
        case FaultKind::wrong_table:
            return "I2 table";
        case FaultKind::damaged_metadata:
            return "I5 metadata";
        default:
            return "I1 entry";
    }
}

}  // namespace

void join(std::vector<WritableExecutable>& ranges) {
    const auto key = [](const WritableExecutable& each) {
        return std::tie(each.space, each.range.start);
    };
    std::sort(
        ranges.begin(), ranges.end(),
        [&](const WritableExecutable& a, const WritableExecutable& b) { return key(a) < key(b); });
    std::vector<WritableExecutable> joined;
    for (WritableExecutable& each : ranges) {
        if (!joined.empty() && joined.back().space == each.space &&
            joined.back().range.end() == each.range.start)
            joined.back().range.size_bytes += each.range.size_bytes;
        else
            joined.push_back(std::move(each));
    }
    ranges = std::move(joined);
}

void TableSurvey::add_child(const TableItem& item) {
    if (uses_.add(item.frame, from_)) by_level_[item.position.level].push_back(item);
}

void TableSurvey::run() {
    for (unsigned level = format::kMaxLevels; level > 0; --level) {
        const std::vector<TableItem> tables = std::move(by_level_[level]);
        if (from_ == FrameUses::From::space) survey_.report.tables += tables.size();
        std::vector<Found> found((tables.size() + kTablesPerPiece - 1) / kTablesPerPiece);
        std::atomic<std::uint64_t> looked_at = 0;
        const auto piece = [&](std::size_t number) {
            const std::size_t begin = number * kTablesPerPiece;
            const std::size_t end = std::min(begin + kTablesPerPiece, tables.size());
            for (std::size_t i = begin; i < end; ++i) look_at(tables[i], found[number]);
            looked_at.fetch_add(end - begin, std::memory_order_relaxed);
        };
        std::uint64_t told = 0;
        const auto tell = [&] {
            const std::uint64_t now = looked_at.load(std::memory_order_relaxed);
            between_(now - told);
            told = now;
        };
        parallel_for(options_.threads, found.size(), piece, tell);
        tell();
        for (Found& each : found) {
            survey_.report.mapped_pages += each.mapped_pages;
            survey_.has_file_pages = survey_.has_file_pages || each.has_file_pages;
            std::move(each.damages.begin(), each.damages.end(),
                      std::back_inserter(survey_.damages));
            std::move(each.writable_executable.begin(), each.writable_executable.end(),
                      std::back_inserter(survey_.report.writable_executable));
            for (const TableItem& child : each.children) add_child(child);
            each = {};
        }
    }
}

Range TableSurvey::range_of(const TableItem& item, unsigned slot) const {
    const unsigned level = item.position.level;
    return {table::address_of_page(item.position.child(slot).index * table::entry_pages(level),
                                   item.levels),
            format::entry_span_bytes(level)};
}

// An interrupted release has freed what its table still leads to. What a shell leads to lives on
// elsewhere, and may have changed there. A root's links to a supervisor object's tables do not
// belong to its tree, and nobody follows them: the object may be gone, and its frames be others'.
bool TableSurvey::is_expected(FaultKind kind, const TableItem& item, unsigned slot) const {
    const bool is_upper =
        item.position.level >= 3 && item.position.index == 0 && slot >= kEntriesPerTable / 2;
    return from_ == FrameUses::From::limbo &&
           (kind == FaultKind::stale_entry || is_loss(kind) || !item.with_frames ||
            (is_upper && (kind == FaultKind::wrong_table || kind == FaultKind::damaged_entry ||
                          kind == FaultKind::damaged_metadata)));
}

Damage TableSurvey::damage_of(FaultKind kind, const TableItem& item, unsigned slot, Entry entry) {
    // Nobody's addresses, in limbo.
    const bool has_address = from_ == FrameUses::From::space;
    return {.finding = {invariant_of(kind), names_[item.space],
                        has_address ? range_of(item, slot) : Range(),
                        fmt::format("{}: entry {:#018x} in slot {} of the level-{} table {:#x}{}",
                                    to_string(kind), entry.bits(), slot, item.position.level,
                                    item.frame.value(), has_address ? "" : ", in limbo")},
            .remedy = Remedy::empty_entry,
            .frame = item.frame,
            .number = slot,
            .loss = is_loss(kind) ? std::optional(kind) : std::nullopt};
}

bool TableSurvey::continues(const Found& found, FaultKind kind, const TableItem& item,
                            unsigned slot) {
    if (found.damages.empty()) return false;
    const Damage& last = found.damages.back();
    return is_loss(kind) && last.loss == kind && last.frame == item.frame &&
           last.number + last.slots == slot;
}

void TableSurvey::look_at(const TableItem& item, Found& found) {
    const table::TablePosition& position = item.position;
    const std::uint64_t* const words = memory_.table(item.frame);
    for (unsigned slot = 0; slot < kEntriesPerTable; ++slot) {
        const Entry entry(pool::load_word(words + slot));
        if (entry.is_empty()) continue;
        if (const auto kind = table::check_entry(memory_, entry, position, slot)) {
            // A page whose memory is out of reach is well but for that.
            if (is_loss(*kind) && item.with_frames) {
                uses_.add(entry.frame(), from_);
                if (from_ == FrameUses::From::space)
                    found.mapped_pages += table::entry_pages(position.level);
            }
            if (is_expected(*kind, item, slot)) continue;
            // The frame's record will be found, and can be made again.
            const memory::Region* const region =
                *kind == FaultKind::damaged_metadata ? memory_.region_of(entry.frame()) : nullptr;
            if (region != nullptr && region->has_fixed_frames()) continue;
            if (continues(found, *kind, item, slot)) {
                ++found.damages.back().slots;
                found.damages.back().finding.range.size_bytes += range_of(item, slot).size_bytes;
            } else {
                found.damages.push_back(damage_of(*kind, item, slot, entry));
            }
            continue;
        }
        // Nobody writes by way of limbo.
        if (from_ == FrameUses::From::space && item.is_writable && entry.is_present() &&
            entry.is_writable()) {
            const auto target = memory_.valid_metadata(entry.frame());
            if (target && target->references > 1 && target->kind != format::FrameKind::shared_data)
                found.damages.push_back(
                    {.finding = {"I9 sharing", names_[item.space], range_of(item, slot),
                                 fmt::format(
                                     "entry {:#018x} in slot {} of the level-{} table {:#x} "
                                     "permits writing to what {} entries lead to",
                                     entry.bits(), slot, position.level, item.frame.value(),
                                     target->references)},
                     .remedy = Remedy::share_entry,
                     .frame = item.frame,
                     .number = slot,
                     .target = memory_.current(entry.frame())});
        }
        // Counted, and looked at, by way of the object's own root.
        if (position.leads_away(slot)) continue;
        if (entry.is_table(position.level)) {
            TableItem child = item;
            child.frame = memory_.current(entry.frame());
            child.position = position.child(slot);
            child.is_writable = item.is_writable && entry.is_writable();
            found.children.push_back(child);
            continue;
        }
        if (!entry.is_present() && entry.absent_kind() == format::AbsentKind::file_backed)
            found.has_file_pages = found.has_file_pages || from_ == FrameUses::From::space;
        if (entry.has_frame() && item.with_frames) {
            uses_.add(entry.frame(), from_);
            if (from_ == FrameUses::From::space)
                found.mapped_pages += table::entry_pages(position.level);
        }
        const Protection permitted = entry.mapped_protection();
        if (options_.list_writable_executable && from_ == FrameUses::From::space &&
            permitted.writable() && permitted.executable())
            found.writable_executable.push_back({names_[item.space], range_of(item, slot)});
    }
}

}  // namespace holdfast::recovery
