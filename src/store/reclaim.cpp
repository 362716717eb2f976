// Who loses frames when there are too few: the policies of holdfast/reclaim.hpp. How a page goes
// out and comes back is table/swapping.cpp's.
#include "store/reclaim.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "format/reclaim_word.hpp"
#include "memory/reader_section.hpp"
#include "space/space_access.hpp"
#include "store/store_state.hpp"
#include "store/transaction_state.hpp"
#include "table/visit.hpp"

namespace holdfast {

const char* to_string(FramePolicy policy) {
    return policy == FramePolicy::local ? "local" : "global";
}
const char* to_string(OomPolicy policy) {
    return policy == OomPolicy::release_victim ? "release" : "refuse";
}

namespace detail {

using table::TableEditor;

namespace {

// So many pages go out by the same two commits and one grace period.
constexpr std::uint64_t kPagesAtOnce = 24;

// Of pages in the pool that go with the space: below links that are its alone, and of its own
// lineage.
std::uint64_t private_pages(const memory::PhysicalMemory& memory, FrameNumber table,
                            const table::TablePosition& position) {
    std::uint64_t pages = 0;
    if (memory.table(table) == nullptr) return 0;
    for (unsigned slot = 0; slot < format::kEntriesPerTable; ++slot) {
        const table::Entry entry(pool::load_word(memory.table(table) + slot));
        if (!entry.is_present()) continue;
        const auto metadata = memory.valid_metadata(entry.frame());
        if (!metadata || metadata->references != 1 || metadata->owner != position.owner) continue;
        if (!entry.is_table(position.level)) {
            const memory::Region* const region = memory.region_of(memory.current(entry.frame()));
            if (region != nullptr && region->kind() == RegionKind::pool)
                pages += format::frames_of(metadata->kind);
        } else if (entry.is_writable() && !position.leads_away(slot))
            pages += private_pages(memory, memory.current(entry.frame()), position.child(slot));
    }
    return pages;
}

std::uint64_t private_pages(const memory::PhysicalMemory& memory, const SpaceState& space) {
    const memory::ReaderSection section;
    const table::Root root = space.root();
    if (root.entry.is_empty()) return 0;
    return private_pages(memory, memory.current(root.entry.frame()), table::top_position(root));
}

// Free or not.
std::uint64_t frames_in_pool(const memory::PhysicalMemory& memory) {
    std::uint64_t frames = 0;
    for (const memory::Region& region : memory.regions())
        if (region.kind() == RegionKind::pool) frames += region.frame_count();
    return frames;
}

}  // namespace

// --- policies ---

ReclaimPolicy StoreState::reclaim_policy() const {
    // It was well when the store was opened.
    const auto setting =
        format::ReclaimWord::decode(pool::load_word(&memory.superblock().reclaim_policy));
    if (!setting) return {};
    return {static_cast<FramePolicy>(setting->frames), static_cast<OomPolicy>(setting->oom)};
}

Result<void> StoreState::set_reclaim_policy(const ReclaimPolicy& policy) {
    if (auto begun = begin_changes(); !begun) return begun;
    const table::ChangeGate::Inside inside(gate);
    const CommitLock lock(commit_mutex);
    pool::WriteSet writes;
    writes.store(&memory.superblock().reclaim_policy,
                 format::ReclaimWord::encode({static_cast<std::uint8_t>(policy.frames),
                                              static_cast<std::uint8_t>(policy.oom)}),
                 pool::WordClass::undo);
    return pool->commit(writes);
}

std::vector<memory::Placement> StoreState::swap_regions() const {
    std::vector<memory::Placement> found;
    for (const memory::Region& region : memory.regions())
        if (region.kind() == RegionKind::swap && region.state() == RegionState::attached)
            found.push_back({.region = static_cast<std::uint8_t>(region.index()), .only = true});
    return found;
}

// --- one space ---

// Pages that it had before they were counted.
void TransactionState::adopt_pages(const Joined& joined) {
    const auto state = store_->reclaim.of(joined.space->record);
    if (state->is_adopted.exchange(true)) return;
    memory::FrameCharges& charges = store_->allocator.charges();
    table::Visitor visitor;
    visitor.range = [&](const table::VisitedRange& visited) {
        if (visited.damage || !visited.entry.is_present()) return;
        const auto metadata = store_->memory.valid_metadata(visited.entry.frame());
        if (metadata && format::is_data(metadata->kind) && !metadata->is_fixed())
            charges.adopt(store_->memory.current(visited.entry.frame()), visited.pages.count(),
                          joined.space->record);
    };
    table::visit(store_->memory, joined.root, table::own_pages(joined.root), visitor);
}

Result<std::uint64_t> TransactionState::evict(Joined& joined, std::uint64_t pages,
                                              bool for_others) {
    const auto state = store_->reclaim.of(joined.space->record);
    std::uint64_t evicted = 0;
    while (evicted < pages) {
        table::EditSession moving(store_->services), protecting(store_->services);
        TableEditor editor(moving, joined.root), protector(protecting, joined.root);
        const auto clock = editor.candidates(state->hand, std::min(pages - evicted, kPagesAtOnce));
        state->hand = clock.hand;
        if (clock.pages.empty()) break;
        space::ChangedPages changed;
        for (const std::uint64_t page : clock.pages) {
            changed.add(page, page + 1);
            if (auto done = protector.write_protect_page(page); !done)
                return std::unexpected(done.error());
        }
        if (!protecting.is_idle())
            if (auto done = commit_step(joined, protecting, changed); !done)
                return std::unexpected(done.error());
        // Those who had begun to write leave. Slots that pages have come back from may wait for the
        // same, and are then free to be theirs again.
        if (!store_->allocator.collect_retired()) memory::ReaderSection::wait_for_readers();
        const auto swap = store_->swap_regions();
        std::uint64_t moved = 0, clean = 0;
        for (const std::uint64_t page : clock.pages) {
            auto out = editor.swap_out(page, swap.empty() ? std::nullopt : std::optional(swap[0]));
            for (std::size_t next = 1;
                 next < swap.size() && !out && out.error().code == ErrorCode::no_space; ++next)
                out = editor.swap_out(page, swap[next]);
            if (!out && out.error().code != ErrorCode::no_space)
                return std::unexpected(out.error());
            // A page that finds no room stays, and is written again by whoever writes next.
            if (out && *out != TableEditor::SwappedOut::no) ++moved;
            if (out && *out == TableEditor::SwappedOut::clean) ++clean;
        }
        if (moved == 0) break;
        if (auto done = commit_step(joined, moving, changed); !done)
            return std::unexpected(done.error());
        evicted += moved;
        state->evicted_clean += clean;
    }
    state->evicted += evicted;
    if (for_others) state->evicted_for_others += evicted;
    if (evicted != 0) store_->allocator.collect_retired();
    return evicted;
}

Result<std::uint64_t> TransactionState::evict(const std::shared_ptr<SpaceState>& space,
                                              std::uint64_t pages, Waiting waiting) {
    auto joined = join(space, waiting == Waiting::may_wait);
    if (!joined) return std::unexpected(joined.error());
    if (auto fine = check_change(*space); !fine) return std::unexpected(fine.error());
    const auto evicted = evict(**joined, pages, waiting == Waiting::may_not);
    let_go();
    return evicted;
}

// Under the local policy, of a space with a quota: room for so many more frames.
Result<void> TransactionState::make_way(Joined& joined, std::uint64_t pages) {
    const std::uint64_t quota = joined.space->quota_pages;
    if (quota == 0 || store_->reclaim_policy().frames != FramePolicy::local) return {};
    adopt_pages(joined);
    const memory::FrameCharges& charges = store_->allocator.charges();
    const auto over = [&] {
        const std::uint64_t wanted = charges.of(joined.space->record) + pages;
        return wanted > quota ? wanted - quota : 0;
    };
    // A transaction that has changed tables already cannot commit others in between.
    if (pages <= quota && session_.is_idle()) {
        while (over() != 0) {
            const auto evicted = evict(joined, over(), false);
            if (!evicted) return std::unexpected(evicted.error());
            if (*evicted != 0) continue;
            // What was unmapped counts until it is released.
            const auto released = store_->release(~std::uint64_t{0});
            if (!released) return std::unexpected(released.error());
            if (*released == 0) break;
        }
    }
    if (over() == 0) return {};
    return fail(ErrorCode::over_quota,
                fmt::format("space \"{}\" may have {} pages in memory, has {} and wants {} more, "
                            "and not enough of them can be swapped; raise its quota (`space "
                            "quota`), unmap something, or add swap (`swap add`)",
                            joined.space->name(), quota, charges.of(joined.space->record), pages));
}

bool TransactionState::has_quota(const Joined& joined) const {
    return joined.space->quota_pages != 0 && store_->reclaim_policy().frames == FramePolicy::local;
}

Result<void> TransactionState::remove_without_waiting(const std::shared_ptr<SpaceState>& space) {
    if (auto joined = join(space, false); !joined) return std::unexpected(joined.error());
    // Which does not wait for those who hold it, either, once a space is held.
    if (auto joined = join_directory(); !joined) return joined;
    return remove(space, space->name());
}

Result<void> TransactionState::set_quota(const std::shared_ptr<SpaceState>& space,
                                         std::uint64_t pages) {
    auto joined = join(space);
    if (!joined) return std::unexpected(joined.error());
    if (auto fine = check_change(*space); !fine) return fine;
    (*joined)->new_quota = pages;
    store_->count_frames();
    return {};
}

Result<void> TransactionState::swap_in(const std::shared_ptr<SpaceState>& of, VirtAddr address) {
    const std::shared_ptr<SpaceState>& space = responsible_for(of, address);
    if (auto fine = check_half(*space, "access", {address, 1}, {}); !fine) return fine;
    auto joined = join(space);
    if (!joined) return std::unexpected(joined.error());
    if (auto fine = check_change(*space); !fine) return fine;
    if (auto room = make_way(**joined, 1); !room) return room;
    const auto where = placement(**joined);
    if (!where) return std::unexpected(where.error());
    ++store_->reclaim.of(space->record)->swapped_in;
    return spoiled_by(TableEditor(session_, (*joined)->root)
                          .swap_in(table::page_index(address, space->levels), *where));
}

// --- all spaces ---

std::vector<std::shared_ptr<SpaceState>> StoreState::all_spaces() {
    std::vector<std::string> names;
    {
        const std::shared_lock lock(directory_map);
        visit_records([&](std::string_view name, const format::SpaceRecord* record) {
            if (record != nullptr && record->kind == format::SpaceKind::address_space)
                names.emplace_back(name);
        });
    }
    std::vector<std::shared_ptr<SpaceState>> spaces;
    for (const std::string& name : names)
        if (auto space = find_space(name)) spaces.push_back(std::move(*space));
    return spaces;
}

// Of other spaces than those that this thread holds, without waiting for anybody.
bool StoreState::reclaim_from_others(std::uint64_t pages) {
    if (reclaim_policy().frames != FramePolicy::global || !allocator.charges().is_on())
        return false;
    if (pages > frames_in_pool(memory)) return false;  // in vain
    // Whoever holds the commit lock is about to need it for that.
    if (commit_mutex.is_held_by_this_thread()) return false;
    std::uint64_t evicted = 0;
    const auto spaces = all_spaces();
    for (std::size_t i = 0; i < spaces.size() && evicted < pages; ++i) {
        const auto& space = spaces[(next_victim_ + i) % spaces.size()];
        TransactionState transaction(shared_from_this());
        const auto some = transaction.evict(space, std::max(pages - evicted, kPagesAtOnce),
                                            TransactionState::Waiting::may_not);
        if (some) evicted += *some;
    }
    ++next_victim_;
    return evicted != 0;
}

bool StoreState::reclaim_for(const std::shared_ptr<SpaceState>& space, const SpaceState& asked,
                             std::uint64_t pages) {
    if (pages == 0 || pages > frames_in_pool(memory)) return false;
    if (allocator.charges().is_on()) {
        if (reclaim_from_others(kPagesAtOnce)) return true;
        TransactionState transaction(shared_from_this());
        const auto own =
            transaction.evict(space, kPagesAtOnce, TransactionState::Waiting::may_wait);
        if (own && *own != 0) return true;
    }
    return reclaim_policy().oom == OomPolicy::release_victim &&
           release_victim(*space, asked, pages);
}

bool StoreState::release_victim(const SpaceState& requester, const SpaceState& asked,
                                std::uint64_t pages) {
    // Something else is short if there are frames: nobody is removed for it. (A few are held back.)
    // Those of a swap region, or of one beside the pool, are of no use to who has no wish for it.
    const std::uint64_t free = allocator.count_free(true).frames;
    if (free >= pages + memory::FrameAllocator::kHeldBack) return false;
    std::vector<std::pair<std::uint64_t, std::shared_ptr<SpaceState>>> scores;
    for (const auto& space : all_spaces()) {
        if (space->record == requester.record || space->record == asked.record) continue;
        const std::uint64_t own = private_pages(memory, *space);
        // Of no use if it is still not enough.
        if (own != 0 && free + own >= pages) scores.emplace_back(own << kPageShift, space);
    }
    std::ranges::sort(scores, std::greater(), [](const auto& each) { return each.first; });
    for (std::size_t i = 0; i < scores.size(); ++i) {
        const auto& [bytes, victim] = scores[i];
        const std::string name = victim->name();
        TransactionState transaction(shared_from_this());
        // Commit point: the removal's. A crash before it leaves the victim, one after it no part.
        // Nobody is waited for: whoever holds it may be waiting for us.
        if (!transaction.remove_without_waiting(victim) || !transaction.commit()) continue;
        std::string others;
        for (std::size_t other = i + 1; other < std::min(scores.size(), i + 4); ++other)
            others += fmt::format("{} \"{}\" with {} KiB", others.empty() ? "; next:" : ",",
                                  scores[other].second->name(), scores[other].first >> 10);
        reclaim.add({.victim = name,
                     .explanation = fmt::format(
                         "space \"{}\" wanted memory and nothing could be swapped: \"{}\" was "
                         "removed, which had {} KiB of its own, the most of {} spaces{}",
                         requester.name(), name, bytes >> 10, scores.size(), others),
                     .freed_bytes = bytes});
        std::ignore = release(~std::uint64_t{0});
        return true;
    }
    return false;
}

}  // namespace detail

// --- the API ---

Result<void> Store::set_reclaim_policy(const ReclaimPolicy& policy) {
    return state_->set_reclaim_policy(policy);
}
ReclaimPolicy Store::reclaim_policy() const { return state_->reclaim_policy(); }
std::vector<OomEvent> Store::oom_events() const { return state_->reclaim.events(); }

Result<void> Space::set_quota(std::uint64_t size_bytes) {
    detail::TransactionState transaction(state_->store);
    const std::uint64_t pages = (size_bytes + kPageSize - 1) >> kPageShift;
    if (auto done = transaction.set_quota(state_, pages); !done) return done;
    return transaction.commit();
}

Result<std::uint64_t> Space::evict(std::uint64_t size_bytes) {
    state_->store->count_frames();
    detail::TransactionState transaction(state_->store);
    const auto pages = transaction.evict(state_, (size_bytes + kPageSize - 1) >> kPageShift,
                                         detail::TransactionState::Waiting::may_wait);
    if (!pages) return pages;
    return *pages << kPageShift;
}

FrameUse Space::frame_use() const {
    detail::StoreState& store = *state_->store;
    const auto counts = store.reclaim.of(state_->record);
    FrameUse use;
    use.charged_bytes = store.allocator.charges().of(state_->record) << kPageShift;
    use.evicted = counts->evicted;
    use.evicted_for_others = counts->evicted_for_others;
    use.evicted_clean = counts->evicted_clean;
    use.swapped_in = counts->swapped_in;
    if (const std::uint64_t quota = state_->quota_pages) use.quota_bytes = quota << kPageShift;
    const memory::ReaderSection section;
    const table::Root root = state_->root();
    if (root.entry.is_empty()) return use;
    table::Visitor visitor;
    visitor.range = [&](const table::VisitedRange& visited) {
        if (!visited.damage && visited.entry.is_swapped()) use.swapped_bytes += kPageSize;
    };
    table::visit(store.memory, root, table::own_pages(root), visitor);
    return use;
}

}  // namespace holdfast
