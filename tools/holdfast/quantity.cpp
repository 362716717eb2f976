#include "quantity.hpp"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <optional>
#include <utility>

namespace holdfast::tool {
namespace {

constexpr std::array<std::pair<std::string_view, unsigned>, 4> kUnits = {
    {{"KiB", 10}, {"MiB", 20}, {"GiB", 30}, {"TiB", 40}}};

bool has_hex_prefix(std::string_view text) {
    return text.starts_with("0x") || text.starts_with("0X");
}

// All of `digits`, or nothing.
std::optional<std::uint64_t> parse_digits(std::string_view digits, int base) {
    std::uint64_t value = 0;
    const char* const begin = digits.data();
    const char* const end = begin + digits.size();
    const auto [stop, error] = std::from_chars(begin, end, value, base);
    if (digits.empty() || error != std::errc() || stop != end) return std::nullopt;
    return value;
}

}  // namespace

Result<std::uint64_t> parse_size(std::string_view text) {
    std::string_view digits = text;
    unsigned shift = 0;
    for (const auto& [unit, unit_shift] : kUnits) {
        if (!text.ends_with(unit)) continue;
        digits.remove_suffix(unit.size());
        shift = unit_shift;
    }
    const bool hex = shift == 0 && has_hex_prefix(digits);
    const auto value = parse_digits(hex ? digits.substr(2) : digits, hex ? 16 : 10);
    if (!value || *value > (~std::uint64_t{0} >> shift))
        return fail(ErrorCode::invalid_argument,
                    fmt::format("\"{}\" is not a size; write 4096, 0x1000 or a whole number of "
                                "KiB, MiB, GiB or TiB, such as 256MiB",
                                text));
    return *value << shift;
}

Result<VirtAddr> parse_address(std::string_view text) {
    const auto bits = has_hex_prefix(text) ? parse_digits(text.substr(2), 16) : std::nullopt;
    if (!bits)
        return fail(
            ErrorCode::invalid_argument,
            fmt::format("\"{}\" is not an address; write it in hexadecimal, as in 0x7f0000000000",
                        text));
    return VirtAddr(*bits);
}

std::string format_size(std::uint64_t size_bytes) {
    for (auto unit = kUnits.rbegin(); unit != kUnits.rend(); ++unit) {
        if (size_bytes < std::uint64_t{1} << unit->second) continue;
        const double value =
            static_cast<double>(size_bytes) / static_cast<double>(std::uint64_t{1} << unit->second);
        return fmt::format("{:.{}f} {}", value, value < 10 ? 2 : value < 100 ? 1 : 0, unit->first);
    }
    return fmt::format("{} B", size_bytes);
}

std::string format_address(std::uint64_t bits) { return fmt::format("{:#x}", bits); }

std::string format_count(std::uint64_t count) {
    const std::string digits = fmt::format("{}", count);
    std::string text;
    for (std::size_t i = 0; i < digits.size(); ++i) {
        if (i != 0 && (digits.size() - i) % 3 == 0) text += ' ';
        text += digits[i];
    }
    return text;
}

std::string format_duration(double seconds) {
    if (seconds >= 1) return fmt::format("{:.2f} s", seconds);
    if (seconds >= 1e-3) return fmt::format("{:.2f} ms", seconds * 1e3);
    return fmt::format("{:.1f} us", seconds * 1e6);
}

}  // namespace holdfast::tool
