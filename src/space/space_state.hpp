// What the handles of one space share, in volatile memory.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>

#include "format/space_record.hpp"
#include "holdfast/space.hpp"
#include "pool/pool.hpp"
#include "space/translation_changes.hpp"
#include "space/writer_lock.hpp"
#include "table/walk.hpp"

namespace holdfast::detail {

class StoreState;

class SpaceState {
  public:
    SpaceState(std::shared_ptr<StoreState> store_in, FrameNumber record_in,
               const format::SpaceRecord& on_medium)
        : store(std::move(store_in)),
          record(record_in),
          levels(static_cast<Levels>(on_medium.levels)),
          owner(on_medium.owner),
          upper_owner(on_medium.upper_owner()),
          is_snapshot(on_medium.kind == format::SpaceKind::snapshot),
          is_file(on_medium.kind == format::SpaceKind::file),
          preferred_region(on_medium.preferred_region),
          quota_pages(on_medium.quota_pages),
          name_(on_medium.name_view()) {}

    // What readers start from; an empty entry before the space is committed and after it is
    // removed.
    table::Root root() const {
        return {table::Entry(root_bits.load(std::memory_order_acquire)), levels, owner,
                upper_owner};
    }
    std::string name() const {
        const std::shared_lock guard(names);
        return name_;
    }
    // As a message says it: that of a file object is not for users.
    std::string shown_name() const { return is_file ? "[mapped file]" : name(); }
    void rename(std::string name) {
        const std::scoped_lock guard(names);
        name_ = std::move(name);
    }

    const std::shared_ptr<StoreState> store;
    const FrameNumber record;
    const Levels levels;
    const format::OwnerId owner;
    const format::OwnerId upper_owner;  // as in Root
    const bool is_snapshot;
    const bool is_file;  // the pages of a mapped file (format/file_record.hpp)
    bool is_supervisor() const { return upper_owner == owner; }
    bool shares_upper_half() const { return upper_owner != 0 && !is_supervisor(); }
    // The object that the upper half is of, if it is another's, and could be opened.
    std::shared_ptr<SpaceState> supervisor = {};
    // Whose writers change what the address is mapped to.
    SpaceState& responsible_for(VirtAddr address) {
        return supervisor != nullptr && address.bits() >> 63 != 0 ? *supervisor : *this;
    }
    const SpaceState& responsible_for(VirtAddr address) const {
        return supervisor != nullptr && address.bits() >> 63 != 0 ? *supervisor : *this;
    }

    std::atomic<std::uint64_t> root_bits = 0;
    // By every commit that takes away or changes a translation.
    space::TranslationChanges changes;
    space::WriterLock writer;
    // Held shared to read the ordered map of names, exclusively while a commit changes it.
    mutable std::shared_mutex names;
    pool::Offset annotations = 0;  // guarded by `names`
    // As on the medium: the region's index plus 1, or 0.
    std::atomic<std::uint8_t> preferred_region;
    std::atomic<std::uint64_t> quota_pages;  // 0 for no limit

  private:
    std::string name_;
};

}  // namespace holdfast::detail
