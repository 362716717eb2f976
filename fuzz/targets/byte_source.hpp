// Numbers out of a fuzzer's bytes; zeros when they have run out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace holdfast::crash {

class ByteSource {
  public:
    explicit ByteSource(std::span<const std::uint8_t> bytes) : bytes_(bytes) {}

    bool empty() const { return bytes_.empty(); }
    std::uint8_t byte() {
        if (bytes_.empty()) return 0;
        const std::uint8_t first = bytes_.front();
        bytes_ = bytes_.subspan(1);
        return first;
    }
    std::uint64_t below(std::uint64_t end) {
        std::uint64_t number = byte();
        if (end > 256) number |= std::uint64_t{byte()} << 8;
        return number % end;
    }

  private:
    std::span<const std::uint8_t> bytes_;
};

}  // namespace holdfast::crash
