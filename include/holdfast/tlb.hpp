// A software TLB: remembers recent translations, of one space or of several.
//
//     Tlb tlb(editor);
//     auto found = tlb.translate(address, protection::w);
//     tlb.switch_to(compiler);                              // what is known of `editor` stays
//
// As in a processor, there are arrays of entries for pages of 4 KiB, 2 MiB and 1 GiB, each
// set-associative (translation_cache.hpp has geometry and replacement policies), and entries of
// several spaces live side by side, told apart by a tag, so that switching forgets nothing. Faults
// are not remembered.
//
// What a hit may answer. An answer from an entry is one that `Space::translate` could have given at
// a moment during the call: never from before an unmap, protect, removal of the space, or whatever
// else takes a translation away or changes it, that had returned, or of which anybody has seen
// something. A commit says which pages it changes; their entries alone are forgotten, when the
// TLB's thread next looks something up in that space. While such a commit of the space is under way
// all look-ups walk; that is microseconds.
//
// Permissions are remembered with the entry and checked on every look-up. An access that the entry
// does not permit is not refused by it, but walked for: the tables decide. So a table that becomes
// its space's own again (snapshot.hpp) need not be told: an entry may go on to say copy_on_write of
// a page that may be written in place by now, and whoever writes is told so.
//
// Thread safety: a Tlb belongs to one thread; make one per thread. It keeps the stores of its
// spaces open.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <optional>
#include <vector>

#include "holdfast/fault.hpp"
#include "holdfast/space.hpp"
#include "holdfast/translation_cache.hpp"

namespace holdfast {

struct TlbOptions {
    TlbGeometries geometries = {};
    // How many spaces can have entries at a time, 1 to TlbTag::kMax. The next one takes the tag of
    // the one that was switched to longest ago, whose entries go.
    std::uint32_t spaces = 64;
};

// Since the TLB was made.
struct TlbCounters {
    std::uint64_t hits_4KiB = 0, hits_2MiB = 0, hits_1GiB = 0;
    std::uint64_t misses = 0;             // look-ups that walked
    std::uint64_t permission_misses = 0;  // of these, with an entry that did not permit the access
    std::uint64_t faults = 0;             // of these, whose walk ended in a fault
    std::uint64_t evictions = 0;          // entries that made room for others
    std::uint64_t invalidations = 0;      // entries whose page changed
    std::uint64_t flushed = 0;            // entries of spaces that lost their tag, or of `flush`

    std::uint64_t hits() const { return hits_4KiB + hits_2MiB + hits_1GiB; }
    std::uint64_t lookups() const { return hits() + misses; }
};

class Tlb {
  public:
    // A TLB of the default geometry that looks up in `space`.
    explicit Tlb(const Space& space);
    // Errors: invalid_argument (a geometry or number of spaces that cannot be).
    static Result<Tlb> create(const Space& space, const TlbOptions& options);

    // As Space::translate, with a protection fault where `access` is not permitted. A hit on a page
    // of 4 KiB or 2 MiB takes no call, and touches no persistent memory.
    [[gnu::always_inline]] std::expected<Translation, Fault> translate(VirtAddr address,
                                                                       Protection access = {}) {
        if (version_->load(std::memory_order_acquire) == seen_ && address <= last_own_) [[likely]] {
            using enum PageSize;
            if (const auto* hit = cache_.find_at_hint<size_4KiB>(tag_, address, access)) [[likely]]
                return TranslationCache::translation<size_4KiB>(*hit, address);
            if (const auto* hit = cache_.find_at_hint<size_2MiB>(tag_, address, access))
                return TranslationCache::translation<size_2MiB>(*hit, address);
        }
        return translate_further(address, access);
    }

    // From here on addresses are looked up in this space. Entries of others stay.
    void switch_to(const Space& space);

    // Forgets all entries, or those of one space and the space with them, unless it is the one that
    // is looked up in.
    void flush();
    void flush(const Space& space);

    TlbCounters counters() const;
    std::uint64_t misses() const { return counters_.misses; }
    // The bytes that could be reached now without a walk, in all spaces. First forgets what has
    // changed in them, so that no dead entry is counted.
    std::uint64_t reach_bytes();
    std::uint64_t valid_entries(PageSize size);

  private:
    struct Known {
        std::optional<Space> space;  // none: the tag is free
        std::uint64_t seen = 0;  // the even version of the space's changes that the entries are of
        std::uint64_t switched = 0;  // when it was last switched to
    };

    Tlb(const Space& space, const TlbOptions& options);
    static TlbTag tag_of(std::size_t index) {
        return TlbTag(static_cast<std::uint32_t>(index + 1));
    }
    std::expected<Translation, Fault> translate_further(VirtAddr address, Protection access);
    // In the space of that tag, which has seen of its changes what `known_` says.
    std::expected<Translation, Fault> translate_as(std::size_t index, VirtAddr address,
                                                   Protection access);
    // The tag that the space has, or takes from another; not from the one that is looked up in.
    std::optional<std::size_t> index_of(const Space& space);
    void catch_up(std::size_t index);
    void catch_up_all();

    TranslationCache cache_;
    // Of the space that is looked up in.
    const std::atomic<std::uint64_t>* version_ = nullptr;
    std::uint64_t seen_ = 0;
    // Addresses beyond are a supervisor object's (supervisor.hpp), and have entries of its tag,
    // which all spaces that share it use.
    VirtAddr last_own_{~std::uint64_t{0}};
    TlbTag tag_;
    std::size_t current_ = 0;

    std::vector<Known> known_;  // by tag, less 1
    std::uint64_t switches_ = 0;
    TlbCounters counters_;  // but for what the cache counts
};

}  // namespace holdfast
