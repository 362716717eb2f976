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

void Tlb::switch_to(const Space& space) {
    known_[current_].seen = seen_;
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
        counters_.flushed += cache_.drop(tag_of(index));
        *known = {.space = space,
                  .seen = space.state().changes.version().load(std::memory_order_acquire) &
                          ~std::uint64_t{1}};
    }
    known->switched = ++switches_;
    current_ = static_cast<std::size_t>(known - known_.begin());
    tag_ = tag_of(current_);
    version_ = &space.state().changes.version();
    seen_ = known->seen;
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
    // What the walk finds is remembered as of an even version from before the walk: if a commit
    // changes the page meanwhile, the entry is among those to be forgotten.
    bool is_settled = version_->load(std::memory_order_acquire) == seen_;
    if (!is_settled) {
        known_[current_].seen = seen_;
        catch_up(current_);
        seen_ = known_[current_].seen;
        is_settled = version_->load(std::memory_order_acquire) == seen_;
    }
    if (is_settled) {
        if (const auto hit = cache_.find(tag_, address, access)) return *hit;
        if (access != Protection() && cache_.contains(tag_, address)) ++counters_.permission_misses;
    }
    ++counters_.misses;
    auto found = std::as_const(*known_[current_].space).translate(address, access);
    if (found)
        cache_.insert(tag_, address, *found);
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
