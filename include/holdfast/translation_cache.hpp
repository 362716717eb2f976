// A set-associative cache of translations: what a TLB is beside its spaces and its walks (tlb.hpp).
// Also usable alone, as a model of a processor's TLB over tables of any kind.
//
// One array of entries for each page size, as processors have them: 4 KiB, 2 MiB and 1 GiB. An
// entry's set is given by the low bits of its page's number, and never by its tag; within the set
// any way may hold it. `find` looks into all arrays; a page size whose array has no entries is not
// cached.
//
// Invariants, whatever is inserted and dropped:
//   C1  at most one entry of an array has a given tag and page
//   C2  reach_bytes() is the sum of the page sizes of all valid entries
//   C3  an entry leaves only by `drop`, or by an insertion into its full set (an eviction)
//
// Thread safety: none; a cache belongs to one thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "holdfast/error.hpp"
#include "holdfast/fault.hpp"
#include "holdfast/types.hpp"

namespace holdfast {

// Which entry of a full set makes room.
enum class TlbReplacement : std::uint8_t {
    lru,     // whose last hit, or insertion, is longest ago: exact, not an approximation
    fifo,    // whose insertion is longest ago; hits change nothing
    random,  // any, by a generator with a fixed seed: the same calls give the same victims
};
const char* to_string(TlbReplacement replacement);

// One array. `entries` is `ways` times a power of two; `ways == entries` is fully associative, and
// one way is direct-mapped.
struct TlbGeometry {
    std::uint32_t entries = 0;
    std::uint32_t ways = 1;

    friend bool operator==(const TlbGeometry&, const TlbGeometry&) = default;
};

struct TlbGeometries {
    TlbGeometry pages_4KiB{1024, 4};
    TlbGeometry pages_2MiB{256, 4};
    TlbGeometry pages_1GiB{16, 4};
    TlbReplacement replacement = TlbReplacement::lru;

    // invalid_argument with a sentence if one of them is none; an array may have 0 entries, but not
    // that of 4 KiB.
    Result<void> check() const;
};

// Tells spaces apart, as a PCID does (SDM vol. 3A, 4.10.1).
class TlbTag {
  public:
    static constexpr std::uint32_t kMax = 4095;

    constexpr TlbTag() = default;  // of no entry
    constexpr explicit TlbTag(std::uint32_t value) : bits_(std::uint64_t{value & kMax} << 52) {}
    // In the bits of an entry's key above the page number, which has 52.
    constexpr std::uint64_t bits() const { return bits_; }

    friend constexpr bool operator==(TlbTag, TlbTag) = default;

  private:
    std::uint64_t bits_ = 0;
};

class TranslationCache {
  public:
    // The geometries have passed their check.
    explicit TranslationCache(const TlbGeometries& geometries);
    // It can be moved, but not copied: hints point to its entries.
    TranslationCache(TranslationCache&&) = default;
    TranslationCache& operator=(TranslationCache&&) = default;

    // A hit: there is an entry, and it permits the access. Otherwise nothing, and nothing is
    // counted and no entry made younger: the page has to be walked to.
    std::optional<Translation> find(TlbTag tag, VirtAddr address, Protection access);
    // Whether there is an entry, whatever it permits.
    bool contains(TlbTag tag, VirtAddr address) const;

    // An entry: 32 bytes, so that none lies across two lines of the processor's cache.
    struct Entry {
        std::uint64_t key = 0;   // the page's number, and the tag above it; 0 is no entry
        std::uint64_t word = 0;  // the frame's physical address, and below it what is permitted
        std::uint64_t used = 0, inserted = 0;  // when, by the array's clock
    };
    // `find` for hot paths, in one array and without a search: looks only at the entry where the
    // page, or another with the same low bits, was last seen. If that is no hit, `find` has to be
    // asked. The entry is good until the next call of anything else.
    template <PageSize kSize>
    [[gnu::always_inline]] const Entry* find_at_hint(TlbTag tag, VirtAddr address,
                                                     Protection access) {
        Array& array = arrays_[index_of(kSize)];
        const std::uint64_t key = tag.bits() | address.bits() >> static_cast<unsigned>(kSize);
        Entry& entry = *array.hints[key & array.hint_mask];
        if (entry.key != key || !permits(entry, access)) return nullptr;
        entry.used = ++array.clock;
        return &entry;
    }
    template <PageSize kSize>
    [[gnu::always_inline]] static Translation translation(const Entry& entry, VirtAddr address) {
        return {PhysAddr((entry.word & ~kFlagsMask) | (address.bits() & (bytes(kSize) - 1))), kSize,
                Protection(static_cast<std::uint8_t>(entry.word & kProtectionMask)),
                (entry.word & kCopyOnWrite) != 0};
    }

    // Remembers where the page of `address` is. Replaces the entry of the same page, if there is
    // one; otherwise takes a free way of its set, or evicts.
    void insert(TlbTag tag, VirtAddr address, const Translation& translation);

    // Drops the entries of all pages, of whatever size, that have a byte in [begin, begin + size);
    // returns how many. A range larger than the arrays costs a look at each entry, a smaller one a
    // look at each of its pages' sets.
    std::uint64_t drop(TlbTag tag, VirtAddr begin, std::uint64_t size_bytes);
    std::uint64_t drop(TlbTag tag);
    std::uint64_t drop_all();

    std::uint64_t hits(PageSize size) const {
        const Array& array = arrays_[index_of(size)];
        return array.clock - array.insertions;
    }
    std::uint64_t evictions(PageSize size) const { return arrays_[index_of(size)].evictions; }
    std::uint64_t valid_entries(PageSize size) const { return arrays_[index_of(size)].valid; }
    // The bytes that can be reached without a walk.
    std::uint64_t reach_bytes() const;

    // Names the invariant that does not hold, or nothing. Looks at every entry.
    std::optional<std::string> broken_invariant() const;

    static constexpr std::array kSizes = {PageSize::size_4KiB, PageSize::size_2MiB,
                                          PageSize::size_1GiB};

  private:
    static constexpr std::size_t kNone = ~std::size_t{0};
    static constexpr std::uint64_t kProtectionMask = 15, kCopyOnWrite = 16, kFlagsMask = 31;

    static constexpr std::size_t index_of(PageSize size) {
        return (static_cast<std::size_t>(size) - kPageShift) / 9;
    }

    static bool permits(const Entry& entry, Protection access) {
        return (access.mask() & ~entry.word) == 0;
    }

    struct Array {
        std::vector<Entry> entries = {{}};  // one at least, so that a hint leads somewhere
        // By the low bits of a page's number, where such a page was last found or inserted: so a
        // hit costs the same for any number of ways. The last hit of another such page may have
        // taken it.
        std::vector<Entry*> hints = {entries.data()};
        std::uint64_t set_mask = 0, hint_mask = 0;
        std::size_t ways = 0;
        std::uint64_t clock = 0;  // counts hits and insertions
        std::uint64_t insertions = 0, evictions = 0, valid = 0;

        std::size_t slot_of(std::uint64_t key) const {
            const std::size_t first = (key & set_mask) * ways;
            for (std::size_t slot = first; slot < first + ways; ++slot)
                if (entries[slot].key == key) return slot;
            return kNone;
        }
        std::size_t free_slot(std::size_t first) const {
            for (std::size_t slot = first; slot < first + ways; ++slot)
                if (entries[slot].key == 0) return slot;
            return kNone;
        }
    };

    template <PageSize kSize>
    std::optional<Translation> find_in(TlbTag tag, VirtAddr address, Protection access);
    std::size_t victim_of(const Array& array, std::size_t first);
    std::uint64_t drop_in(Array& array, unsigned shift, TlbTag tag, std::uint64_t first_page,
                          std::uint64_t last_page);

    std::array<Array, 3> arrays_;
    TlbReplacement replacement_;
    std::uint64_t random_state_ = 0x9e37'79b9'7f4a'7c15;
};

}  // namespace holdfast
