#include "holdfast/tlb.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "space/space_state.hpp"

namespace holdfast {

namespace {

// Calls `part(begin, size_bytes)` for the parts of the pages that have consecutive addresses: page
// indexes run through both halves of the address space, which are not neighbours.
template <typename Part>
void each_part(const space::ChangedPages::Pages& pages, Levels levels, const Part& part) {
    const std::uint64_t half = std::uint64_t{1} << (virtual_address_bits(levels) - kPageShift - 1);
    if (pages.begin < half)
        part(table::address_of_page(pages.begin, levels), (std::min(pages.end, half) - pages.begin)
                                                              << kPageShift);
    if (pages.end > half) {
        const std::uint64_t begin = std::max(pages.begin, half);
        part(table::address_of_page(begin, levels), (pages.end - begin) << kPageShift);
    }
}

}  // namespace

Tlb::Tlb(const Space& space) : Tlb(space, TlbOptions{}) {}

Tlb::Tlb(const Space& space, const TlbOptions& options) : cache_(options.geometries) {
    known_.resize(options.spaces);
    switch_to(space);
}

Result<Tlb> Tlb::create(const Space& space, const TlbOptions& options) {
    if (auto fine = options.geometries.check(); !fine) return std::unexpected(fine.error());
    if (options.spaces == 0 || options.spaces > TlbTag::kMax)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("a TLB cannot have entries of {} spaces; choose 1 to {}",
                                options.spaces, TlbTag::kMax));
    return Tlb(space, options);
}

std::optional<std::size_t> Tlb::index_of(const Space& space) {
    const auto has_it = [&](const Known& known) {
        return known.space && &known.space->state() == &space.state();
    };
    auto known = std::find_if(known_.begin(), known_.end(), has_it);
    if (known == known_.end()) {
        // A free tag, of which `switched` is 0, or else the one of longest ago.
        known = std::min_element(known_.begin(), known_.end(), [](const Known& a, const Known& b) {
            return a.switched < b.switched;
        });
        const auto index = static_cast<std::size_t>(known - known_.begin());
        if (index == current_ && known->space) return std::nullopt;
        counters_.flushed += cache_.drop(tag_of(index));
        *known = {.space = space,
                  .seen = space.state().changes.version().load(std::memory_order_acquire) &
                          ~std::uint64_t{1}};
    }
    return static_cast<std::size_t>(known - known_.begin());
}

void Tlb::switch_to(const Space& space) {
    known_[current_].seen = seen_;
    // Of several the one that is looked up in was switched to last, and of one it may go.
    if (known_.size() == 1 && known_[0].space && &known_[0].space->state() != &space.state()) {
        counters_.flushed += cache_.drop(tag_of(0));
        known_[0] = {};
    }
    current_ = *index_of(space);
    known_[current_].switched = ++switches_;
    tag_ = tag_of(current_);
    version_ = &space.state().changes.version();
    seen_ = known_[current_].seen;
    const bool shares = space.state().supervisor != nullptr;
    last_own_ = VirtAddr(~std::uint64_t{0} >> (shares ? 1 : 0));
}

void Tlb::flush() { counters_.flushed += cache_.drop_all(); }

void Tlb::flush(const Space& space) {
    for (std::size_t index = 0; index < known_.size(); ++index) {
        Known& known = known_[index];
        if (!known.space || &known.space->state() != &space.state()) continue;
        counters_.flushed += cache_.drop(tag_of(index));
        if (index != current_) known = {};
    }
}

// Forgets the entries of what has changed in the space, and no other.
void Tlb::catch_up(std::size_t index) {
    Known& known = known_[index];
    const TlbTag tag = tag_of(index);
    const detail::SpaceState& state = known.space->state();
    const auto reached = state.changes.since(known.seen, [&](const auto& pages) {
        each_part(pages, state.levels, [&](VirtAddr begin, std::uint64_t size_bytes) {
            counters_.invalidations += cache_.drop(tag, begin, size_bytes);
        });
    });
    if (reached) {
        known.seen = *reached;
        return;
    }
    // Too much to tell. The version is read before anything is forgotten, so that nothing is
    // remembered from before it.
    known.seen = state.changes.version().load(std::memory_order_acquire) & ~std::uint64_t{1};
    counters_.invalidations += cache_.drop(tag);
}

void Tlb::catch_up_all() {
    known_[current_].seen = seen_;
    for (std::size_t index = 0; index < known_.size(); ++index)
        if (known_[index].space) catch_up(index);
    seen_ = known_[current_].seen;
}

std::expected<Translation, Fault> Tlb::translate_further(VirtAddr address, Protection access) {
    known_[current_].seen = seen_;
    if (address > last_own_) {
        const Space half(known_[current_].space->state().supervisor);
        if (const auto index = index_of(half)) {
            known_[*index].switched = ++switches_;
            known_[current_].switched = ++switches_;
            return translate_as(*index, address, access);
        }
        // There is one tag only, and nowhere to remember it.
        ++counters_.misses;
        auto found = std::as_const(half).translate(address, access);
        if (!found) ++counters_.faults;
        return found;
    }
    auto found = translate_as(current_, address, access);
    seen_ = known_[current_].seen;
    return found;
}

std::expected<Translation, Fault> Tlb::translate_as(std::size_t index, VirtAddr address,
                                                    Protection access) {
    // What the walk finds is remembered as of an even version from before the walk: if a commit
    // changes the page meanwhile, the entry is among those to be forgotten.
    const Space& space = *known_[index].space;
    const std::atomic<std::uint64_t>& version = space.state().changes.version();
    const TlbTag tag = tag_of(index);
    bool is_settled = version.load(std::memory_order_acquire) == known_[index].seen;
    if (!is_settled) {
        catch_up(index);
        is_settled = version.load(std::memory_order_acquire) == known_[index].seen;
    }
    if (is_settled) {
        if (const auto hit = cache_.find(tag, address, access)) return *hit;
        if (access != Protection() && cache_.contains(tag, address)) ++counters_.permission_misses;
    }
    ++counters_.misses;
    auto found = space.translate(address, access);
    if (found)
        cache_.insert(tag, address, *found);
    else
        ++counters_.faults;
    return found;
}

TlbCounters Tlb::counters() const {
    TlbCounters counters = counters_;
    counters.hits_4KiB = cache_.hits(PageSize::size_4KiB);
    counters.hits_2MiB = cache_.hits(PageSize::size_2MiB);
    counters.hits_1GiB = cache_.hits(PageSize::size_1GiB);
    for (const PageSize size : TranslationCache::kSizes)
        counters.evictions += cache_.evictions(size);
    return counters;
}

std::uint64_t Tlb::reach_bytes() {
    catch_up_all();
    return cache_.reach_bytes();
}

std::uint64_t Tlb::valid_entries(PageSize size) {
    catch_up_all();
    return cache_.valid_entries(size);
}

}  // namespace holdfast
