#include "recovery/mend_superblock.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>

#include "format/frame_metadata.hpp"
#include "format/overcommit.hpp"
#include "format/reclaim_word.hpp"
#include "recovery/mend_region_record.hpp"
#include "recovery/open_checks.hpp"

namespace holdfast::recovery {

using namespace format;

namespace {

bool is_well(const RegionRecord& record) {
    return record.kind != RegionKindOnMedium{} && record.checksum == record.computed_checksum();
}

// What the word would be worked out as, and why that is safe.
std::uint64_t value_of(const Superblock& superblock, std::uint64_t Superblock::* word) {
    std::uint64_t value = 0;
    // An epoch is an opening that changes something; there were not more of them than seconds since
    // 1970. So nothing of an earlier boot seems of this one.
    if (word == &Superblock::boot_epoch) return static_cast<std::uint64_t>(std::time(nullptr));
    // So high that from now on an owner id is looked for that is not in use.
    if (word == &Superblock::next_owner) return kOwnerCount;
    // A record and the number are written by one transaction, and no record is without one.
    if (word == &Superblock::region_count) {
        while (value < kMaxRegions && is_well(superblock.regions[value])) ++value;
        return value;
    }
    // Behind everything that any region has, or may grow into.
    for (const RegionRecord& record : superblock.regions)
        if (is_well(record)) value = std::max(value, record.base_frame + record.window_frames);
    return value;
}

}  // namespace

Result<std::vector<Finding>> mend_superblock(const pool::Pool& pool, Superblock& superblock) {
    // First the regions: of them it is worked out how many there are, and what comes behind them.
    auto regions = mend_region_records(pool, superblock);
    if (!regions) return regions;
    std::vector<Finding> mended = std::move(*regions);
    for (const SuperblockWord& each : kSuperblockWords) {
        std::uint64_t* const word = &(superblock.*each.word);
        if (each.word == &Superblock::limbo_head || CheckedWord::decode(*word, each.seed)) continue;
        const std::uint64_t value = value_of(superblock, each.word);
        pool::WriteSet writes;
        writes.store(word, CheckedWord::encode(value, each.seed), pool::WordClass::undo);
        // Commit point: the word. A crash before it leaves the damage, which is found again.
        if (auto done = pool.commit(writes); !done) return std::unexpected(done.error());
        // A dry run says the same as what is done a second later.
        const std::string now = each.word == &Superblock::boot_epoch
                                    ? "a new one is the time of day, in seconds"
                                    : fmt::format("what the rest of the store says is {}", value);
        mended.push_back({"I8 superblock",
                          "",
                          {},
                          fmt::format("the superblock's {} fails its check; {}", each.name, now)});
    }
    const auto reset = [&](std::uint64_t& word, const char* what) -> Result<void> {
        pool::WriteSet writes;
        writes.store(&word, 0, pool::WordClass::undo);
        // Commit point: the word, as above.
        if (auto done = pool.commit(writes); !done) return done;
        mended.push_back(
            {"I8 superblock",
             "",
             {},
             fmt::format("the superblock's {} fails its check; nothing else knows what "
                         "it was, and it is that of a new store now",
                         what)});
        return {};
    };
    if (!OvercommitWord::decode(superblock.overcommit))
        if (auto done = reset(superblock.overcommit, "overcommit policy"); !done)
            return std::unexpected(done.error());
    if (!format::ReclaimWord::decode(superblock.reclaim_policy))
        if (auto done = reset(superblock.reclaim_policy, "reclaim policy"); !done)
            return std::unexpected(done.error());
    if (superblock.zero_frame != 0 && !CheckedWord::decode(superblock.zero_frame, kSeedZeroFrame))
        if (auto done = reset(superblock.zero_frame, "frame of zeros"); !done)
            return std::unexpected(done.error());
    return mended;
}

}  // namespace holdfast::recovery
