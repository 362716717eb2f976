#include "holdfast/translation_cache.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cassert>

namespace holdfast {

namespace {

// What a page number of a tagged key is masked by.
constexpr std::uint64_t kPageMask = (std::uint64_t{1} << 52) - 1;
constexpr std::uint32_t kMaxEntries = 1u << 24;

Result<void> check_array(const TlbGeometry& geometry, const char* size, bool may_be_absent) {
    const auto refuse = [&](const char* why) {
        return fail(ErrorCode::invalid_argument,
                    fmt::format("a TLB with {} entries of {} in {} ways cannot be: {}",
                                geometry.entries, size, geometry.ways, why));
    };
    if (geometry.entries == 0 && may_be_absent) return {};
    if (geometry.entries == 0) return refuse("it needs at least one entry");
    if (geometry.entries > kMaxEntries) return refuse("the most is 16777216 entries");
    if (geometry.ways == 0) return refuse("it needs at least one way");
    if (geometry.entries % geometry.ways != 0 ||
        !std::has_single_bit(geometry.entries / geometry.ways))
        return refuse("the entries must be the ways times a power of two");
    return {};
}

}  // namespace

const char* to_string(TlbReplacement replacement) {
    switch (replacement) {
        case TlbReplacement::lru:
            return "lru";
        case TlbReplacement::fifo:
            return "fifo";
        case TlbReplacement::random:
            return "random";
    }
    return "?";
}

Result<void> TlbGeometries::check() const {
    if (auto fine = check_array(pages_4KiB, "4 KiB", false); !fine) return fine;
    if (auto fine = check_array(pages_2MiB, "2 MiB", true); !fine) return fine;
    return check_array(pages_1GiB, "1 GiB", true);
}

TranslationCache::TranslationCache(const TlbGeometries& geometries)
    : replacement_(geometries.replacement) {
    assert(geometries.check());
    const std::array given = {geometries.pages_4KiB, geometries.pages_2MiB, geometries.pages_1GiB};
    for (std::size_t i = 0; i < given.size(); ++i) {
        if (given[i].entries == 0) continue;  // no way: nothing is ever found
        Array& array = arrays_[i];
        array.entries.resize(given[i].entries);
        array.ways = given[i].ways;
        array.set_mask = given[i].entries / given[i].ways - 1;
        array.hints.assign(std::bit_ceil(given[i].entries), array.entries.data());
        array.hint_mask = array.hints.size() - 1;
    }
}

template <PageSize kSize>
std::optional<Translation> TranslationCache::find_in(TlbTag tag, VirtAddr address,
                                                     Protection access) {
    Array& array = arrays_[index_of(kSize)];
    if (array.valid == 0) return std::nullopt;
    const std::uint64_t key = tag.bits() | address.bits() >> static_cast<unsigned>(kSize);
    const std::size_t slot = array.slot_of(key);
    if (slot == kNone) return std::nullopt;
    array.hints[key & array.hint_mask] = &array.entries[slot];
    Entry& entry = array.entries[slot];
    if (!permits(entry, access)) return std::nullopt;
    entry.used = ++array.clock;
    return translation<kSize>(entry, address);
}

std::optional<Translation> TranslationCache::find(TlbTag tag, VirtAddr address, Protection access) {
    if (auto found = find_in<PageSize::size_4KiB>(tag, address, access)) return found;
    if (auto found = find_in<PageSize::size_2MiB>(tag, address, access)) return found;
    return find_in<PageSize::size_1GiB>(tag, address, access);
}

bool TranslationCache::contains(TlbTag tag, VirtAddr address) const {
    return std::any_of(kSizes.begin(), kSizes.end(), [&](PageSize size) {
        const Array& array = arrays_[index_of(size)];
        return array.valid != 0 &&
               array.slot_of(tag.bits() | address.bits() >> static_cast<unsigned>(size)) != kNone;
    });
}

void TranslationCache::insert(TlbTag tag, VirtAddr address, const Translation& translation) {
    assert(tag != TlbTag() && translation.protection.readable());
    Array& array = arrays_[index_of(translation.page_size)];
    if (array.ways == 0) return;
    const std::uint64_t key =
        tag.bits() | address.bits() >> static_cast<unsigned>(translation.page_size);
    std::size_t slot = array.slot_of(key);
    if (slot == kNone) {
        const std::size_t first = (key & array.set_mask) * array.ways;
        slot = array.free_slot(first);
        if (slot != kNone) {
            ++array.valid;
        } else {
            slot = victim_of(array, first);
            ++array.evictions;
        }
    }
    array.hints[key & array.hint_mask] = &array.entries[slot];
    ++array.insertions;
    ++array.clock;
    array.entries[slot] = {
        .key = key,
        .word = (translation.physical.bits() & ~(bytes(translation.page_size) - 1)) |
                translation.protection.mask() | (translation.copy_on_write ? kCopyOnWrite : 0),
        .used = array.clock,
        .inserted = array.clock};
}

std::size_t TranslationCache::victim_of(const Array& array, std::size_t first) {
    if (replacement_ == TlbReplacement::random) {
        // xorshift64 (Marsaglia, 2003).
        random_state_ ^= random_state_ << 13;
        random_state_ ^= random_state_ >> 7;
        random_state_ ^= random_state_ << 17;
        return first + (random_state_ >> 32) % array.ways;
    }
    const auto time = replacement_ == TlbReplacement::lru ? &Entry::used : &Entry::inserted;
    std::size_t oldest = first;
    for (std::size_t slot = first; slot < first + array.ways; ++slot)
        if (array.entries[slot].*time < array.entries[oldest].*time) oldest = slot;
    return oldest;
}

std::uint64_t TranslationCache::drop_in(Array& array, unsigned shift, TlbTag tag,
                                        std::uint64_t first_page, std::uint64_t last_page) {
    if (array.valid == 0) return 0;
    const std::uint64_t before = array.valid;
    const auto drop_slot = [&](std::size_t slot) {
        array.entries[slot].key = 0;
        --array.valid;
    };
    const std::uint64_t first = first_page >> (shift - kPageShift);
    const std::uint64_t last = last_page >> (shift - kPageShift);
    if (last - first < array.set_mask + 1) {
        for (std::uint64_t page = first; page <= last; ++page)
            if (const std::size_t slot = array.slot_of(tag.bits() | page); slot != kNone)
                drop_slot(slot);
    } else {
        for (std::size_t slot = 0; slot < array.entries.size(); ++slot) {
            const std::uint64_t key = array.entries[slot].key;
            const std::uint64_t page = key & kPageMask;
            if (key != 0 && (key & ~kPageMask) == tag.bits() && page >= first && page <= last)
                drop_slot(slot);
        }
    }
    return before - array.valid;
}

std::uint64_t TranslationCache::drop(TlbTag tag, VirtAddr begin, std::uint64_t size_bytes) {
    if (size_bytes == 0) return 0;
    const std::uint64_t first_page = begin.bits() >> kPageShift;
    const std::uint64_t last_page = (begin + (size_bytes - 1)).bits() >> kPageShift;
    std::uint64_t dropped = 0;
    for (const PageSize size : kSizes)
        dropped += drop_in(arrays_[index_of(size)], static_cast<unsigned>(size), tag, first_page,
                           last_page);
    return dropped;
}

std::uint64_t TranslationCache::drop(TlbTag tag) {
    return drop(tag, VirtAddr(0), ~std::uint64_t{0});
}

std::uint64_t TranslationCache::drop_all() {
    std::uint64_t dropped = 0;
    for (Array& array : arrays_) {
        dropped += array.valid;
        for (Entry& entry : array.entries) entry.key = 0;
        array.valid = 0;
    }
    return dropped;
}

std::uint64_t TranslationCache::reach_bytes() const {
    std::uint64_t reach = 0;
    for (const PageSize size : kSizes) reach += valid_entries(size) * bytes(size);
    return reach;
}

std::optional<std::string> TranslationCache::broken_invariant() const {
    for (const PageSize size : kSizes) {
        const Array& array = arrays_[index_of(size)];
        std::uint64_t valid = 0;
        for (std::size_t slot = 0; slot < array.entries.size(); ++slot) {
            const std::uint64_t key = array.entries[slot].key;
            if (key == 0) continue;
            ++valid;
            if (array.ways == 0 || slot / array.ways != (key & array.set_mask))
                return fmt::format("C1: the key {:#x} stands in another set", key);
            if (array.slot_of(key) != slot)
                return fmt::format("C1: the key {:#x} is there twice", key);
        }
        if (valid != array.valid)
            return fmt::format("C2: {} entries are valid, and {} were counted", valid, array.valid);
    }
    return std::nullopt;
}

}  // namespace holdfast
