#include "mmu/model_tables.hpp"

#include <cassert>

namespace holdfast::mmu {

using table::Entry;

namespace {

// Nothing is ever freed, and there is one tree.
constexpr std::uint16_t kGeneration = 1;
constexpr format::OwnerId kOwner = 1;

}  // namespace

ModelTables::ModelTables(Levels levels, PageSize page_size)
    : levels_(levels), leaf_level_(table::level_of(page_size)), tables_(1) {}

void ModelTables::map(VirtAddr address, Protection protection) {
    const table::Root root{Entry(), levels_, kOwner};
    std::size_t at = 0;
    for (unsigned level = root.top();; --level) {
        const format::EntryPlace place = table::place_of(root, address, level);
        if (level == leaf_level_) {
            Entry& entry = tables_[at][place.slot];
            assert(entry.is_empty());
            entry = Entry::leaf(FrameNumber(next_frame_), protection, place, kGeneration);
            next_frame_ += table::entry_pages(level);
            return;
        }
        if (tables_[at][place.slot].is_empty()) {
            tables_.emplace_back();
            tables_[at][place.slot] =
                Entry::table(FrameNumber(tables_.size() - 1), place, kGeneration);
        }
        at = tables_[at][place.slot].frame().value();
    }
}

std::expected<Translation, Fault> ModelTables::walk(VirtAddr address) const {
    const auto fault = [&](FaultKind kind, unsigned level) {
        return std::unexpected(
            Fault{.kind = kind, .address = address, .level = static_cast<std::uint8_t>(level)});
    };
    if (VirtAddr::truncated(address.bits(), levels_) != address)
        return fault(FaultKind::non_canonical, 0);
    std::size_t at = 0;
    for (unsigned level = static_cast<unsigned>(levels_);; --level) {
        const Entry entry = tables_[at][format::slot_of(address, level)];
        if (!entry.is_present()) return fault(FaultKind::not_mapped, level);
        if (entry.is_leaf(level))
            return table::detail::translation(entry, level, ~std::uint64_t{0}, address);
        at = entry.frame().value();
    }
}

}  // namespace holdfast::mmu
