#include "faults/structures.hpp"

#include <fmt/format.h>

#include <set>

#include "format/build_record.hpp"
#include "format/limbo.hpp"
#include "format/space_record.hpp"
#include "format/superblock.hpp"
#include "memory/build_log.hpp"
#include "recovery/survey.hpp"
#include "store/store_state.hpp"

namespace holdfast::crash {
namespace {

using format::FrameKind;
using format::Superblock;
using recovery::name_of;

class Survey {
  public:
    explicit Survey(const detail::StoreState& state) : pool_(*state.pool), memory_(state.memory) {}

    Result<std::vector<Structure>> run() {
        superblock();
        for (const memory::Region& region : memory_.regions())
            if (region.kind() == RegionKind::pool) frames_of(region);
        if (auto done = builds(); !done) return std::unexpected(done.error());
        return std::move(all_);
    }

  private:
    void superblock() {
        const std::uint64_t root = pool_.offset_of(&memory_.superblock());
        all_.push_back({StructureKind::fixed_part, "superblock", root});
        all_.push_back({StructureKind::superblock_words, "superblock words",
                        root + offsetof(Superblock, boot_epoch)});
        for (std::uint64_t i = 0; i <= memory_.regions().size() && i < format::kMaxRegions; ++i)
            all_.push_back(
                {StructureKind::region_record, "region record",
                 root + offsetof(Superblock, regions) + i * sizeof(format::RegionRecord)});
    }

    void metadata_of(FrameNumber frame, const std::string& of) {
        if (seen_.insert(frame).second)
            all_.push_back({StructureKind::metadata, "metadata of " + of,
                            pool_.offset_of(memory_.metadata(frame).word0), frame});
    }

    void frames_of(const memory::Region& region) {
        for (std::uint64_t i = 0; i < region.frame_count(); ++i) {
            const FrameNumber frame = region.base() + i;
            const auto metadata = memory_.valid_metadata(frame);
            if (!metadata || metadata->kind == FrameKind::free) continue;
            const std::string name = name_of(metadata->kind);
            metadata_of(frame, name);
            const std::uint64_t offset = pool_.offset_of(region.host(frame));
            if (format::is_table(metadata->kind))
                all_.push_back(
                    {StructureKind::table,
                     name,
                     offset,
                     frame,
                     {format::table_level(metadata->kind), metadata->owner, metadata->index}});
            else if (metadata->kind == FrameKind::space_record)
                all_.push_back({StructureKind::space_record, name, offset, frame});
            else if (metadata->kind == FrameKind::limbo_page)
                all_.push_back({StructureKind::limbo_page, name, offset, frame});
        }
        metadata_of(region.base() + (region.frame_count() - 1), name_of(FrameKind::free));
    }

    Result<void> builds() {
        for (unsigned slot = 0; slot < format::kBuildSlots; ++slot) {
            std::vector<FrameNumber> records;
            const auto extents = memory::BuildLog::read_slot(memory_, slot, &records);
            if (!extents) return std::unexpected(extents.error());
            for (const FrameNumber record : records) {
                all_.push_back({StructureKind::build_record, "build_record",
                                pool_.offset_of(memory_.host(record)), record});
                metadata_of(record, "build_record");
            }
            for (const format::Extent& extent : *extents)
                metadata_of(extent.first, name_of(FrameKind::free));
        }
        return {};
    }

    const pool::Pool& pool_;
    const memory::PhysicalMemory& memory_;
    std::vector<Structure> all_;
    std::set<FrameNumber> seen_;  // whose metadata is in it
};

}  // namespace

std::uint64_t size_of(StructureKind kind) {
    switch (kind) {
        case StructureKind::fixed_part:
            return offsetof(Superblock, boot_epoch);
        case StructureKind::superblock_words:
            return offsetof(Superblock, reserved3) - offsetof(Superblock, boot_epoch);
        case StructureKind::region_record:
            return sizeof(format::RegionRecord);
        case StructureKind::metadata:
            return format::kFrameMetadataBytes;
        case StructureKind::table:
            return kPageSize;
        case StructureKind::space_record:
            return sizeof(format::SpaceRecord);
        case StructureKind::limbo_page:
            return sizeof(format::LimboPage);
        case StructureKind::build_record:
            return sizeof(format::BuildRecord);
    }
    return 0;
}

Result<std::vector<Structure>> structures_of(const Store& store) {
    return Survey(store.state()).run();
}

}  // namespace holdfast::crash
