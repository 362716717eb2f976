// Mapping the frames of device regions (include/holdfast/device.hpp).
#include <fmt/format.h>

#include "store/transaction_state.hpp"

namespace holdfast::detail {

using table::PageRange;
using table::TableEditor;

Result<void> TransactionState::map_device(const std::shared_ptr<SpaceState>& space, Range range,
                                          Protection protection, const MapOptions& options) {
    const DeviceMapping& device = *options.device;
    const auto refuse = [&](ErrorCode code, const std::string& why) {
        return fail(code, fmt::format("cannot map {:#x}..{:#x} in space \"{}\": {}",
                                      range.start.bits(), range.end().bits(), space->name(), why));
    };
    if (options.guard || options.grows_down || options.region)
        return refuse(ErrorCode::invalid_argument,
                      "a device's frames are no guard, no stack, and in no other region");
    auto joined = join(space);
    if (!joined) return std::unexpected(joined.error());
    PageRange pages;
    if (auto fine = check(**joined, "map", range, protection, pages); !fine) return fine;
    if (auto fine = check_page_size(**joined, range, options); !fine) return fine;
    const auto regions = store_->memory.regions();
    if (device.region >= regions.size())
        return refuse(ErrorCode::not_found, fmt::format("there is no region {}; `region list` "
                                                        "shows those there are",
                                                        device.region));
    const memory::Region& region = regions[device.region];
    if (!region.has_fixed_frames())
        return refuse(ErrorCode::invalid_argument,
                      fmt::format("region {} is {}, and its frames are the store's to give; only "
                                  "a device region's are mapped by their place",
                                  device.region, to_string(region.kind())));
    const std::uint64_t page_size = bytes(options.page_size);
    const std::uint64_t size = device.size_bytes != 0 ? device.size_bytes : range.size_bytes;
    const std::uint64_t region_size = region.frame_count() << kPageShift;
    if (device.offset > region_size || size > region_size - device.offset)
        return refuse(ErrorCode::invalid_argument,
                      fmt::format("region {} has {:#x} bytes, and {:#x} from {:#x} on were asked "
                                  "for",
                                  device.region, region_size, size, device.offset));
    const FrameNumber first = region.base() + (device.offset >> kPageShift);
    if (device.offset % kPageSize != 0 || size % page_size != 0 ||
        first.value() % (page_size >> kPageShift) != 0)
        return refuse(
            ErrorCode::invalid_argument,
            fmt::format("{:#x} bytes from {:#x} on in region {} do not line up with pages "
                        "of {:#x}",
                        size, device.offset, device.region, page_size));
    const std::uint64_t end = (device.offset + size) >> kPageShift;
    if (region.reachable_frames() < end) return refuse(ErrorCode::lost, region.trouble());
    // What was detached can be reached until the store is closed, and is nobody's afterwards.
    if (region.state() == RegionState::detached || region.is_outlived())
        return refuse(ErrorCode::lost,
                      fmt::format("region {} was detached while the store is open; what it has now "
                                  "can be mapped when the store is opened again",
                                  device.region));
    TableEditor editor(session_, (*joined)->root);
    const auto place = unmapped_place(editor, **joined, pages);
    if (!place) return std::unexpected(place.error());
    // Durable before any entry leads there; they say the same whoever writes them, and for ever. A
    // crash between this and the commit leaves records that no entry names.
    if (region.initialized() < end)
        if (auto done = store_->allocator.initialize(region, end); !done) return done;
    if (auto done = annotate(**joined, pages, options); !done) return done;
    return spoiled_by(editor.map_device(*place, protection, first, size >> kPageShift,
                                        table::level_of(options.page_size)));
}

}  // namespace holdfast::detail
