// Sizes and addresses as people write them.
#pragma once

#include <holdfast/error.hpp>
#include <holdfast/types.hpp>

#include <cstdint>
#include <string>
#include <string_view>

namespace holdfast::tool {

// Bytes: "4096", "0x1000", or a whole number of KiB, MiB, GiB or TiB as in "256MiB".
Result<std::uint64_t> parse_size(std::string_view text);

// Hexadecimal with 0x. Without it the number is refused, since it could be meant either way.
Result<VirtAddr> parse_address(std::string_view text);

// "1.5 MiB", three digits at least; below 1 KiB plainly "12 B".
std::string format_size(std::uint64_t size_bytes);

// "0x7000"
std::string format_address(std::uint64_t bits);

// Thousands apart: "16 000 000".
std::string format_count(std::uint64_t count);

// The time in the unit that suits it: "1.42 ms".
std::string format_duration(double seconds);

}  // namespace holdfast::tool
