// The words of the superblock that can be worked out again from the rest of the store, when one
// fails its check.
#pragma once

#include <vector>

#include "format/superblock.hpp"
#include "holdfast/error.hpp"
#include "holdfast/verify.hpp"
#include "pool/pool.hpp"

namespace holdfast::recovery {

// Sets each damaged word right by a commit of its own, and before them the records of regions that
// can be (mend_region_record.hpp), and says which. The fixed part must be well.
// Nothing is changed if nothing is damaged. The head of limbo is left to `repair`, which must see
// what is lost with it: a survey finds it.
Result<std::vector<Finding>> mend_superblock(const pool::Pool& pool,
                                             format::Superblock& superblock);

}  // namespace holdfast::recovery
