#include "faults/libpmemobj_structures.hpp"

#include <algorithm>
#include <cstring>

#include "judge/libpmemobj_layout.hpp"

namespace holdfast::crash {
namespace {

using namespace layout;

// So many lanes with something in their logs, and so many chunks, are enough.
constexpr std::size_t kMostLanes = 4, kMostChunks = 64;
// Of a run: block size and alignment, and the beginning of the bitmap.
constexpr std::uint64_t kRunHeaderBytes = 64;

}  // namespace

Result<std::vector<FaultPlace>> libpmemobj_structures(std::span<const std::byte> pool) {
    const auto load = [&]<typename Word>(std::uint64_t offset, Word word) {
        std::memcpy(&word, pool.data() + offset, sizeof word);
        return word;
    };
    const auto fits = [&](std::uint64_t offset, std::uint64_t size) {
        return offset <= pool.size() && size <= pool.size() - offset;
    };
    const auto unknown = fail(ErrorCode::unsupported,
                              "the pool is not laid out as libpmemobj 1.4 and later do it: damage "
                              "to its own structures cannot be planted");
    if (!fits(0, kHeaderBytes + kDescriptorBytes)) return unknown;
    const auto lanes_offset = load(kLanesOffsetAt, std::uint64_t{});
    const auto lanes = load(kLaneCountAt, std::uint64_t{});
    const auto heap = load(kHeapOffsetAt, std::uint64_t{});
    if (!fits(lanes_offset, 0) || lanes > pool.size() / kLaneBytes ||
        !fits(lanes_offset, lanes * kLaneBytes) || !fits(heap, kHeapHeaderBytes) ||
        std::memcmp(pool.data() + heap, kHeapSignature.data(), kHeapSignature.size()) != 0)
        return unknown;
    const std::uint64_t zone = heap + kHeapHeaderBytes;
    const std::uint64_t headers = zone + kZoneHeaderBytes;
    const std::uint64_t chunks = headers + kChunksPerZone * kChunkHeaderBytes;
    if (!fits(chunks, 0)) return unknown;

    std::vector<FaultPlace> places;
    places.push_back({"pool header", 0, kHeaderBytes});
    places.push_back({"pool descriptor", kHeaderBytes, kDescriptorBytes});
    std::size_t lanes_taken = 0;
    for (std::uint64_t lane = 0; lane < lanes && lanes_taken < kMostLanes; ++lane) {
        const std::uint64_t at = lanes_offset + lane * kLaneBytes;
        const auto bytes = pool.subspan(at, kLaneBytes);
        const bool is_used = std::any_of(bytes.begin(), bytes.end(),
                                         [](std::byte byte) { return byte != std::byte{0}; });
        if (lane != 0 && !is_used) continue;
        places.push_back({"lane", at, kLaneBytes});
        ++lanes_taken;
    }
    places.push_back({"heap header", heap, kHeapHeaderBytes});
    places.push_back({"zone header", zone, kZoneHeaderBytes});
    const std::uint64_t count =
        std::min<std::uint64_t>(kMostChunks, (pool.size() - chunks) / kChunkBytes);
    for (std::uint64_t chunk = 0; chunk < count; ++chunk) {
        const std::uint64_t header = headers + chunk * kChunkHeaderBytes;
        places.push_back({"chunk header", header, kChunkHeaderBytes});
        if (load(header, std::uint16_t{}) == kChunkIsRun)
            places.push_back({"run header", chunks + chunk * kChunkBytes, kRunHeaderBytes});
    }
    return places;
}

}  // namespace holdfast::crash
