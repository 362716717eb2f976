// Page tables of one page size in ordinary memory, entry for entry as the store's
// (format/entry.hpp), for what is to be measured about tables that no store has.
//
// Thread safety: none.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <expected>

#include "format/entry.hpp"
#include "holdfast/fault.hpp"
#include "table/walk.hpp"

namespace holdfast::mmu {

class ModelTables {
  public:
    ModelTables(Levels levels, PageSize page_size);

    // Maps the page of the address, which is canonical and not mapped yet; its frames are the next
    // ones.
    void map(VirtAddr address, Protection protection);
    std::expected<Translation, Fault> walk(VirtAddr address) const;
    // The root included.
    std::uint64_t tables() const { return tables_.size(); }

  private:
    using Table = std::array<table::Entry, format::kEntriesPerTable>;

    Levels levels_;
    unsigned leaf_level_;
    std::uint64_t next_frame_ = 0;
    std::deque<Table> tables_;  // an entry's frame is the index here; the root is the first
};

}  // namespace holdfast::mmu
