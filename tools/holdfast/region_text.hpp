// How a region is shown, by `info` and by `region list`, and the answer to who has made one.
#pragma once

#include <holdfast/region.hpp>

#include <string>

#include "context.hpp"
#include "output.hpp"

namespace holdfast::tool {

Json json_of(const RegionInfo& region);
std::string line_of(const RegionInfo& region);
Outcome answer_region(const Context& context, const Result<unsigned>& index);

}  // namespace holdfast::tool
