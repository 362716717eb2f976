#include "store/commit_charge.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "format/overcommit.hpp"
#include "memory/reader_section.hpp"
#include "store/store_state.hpp"
#include "table/charged_pages.hpp"
#include "table/visit.hpp"

namespace holdfast::detail {

CommitCharge::CommitCharge(const StoreState& store)
    : store_(store), word_(pool::load_word(&store.memory.superblock().overcommit)) {}

Overcommit CommitCharge::overcommit() const {
    const auto on_medium = format::OvercommitWord::decode(word_.load(std::memory_order_acquire));
    // What fails its check was refused at opening, or is that of a copy.
    const format::OvercommitWord::Setting setting = on_medium.value_or(format::kNoOvercommit);
    return {static_cast<OvercommitPolicy>(setting.policy), setting.ratio_percent};
}

Result<void> CommitCharge::set(const Overcommit& overcommit) {
    const std::uint64_t word = format::OvercommitWord::encode(
        {static_cast<format::OvercommitOnMedium>(overcommit.policy), overcommit.ratio_percent});
    pool::WriteSet writes;
    writes.store(&store_.memory.superblock().overcommit, word, pool::WordClass::undo);
    // Commit point: the word. A crash leaves the policy of before, or this one.
    if (auto done = store_.pool->commit(writes); !done) return done;
    word_.store(word, std::memory_order_release);
    return {};
}

std::uint64_t CommitCharge::total_pages() const {
    std::uint64_t pages = 0;
    for (const memory::Region& region : store_.memory.regions())
        if (!region.has_fixed_frames() && region.state() == RegionState::attached)
            pages += region.frame_count();
    return pages;
}

std::uint64_t CommitCharge::limit_pages() const {
    return total_pages() * overcommit().ratio_percent / 100;
}

CommitCharge::Count CommitCharge::count() const {
    Count count;
    const std::shared_lock directory_lock(store_.directory_map);
    const memory::PhysicalMemory& memory = store_.memory;
    const memory::ReaderSection section;
    store_.directory().visit("", [&](std::string_view, std::string_view value) {
        std::uint64_t frame = 0;
        if (value.size() == sizeof frame) std::memcpy(&frame, value.data(), sizeof frame);
        const FrameNumber record_frame = memory.current(FrameNumber(frame));
        const format::SpaceRecord* const record = store_.space_record(record_frame);
        // What a file object has, others map.
        if (record == nullptr || record->kind == format::SpaceKind::file) return true;
        const table::Root root{table::Entry(pool::load_word(&record->root)),
                               static_cast<Levels>(record->levels), record->owner,
                               record->upper_owner()};
        if (!table::check_root(memory, root)) return true;
        std::uint64_t pages = 0;
        table::Visitor visitor;
        visitor.range = [&](const table::VisitedRange& visited) {
            if (visited.damage && !is_loss(*visited.damage)) return;
            if (table::is_charged(visited.entry, [&](FrameNumber target) {
                    return memory.valid_metadata(target);
                }))
                pages += visited.pages.count();
        };
        table::visit(memory, root, table::own_pages(root), visitor);
        count.spaces[record_frame.value()] = pages;
        if (record->kind != format::SpaceKind::snapshot) count.committed += pages;
        return true;
    });
    return count;
}

std::unique_lock<std::mutex> CommitCharge::known() {
    std::unique_lock lock(mutex_);
    while (!is_known_.load(std::memory_order_relaxed)) {
        // Who is inside the gate may be about to tell of his commit: the gate comes first.
        lock.unlock();
        const table::ChangeGate::Closed at_rest(store_.gate);
        // Without the mutex, which comes after the directory's: behind the closed gate it stays so.
        Count counted = count();
        lock.lock();
        if (is_known_.load(std::memory_order_relaxed)) break;
        count_ = std::move(counted);
        is_known_.store(true);
    }
    return lock;
}

std::uint64_t CommitCharge::committed_pages() {
    const auto lock = known();
    return count_.committed + reserved_;
}

std::uint64_t CommitCharge::of_space(FrameNumber record) {
    const auto lock = known();
    const auto found = count_.spaces.find(record.value());
    return found != count_.spaces.end() ? found->second : 0;
}

Result<void> CommitCharge::reserve(std::uint64_t pages, bool whatever_the_limit) {
    const std::uint64_t limit = limit_pages();
    const auto lock = known();
    const std::uint64_t committed = count_.committed + reserved_;
    if (whatever_the_limit || (pages <= limit && committed <= limit - pages)) {
        reserved_ += pages;
        return {};
    }
    const auto kib = [](std::uint64_t count) { return count << (kPageShift - 10); };
    return fail(
        ErrorCode::no_space,
        fmt::format("{}: {} KiB more would be promised than the {} KiB that are committed "
                    "already, and the limit is {} KiB (policy never: {} % of {} KiB); unmap "
                    "something, add a region, or set another ratio or policy",
                    store_.pool->path(), kib(pages), kib(committed), kib(limit),
                    overcommit().ratio_percent, kib(total_pages())));
}

void CommitCharge::give_back(std::uint64_t pages) {
    const std::scoped_lock lock(mutex_);
    reserved_ -= pages;
}

void CommitCharge::committed(std::span<const Change> changes, std::uint64_t reserved) {
    const std::scoped_lock lock(mutex_);
    reserved_ -= reserved;
    if (!is_known_.load(std::memory_order_relaxed)) return;
    for (const Change& change : changes) {
        const auto pages = static_cast<std::uint64_t>(change.pages);  // modulo 2^64, as the sums
        if (!change.is_snapshot) count_.committed += pages;
        if (change.is_removed)
            count_.spaces.erase(change.record.value());
        else
            count_.spaces[change.record.value()] += pages;
    }
}

}  // namespace holdfast::detail
