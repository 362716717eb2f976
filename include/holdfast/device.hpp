// Device-like memory: frames that are what they are, wherever they are mapped.
//
// Of all other memory the store decides which frame a page gets, clears it, copies it on write,
// swaps and frees it. The frames of a *device region* it does none of that to: a buffer that
// hardware or another process fills, a table that it reads, a frame buffer. They are mapped by
// their place in the region:
//
//     const unsigned ring = *store.add_device_region("/dev/dax0.1", {});
//     space.map({VirtAddr(0x7f00'0000'0000), 2_MiB}, protection::rw,
//               {.page_size = PageSize::size_2MiB, .device = DeviceMapping{.region = ring}});
//
// Any number of spaces, and of addresses in one, may map the same frames, and all see each other's
// bytes, also forks and snapshots: such a page is never copied on write. What is in the frames when
// they are mapped, they hold; unmapping leaves them as they are. They count for no quota and no
// commit charge, and are in no list of free frames. Mapping takes tables only, whatever the length,
// and counts nothing in the frames: it costs one small commit, as any range does.
//
// The region is an external one (region.hpp) in all else: a file or a device-DAX device, whose
// first page is the store's header, by which it is known again at the next opening. Its frames
// begin at offset 2 MiB of the file, where whoever fills them finds them. A region that is missing,
// replaced, cut off or from another time is a Fault of each page that lies there. Bytes are durable
// as those of other pages are: `persist` flushes them; what others write is theirs to flush.
#pragma once

#include <cstdint>

#include "holdfast/types.hpp"

namespace holdfast {

// What MapOptions::device names. The range may be larger than `size_bytes`: the frames then repeat.
struct DeviceMapping {
    unsigned region = 0;           // as Store::add_device_region returned it
    std::uint64_t offset = 0;      // of the first byte from the region's first frame
    std::uint64_t size_bytes = 0;  // 0: as the range
};

}  // namespace holdfast
