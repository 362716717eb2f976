#include "holdfast/handle.hpp"

#include <fmt/format.h>

#include <charconv>
#include <cstring>

#include "format/crc.hpp"

namespace holdfast {
namespace {

constexpr std::string_view kPrefix = "hf1-";

struct Words {
    std::array<std::uint64_t, 8> values{};
    std::uint32_t check() const {
        return format::Crc32().add(std::as_bytes(std::span(values))).value();
    }
};

}  // namespace

std::string Handle::to_string() const {
    Words words;
    std::memcpy(words.values.data(), store_.data(), store_.size());
    words.values[2] = mark_.record;
    words.values[3] = std::uint64_t{mark_.owner} << 16 | mark_.generation;
    words.values[4] = mark_.created;
    words.values[5] = mark_.range;
    words.values[6] = range_.start.bits();
    words.values[7] = range_.size_bytes;
    std::string text(kPrefix);
    for (const std::uint64_t word : words.values) text += fmt::format("{:016x}", word);
    return text + fmt::format("{:08x}", words.check());
}

Result<Handle> Handle::parse(std::string_view text) {
    const auto refuse = [&] {
        return fail(ErrorCode::invalid_argument,
                    fmt::format("\"{}\" is no handle, or was changed since it was printed", text));
    };
    Words words;
    if (!text.starts_with(kPrefix) || text.size() != kPrefix.size() + words.values.size() * 16 + 8)
        return refuse();
    std::string_view rest = text.substr(kPrefix.size());
    const auto take = [&](std::size_t digits) -> std::uint64_t {
        std::uint64_t value = 0;
        const std::string_view word = rest.substr(0, digits);
        std::from_chars(word.begin(), word.end(), value, 16);
        rest.remove_prefix(digits);
        return value;
    };
    for (std::uint64_t& word : words.values) word = take(16);
    const std::uint64_t check = take(8);
    Uuid store{};
    std::memcpy(store.data(), words.values.data(), store.size());
    Handle handle(store,
                  {.record = words.values[2],
                   .owner = static_cast<std::uint32_t>(words.values[3] >> 16),
                   .generation = static_cast<std::uint16_t>(words.values[3]),
                   .created = words.values[4],
                   .range = words.values[5]},
                  {VirtAddr(words.values[6]), words.values[7]});
    // Printed again it must be the same: whatever from_chars passes over is then noticed, too.
    if (check != words.check() || handle.to_string() != text) return refuse();
    return handle;
}

}  // namespace holdfast
