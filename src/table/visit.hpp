// Visits what a range maps, in ascending order: leaves, absent ranges and damaged spots.
//
// Thread safety: as a walk (walk.hpp). The visit is no snapshot: each entry is as it was at some
// moment of it.
#pragma once

#include <functional>

#include "table/table_editor.hpp"
#include "table/walk.hpp"

namespace holdfast::table {

struct VisitedRange {
    PageRange pages;
    Entry entry;
    unsigned level = 0;     // of the entry
    Protection protection;  // that the mapping permits, be it that the page is copied first
    std::optional<FaultKind> damage;
};

// `table` is called for each table on the way, before its entries. Either may be empty.
struct Visitor {
    std::function<void(const VisitedRange&)> range;
    std::function<void(FrameNumber, const TablePosition&)> table;
    // If given, asked before each entry, whose first page it is: true ends the visit.
    std::function<bool(std::uint64_t page)> is_enough = {};
};

void visit(const memory::PhysicalMemory& memory, const Root& root, PageRange pages,
           const Visitor& visitor);

// All pages that a space with so many levels has.
constexpr PageRange all_pages(Levels levels) {
    return {0, std::uint64_t{1} << (9 * static_cast<unsigned>(levels))};
}

// Of these, those that are not a supervisor object's.
constexpr PageRange own_pages(const Root& root) {
    const PageRange all = all_pages(root.levels);
    return root.upper_owner != 0 && root.upper_owner != root.owner ? PageRange{0, all.end / 2}
                                                                   : all;
}

}  // namespace holdfast::table
