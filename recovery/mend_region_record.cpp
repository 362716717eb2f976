#include "recovery/mend_region_record.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <span>

namespace holdfast::recovery {

using format::RegionRecord;

namespace {

constexpr unsigned kBits = 8 * sizeof(RegionRecord);

RegionRecord with_flipped(const RegionRecord& record, unsigned bit) {
    RegionRecord changed = record;
    std::byte& byte = std::as_writable_bytes(std::span(&changed, 1))[bit / 8];
    byte ^= std::byte{1} << bit % 8;
    return changed;
}

bool fits(const RegionRecord& record) { return record.checksum == record.computed_checksum(); }

// No region was ever there.
bool is_blank(const RegionRecord& record) {
    const auto bytes = std::as_bytes(std::span(&record, 1));
    return std::all_of(bytes.begin(), bytes.end(),
                       [](std::byte byte) { return byte == std::byte{0}; });
}

}  // namespace

std::optional<unsigned> flipped_bit_of(const RegionRecord& record) {
    if (fits(record)) return std::nullopt;
    std::optional<unsigned> found;
    for (unsigned bit = 0; bit < kBits; ++bit) {
        if (!fits(with_flipped(record, bit))) continue;
        if (found) return std::nullopt;
        found = bit;
    }
    return found;
}

Result<std::vector<Finding>> mend_region_records(const pool::Pool& pool,
                                                 format::Superblock& superblock) {
    std::vector<Finding> mended;
    for (unsigned index = 0; index < format::kMaxRegions; ++index) {
        RegionRecord& record = superblock.regions[index];
        if (is_blank(record)) continue;
        const auto bit = flipped_bit_of(record);
        if (!bit) continue;
        const RegionRecord right = with_flipped(record, *bit);
        // One that was blank and has a flipped bit is one flip away from a blank one only.
        if (right.kind == format::RegionKindOnMedium{}) continue;
        pool::WriteSet none;
        // Commit point: the record. A crash before it leaves the damage, which is found again.
        auto done = pool.commit(none, [&](pool::TransactionScope& scope) -> Result<void> {
            scope.write(&record, std::as_bytes(std::span(&right, 1)));
            return {};
        });
        if (!done) return std::unexpected(done.error());
        mended.push_back({"I8 superblock",
                          "",
                          {},
                          fmt::format("the record of region {} fails its checksum by one bit, in "
                                      "byte {}, which is put right",
                                      index, *bit / 8)});
    }
    return mended;
}

}  // namespace holdfast::recovery
