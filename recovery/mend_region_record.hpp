// The record of a region that fails its checksum by one flipped bit, put right.
//
// That it is right is arithmetic: of two different records that fit their checksums, at least four
// bits differ (tests/recovery/mend_region_record_test.cpp goes through all pairs of bits). So what
// one bit of damage leaves is one flip away from a single record, the one that was there; two bits
// of damage are one flip away from none, and are not touched. Whatever else could be had, as from
// the header of a region's file, has neither the places of frames and metadata nor their base.
#pragma once

#include <optional>
#include <vector>

#include "format/superblock.hpp"
#include "holdfast/error.hpp"
#include "holdfast/verify.hpp"
#include "pool/pool.hpp"

namespace holdfast::recovery {

// The one bit of the record (0 is the lowest of its first byte) whose flip makes it fit; nothing if
// the record is well, or no bit or several do.
std::optional<unsigned> flipped_bit_of(const format::RegionRecord& record);

// Puts each such record right by a commit of its own, and says so.
Result<std::vector<Finding>> mend_region_records(const pool::Pool& pool,
                                                 format::Superblock& superblock);

}  // namespace holdfast::recovery
