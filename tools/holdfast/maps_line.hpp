// A mapping as a line of /proc/PID/maps.
#pragma once

#include <holdfast/space.hpp>

#include <string>

namespace holdfast::tool {

// `start-end perms offset 00:00 0 name`, without the end of the line; the columns are the kernel's.
std::string maps_line(const Mapping& mapping);

}  // namespace holdfast::tool
