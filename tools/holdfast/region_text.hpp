// How a region is shown, by `info` and by `region list`.
#pragma once

#include <holdfast/region.hpp>

#include <string>

#include "output.hpp"

namespace holdfast::tool {

Json json_of(const RegionInfo& region);
std::string line_of(const RegionInfo& region);

}  // namespace holdfast::tool
