#include "space/space_access.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <shared_mutex>
#include <thread>

#include "format/file_record.hpp"
#include "memory/reader_section.hpp"
#include "pool/pool.hpp"
#include "space/annotations.hpp"
#include "table/visit.hpp"
#include "table/walk.hpp"

namespace holdfast::space {

using detail::SpaceState;
using memory::PhysicalMemory;
using memory::ReaderSection;

namespace {

std::expected<Translation, Fault> walk_once(const PhysicalMemory& memory, const SpaceState& space,
                                            VirtAddr address) {
    return table::walk(memory, space.root(), address);
}

// A walk beside a writer may see an entry of before its change and metadata of after it. What looks
// like damage is believed only if it is still there when no writer is.
Fault confirmed(const PhysicalMemory& memory, SpaceState& space, VirtAddr address,
                std::expected<Translation, Fault>& result) {
    for (int attempt = 0; attempt < 1000 && !result && result.error().is_damage(); ++attempt) {
        WriterLock& writer = space.responsible_for(address).writer;
        const bool alone = writer.lock(false) == WriterLock::Outcome::locked;
        {
            const ReaderSection section;
            result = walk_once(memory, space, address);
        }
        if (alone) {
            writer.unlock();
            break;
        }
        std::this_thread::yield();
    }
    return result ? Fault{} : result.error();
}

// Calls `use(host bytes, size, translation or demand-zero)` page by page, inside a reader section.
template <typename Use>
Copied each_page(const PhysicalMemory& memory, SpaceState& space, VirtAddr address,
                 std::size_t size_bytes, bool accept_absent, Protection needed, const Use& use) {
    Copied copied;
    while (copied.size_bytes < size_bytes) {
        const VirtAddr at = address + copied.size_bytes;
        std::size_t size =
            std::min<std::size_t>(size_bytes - copied.size_bytes, kPageSize - at.page_offset());
        std::expected<Translation, Fault> found;
        bool used = false;
        for (int round = 0; round < 2 && !used; ++round) {
            {
                const ReaderSection section;
                found = walk_once(memory, space, at);
                if (found && found->protection.permits(needed)) {
                    const std::uint64_t page = bytes(found->page_size);
                    size = std::min<std::size_t>(size_bytes - copied.size_bytes,
                                                 page - (at.bits() & (page - 1)));
                    // Inside the section: the frame cannot be given to anybody else meanwhile.
                    use(memory.host(found->physical.frame()) + at.page_offset(), copied.size_bytes,
                        size);
                    if (memory.tracks_accesses())
                        table::mark_accessed(memory, space.root(), at, needed.writable());
                    used = true;
                } else if (!found && found.error().kind == FaultKind::swapped && accept_absent) {
                    // Where it is, and stays: inside the section, too.
                    std::byte* const host = memory.host(table::Entry(found.error().entry).frame());
                    if (host != nullptr) use(host + at.page_offset(), copied.size_bytes, size);
                    used = host != nullptr;
                }
            }
            if (found || !found.error().is_damage()) break;
            confirmed(memory, space, at, found);
            if (!found) break;
        }
        if (!used) {
            if (!found && accept_absent && found.error().kind == FaultKind::demand_zero) {
                use(static_cast<std::byte*>(nullptr), copied.size_bytes, size);
            } else {
                copied.fault = found ? refused(*found, needed, at) : found.error();
                return copied;
            }
        }
        copied.size_bytes += size;
    }
    return copied;
}

// Which frames are mapped and are not a space's own: a device's, and that of zeros.
class OthersFrames {
  public:
    explicit OthersFrames(const PhysicalMemory& memory)
        : memory_(memory), zero_(memory.zero_frame()) {}
    // The region, of a device's.
    const memory::Region* device_of(table::Entry entry) const {
        if (!memory_.has_files()) return nullptr;
        const memory::Region* const region = memory_.region_of(entry.frame());
        return region != nullptr && region->has_fixed_frames() ? region : nullptr;
    }
    bool are(table::Entry entry) const {
        return device_of(entry) != nullptr || (zero_ && memory_.current(entry.frame()) == *zero_);
    }

  private:
    const PhysicalMemory& memory_;
    std::optional<FrameNumber> zero_;
};

std::expected<Translation, Fault> walk_in_section(const PhysicalMemory& memory,
                                                  const SpaceState& space, VirtAddr address) {
    const ReaderSection section;
    return table::walk(memory, space.root(), address);
}

}  // namespace

Fault refused(const Translation& found, Protection access, VirtAddr address) {
    Fault fault{.kind = FaultKind::protection,
                .address = address,
                .level = static_cast<std::uint8_t>(table::level_of(found.page_size)),
                .protection = found.protection};
    if (found.copy_on_write) {
        fault.protection = found.protection | protection::w;
        if (fault.protection.permits(access)) fault.kind = FaultKind::copy_on_write;
    }
    return fault;
}

std::expected<Translation, Fault> translate(const PhysicalMemory& memory, SpaceState& space,
                                            VirtAddr address) {
    auto result = walk_in_section(memory, space, address);
    if (!result && result.error().is_damage()) [[unlikely]]
        confirmed(memory, space, address, result);
    return result;
}

Copied read(const PhysicalMemory& memory, SpaceState& space, VirtAddr address,
            std::span<std::byte> destination) {
    return each_page(memory, space, address, destination.size(), true, protection::r,
                     [&](const std::byte* frame, std::size_t at, std::size_t size) {
                         if (frame != nullptr)
                             std::memcpy(destination.data() + at, frame, size);
                         else
                             std::memset(destination.data() + at, 0, size);
                     });
}

Copied write(const PhysicalMemory& memory, SpaceState& space, VirtAddr address,
             std::span<const std::byte> source) {
    return each_page(memory, space, address, source.size(), false, protection::w,
                     [&](std::byte* frame, std::size_t at, std::size_t size) {
                         std::memcpy(frame, source.data() + at, size);
                     });
}

Copied flush(const PhysicalMemory& memory, SpaceState& space, VirtAddr address,
             std::size_t size_bytes) {
    Copied flushed;
    for (;;) {
        const Copied part = each_page(memory, space, address + flushed.size_bytes,
                                      size_bytes - flushed.size_bytes, true, protection::r,
                                      [&](const std::byte* frame, std::size_t, std::size_t size) {
                                          if (frame != nullptr) memory.pool().flush(frame, size);
                                      });
        flushed.size_bytes += part.size_bytes;
        // What is in a file still has no bytes that were written here.
        if (!part.fault || part.fault->kind != FaultKind::file_backed) {
            flushed.fault = part.fault;
            return flushed;
        }
        const VirtAddr at = address + flushed.size_bytes;
        flushed.size_bytes +=
            std::min<std::size_t>(size_bytes - flushed.size_bytes, kPageSize - at.page_offset());
    }
}

Result<std::vector<Mapping>> maps(const PhysicalMemory& memory, SpaceState& space,
                                  table::PageRange pages) {
    struct Run {
        table::PageRange pages;
        Protection protection;
        std::uint64_t resident_pages = 0;
        std::uint64_t huge_pages = 0;
        bool damaged = false;
        bool lost = false;  // damaged only in that its memory is out of reach
        bool guard = false;
        bool stack_room = false;
        // Of a device the region and the first frame.
        const memory::Region* device = nullptr;
        FrameNumber first_frame;
    };
    std::vector<Run> runs;
    std::size_t first_of_part = 0;  // what lies before it is not continued
    std::vector<Annotation> names, names_of_half;
    if (space.supervisor != nullptr) {
        // Not held together with the other: a commit may hold both, in any order.
        const std::shared_lock lock(space.supervisor->names);
        auto half = Annotations(memory.pool(), space.supervisor->annotations).in(pages);
        if (!half) return std::unexpected(half.error());
        names_of_half = std::move(*half);
    }
    {
        const std::shared_lock lock(space.names);
        auto all = Annotations(memory.pool(), space.annotations).in(pages);
        if (!all) return std::unexpected(all.error());
        names = std::move(*all);
        names.insert(names.end(), names_of_half.begin(), names_of_half.end());
        const ReaderSection section;
        const table::Root root = space.root();
        if (root.entry.is_empty()) return fail(ErrorCode::stale, "the space was removed");
        const OthersFrames others(memory);
        table::Visitor visitor;
        visitor.range = [&](const table::VisitedRange& visited) {
            const bool is_present = visited.entry.is_present() && !visited.damage;
            const memory::Region* const device =
                is_present ? others.device_of(visited.entry) : nullptr;
            const FrameNumber frame =
                device != nullptr ? memory.current(visited.entry.frame()) : FrameNumber();
            const std::uint64_t resident =
                is_present && !others.are(visited.entry) ? visited.pages.count() : 0;
            const std::uint64_t huge = visited.level > 1 ? resident : 0;
            const bool damaged = visited.damage.has_value();
            const bool lost = damaged && is_loss(*visited.damage);
            const bool guard = !damaged && !visited.entry.is_present() &&
                               visited.entry.absent_kind() == format::AbsentKind::guard;
            const bool stack_room = !damaged && !visited.entry.is_present() &&
                                    visited.entry.absent_kind() == format::AbsentKind::stack_room;
            const Protection protection = damaged && !lost ? Protection() : visited.protection;
            if (runs.size() > first_of_part && runs.back().pages.end == visited.pages.begin &&
                runs.back().protection == protection && runs.back().damaged == damaged &&
                runs.back().lost == lost && runs.back().guard == guard &&
                runs.back().stack_room == stack_room && runs.back().device == device &&
                (device == nullptr ||
                 frame == runs.back().first_frame + runs.back().pages.count())) {
                runs.back().pages.end = visited.pages.end;
                runs.back().resident_pages += resident;
                runs.back().huge_pages += huge;
            } else {
                runs.push_back({visited.pages, protection, resident, huge, damaged, lost, guard,
                                stack_room, device, frame});
            }
        };
        // A run must not hide the edge of a name: visit between the edges.
        std::vector<std::uint64_t> edges = {pages.begin};
        const auto add_edge = [&](std::uint64_t page) {
            if (page > pages.begin && page < pages.end) edges.push_back(page);
        };
        for (const Annotation& name : names) {
            if (!name.is_shown()) continue;
            add_edge(name.first_page);
            add_edge(name.end_page());
        }
        // The two halves of the address space are not neighbours.
        add_edge(table::all_pages(space.levels).end / 2);
        edges.push_back(pages.end);
        std::sort(edges.begin(), edges.end());
        for (std::size_t i = 0; i + 1 < edges.size(); ++i) {
            if (edges[i] == edges[i + 1]) continue;
            first_of_part = runs.size();
            table::visit(memory, root, {edges[i], edges[i + 1]}, visitor);
        }
    }
    std::vector<Mapping> mappings;
    std::size_t next_name = 0;
    for (const Run& run : runs) {
        while (next_name < names.size() && names[next_name].end_page() <= run.pages.begin)
            ++next_name;
        Mapping mapping;
        mapping.range = {table::address_of_page(run.pages.begin, space.levels), run.pages.count()
                                                                                    << kPageShift};
        mapping.protection = run.protection;
        mapping.resident_bytes = run.resident_pages << kPageShift;
        mapping.huge_bytes = run.huge_pages << kPageShift;
        mapping.guard = run.guard;
        mapping.stack_room = run.stack_room;
        if (run.device != nullptr) {
            mapping.is_device = mapping.is_shared = true;
            mapping.name = fmt::format("[region {}]", run.device->index());
            mapping.name_offset = (run.first_frame - run.device->base()) << kPageShift;
        }
        if (run.damaged) {
            mapping.name = run.lost ? "[lost]" : "[damaged]";
        } else if (next_name < names.size() && names[next_name].first_page <= run.pages.begin &&
                   names[next_name].is_shown()) {
            const Annotation& name = names[next_name];
            mapping.name =
                name.backing == format::Backing::none
                    ? name.name
                    : format::FileRecord::name_of(static_cast<format::OwnerId>(name.file));
            mapping.is_file = name.backing != format::Backing::none;
            mapping.is_shared = mapping.is_device || name.backing == format::Backing::shared_file;
            mapping.name_offset =
                name.name_offset + ((run.pages.begin - name.first_page) << kPageShift);
        }
        mappings.push_back(std::move(mapping));
    }
    return mappings;
}

SpaceInfo info(const PhysicalMemory& memory, const SpaceState& space) {
    SpaceInfo info;
    info.name = space.name();
    info.levels = space.levels;
    if (const std::uint8_t region = space.preferred_region) info.region = region - 1;
    if (space.supervisor != nullptr) info.supervisor = space.supervisor->name();
    const ReaderSection section;
    const table::Root root = space.root();
    if (root.entry.is_empty()) return info;
    info.root = PhysAddr::of(root.entry.frame());
    const OthersFrames others(memory);
    table::Visitor visitor;
    visitor.range = [&](const table::VisitedRange& visited) {
        if (visited.damage) return;
        info.mapped_bytes += visited.pages.count() << kPageShift;
        if (!visited.entry.is_present() || others.are(visited.entry)) return;
        info.resident_bytes += visited.pages.count() << kPageShift;
        if (visited.level > 1) info.huge_bytes += visited.pages.count() << kPageShift;
    };
    visitor.table = [&](FrameNumber, const table::TablePosition&) { ++info.tables; };
    table::visit(memory, root, table::own_pages(root), visitor);
    return info;
}

}  // namespace holdfast::space
