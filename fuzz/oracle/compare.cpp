#include "oracle/compare.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "holdfast/inspect.hpp"
#include "store/store_state.hpp"

namespace holdfast::oracle {
namespace {

constexpr std::size_t kMostDifferences = 8;

class Comparison {
  public:
    Comparison(const Store& store, const Model& model) : store_(store), model_(model) {}

    std::vector<std::string> run() {
        std::vector<std::string> names;
        names.reserve(model_.spaces.size());
        std::vector<std::string> snapshots;
        for (const auto& [name, space] : model_.spaces)
            (space.is_snapshot ? snapshots : names).push_back(name);
        const auto found = store_.space_names();
        if (!found)
            differ(found.error().message);
        else if (*found != names)
            differ(fmt::format("the spaces are {}, should be {}", list_of(*found), list_of(names)));
        std::vector<std::string> found_snapshots;
        if (const auto listed = store_.snapshots())
            for (const SnapshotInfo& each : *listed) found_snapshots.push_back(each.name);
        if (found_snapshots != snapshots)
            differ(fmt::format("the snapshots are {}, should be {}", list_of(found_snapshots),
                               list_of(snapshots)));
        const Overcommit overcommit = store_.state().commit_charge.overcommit();
        if (overcommit != model_.overcommit)
            differ(fmt::format("the overcommit policy is {}, {} %", to_string(overcommit.policy),
                               overcommit.ratio_percent));
        // Only this policy counts.
        if (overcommit.policy == OvercommitPolicy::never &&
            commit_account(store_).committed_bytes != model_.committed_pages() * kPageSize)
            differ(fmt::format("{} bytes are committed, should be {} pages",
                               commit_account(store_).committed_bytes, model_.committed_pages()));
        for (const auto& [name, expected] : model_.spaces) {
            ModelSpace whole = expected;
            whole.pages = model_.pages_of(expected);
            compare(name, whole);
        }
        if (!model_.files.empty()) compare_files();
        return std::move(differences_);
    }

  private:
    void differ(std::string what) {
        if (differences_.size() < kMostDifferences) differences_.push_back(std::move(what));
    }

    static std::string list_of(const std::vector<std::string>& names) {
        return names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", "));
    }

    void compare(const std::string& name, const ModelSpace& expected) {
        auto space = store_.open_space(name);
        if (!space) return differ(space.error().message);
        std::uint64_t resident = 0;
        std::set<std::uint64_t> around;
        for (const auto& [page, wanted] : expected.pages) {
            const VirtAddr address(page << 12);
            const auto found = space->translate(address + 8);
            // A page of a file that is not in the pool for this space is not read: that would load
            // it.
            const bool is_unloaded = !found && found.error().kind == FaultKind::file_backed;
            if (is_unloaded || (wanted.frame == 0 && !wanted.file.name.empty())) {
                around.insert(page - 1);
                around.insert(page + 1);
                compare_unloaded(*space, name, address, wanted);
                continue;
            }
            std::uint64_t word = ~std::uint64_t{0};
            // Looked at by who does not make a stack grow.
            const std::array look = {
                PeekPiece{address, std::as_writable_bytes(std::span(&word, 1))}};
            const auto unread = peek(*space, look).fault;
            around.insert(page - 1);
            around.insert(page + 1);
            if (wanted.is_device) {
                const bool is_so =
                    found ? (found->copy_on_write ? found->protection | protection::w
                                                  : found->protection) == wanted.protection
                          : found.error().kind == FaultKind::region_missing &&
                                found.error().protection == wanted.protection;
                if (!is_so)
                    differ(fmt::format("{}: {:#x} should be a device's, {}", name, address.bits(),
                                       wanted.protection.to_string()));
                continue;
            }
            if (wanted.guard) {
                if (found || found.error().kind != FaultKind::guard || !unread)
                    differ(fmt::format("{}: {:#x} should be a guard", name, address.bits()));
                continue;
            }
            if (wanted.stack_gap != 0) {
                if (found || found.error().kind != FaultKind::stack_room || !unread ||
                    found.error().protection != wanted.protection)
                    differ(
                        fmt::format("{}: {:#x} should be room of a stack", name, address.bits()));
                continue;
            }
            if (unread) differ(fmt::format("{}: {}", name, unread->to_string()));
            const bool is_zeros = wanted.frame == 0 || model_.contents.at(wanted.frame) == 0;
            if (wanted.may_have_frame && is_zeros && wanted.frame != 0 && !found &&
                found.error().kind == FaultKind::demand_zero) {
                if (word != 0 || found.error().protection != wanted.protection)
                    differ(fmt::format("{}: {:#x} should be zeros", name, address.bits()));
            } else if (wanted.frame == 0 && wanted.may_have_frame && found) {
                ++resident;
                if (word != 0 || (found->copy_on_write ? found->protection | protection::w
                                                       : found->protection) != wanted.protection)
                    differ(fmt::format("{}: {:#x} should be zeros", name, address.bits()));
            } else if (wanted.frame == 0) {
                if (found || found.error().kind != FaultKind::demand_zero || word != 0 ||
                    found.error().protection != wanted.protection)
                    differ(fmt::format("{}: {:#x} should be demand-zero", name, address.bits()));
            } else if (!found) {
                differ(fmt::format("{}: {}", name, found.error().to_string()));
            } else {
                // What was only read may have the frame that all of zeros share.
                if (found->physical.frame() != store_.state().memory.zero_frame()) ++resident;
                const Protection permitted =
                    found->copy_on_write ? found->protection | protection::w : found->protection;
                if (permitted != wanted.protection ||
                    (found->copy_on_write && found->protection.writable()))
                    differ(fmt::format("{}: {:#x} is {}, should be {}", name, address.bits(),
                                       permitted.to_string(), wanted.protection.to_string()));
                if (word != model_.contents.at(wanted.frame))
                    differ(fmt::format("{}: {:#x} holds {:#x}, should hold {:#x}", name,
                                       address.bits(), word, model_.contents.at(wanted.frame)));
                if (found->physical.bits() % 4096 != 8) differ("the offset in the page");
                // One frame of the store for one of the model, and the other way round; but what
                // nobody may write, several of the model's may have.
                const std::uint64_t frame = found->physical.frame().value();
                const Owner owner{wanted.frame, found->protection.writable()};
                const Owner& first = owner_of_.emplace(frame, owner).first->second;
                if (frame_of_.emplace(wanted.frame, frame).first->second != frame ||
                    (first.frame != owner.frame && (first.is_written || owner.is_written)))
                    differ(
                        fmt::format("{}: {:#x} shares a frame it should not, or does not "
                                    "share one it should",
                                    name, address.bits()));
            }
        }
        const unsigned bits = virtual_address_bits(expected.levels);
        for (const std::uint64_t page : around) {
            const std::uint64_t address = page << 12;
            const auto high = static_cast<std::int64_t>(address) >> (bits - 1);
            if (expected.pages.contains(address >> 12) || (high != 0 && high != -1)) continue;
            const auto found = space->translate(VirtAddr(address));
            if (found || found.error().kind != FaultKind::not_mapped)
                differ(fmt::format("{}: {:#x} should not be mapped", name, address));
        }
        std::uint64_t mapped_bytes = 0, resident_bytes = 0;
        const auto maps = space->maps();
        if (!maps) return differ(maps.error().message);
        for (const Mapping& mapping : *maps) {
            mapped_bytes += mapping.range.size_bytes;
            resident_bytes += mapping.resident_bytes;
            for (std::uint64_t i = 0; i < mapping.range.pages(); ++i) {
                const auto page = expected.pages.find((mapping.range.start.bits() >> 12) + i);
                if (page == expected.pages.end() || page->second.protection != mapping.protection)
                    differ(fmt::format("{}: maps has {:#x}", name, mapping.range.start.bits()));
            }
        }
        if (mapped_bytes != expected.pages.size() << 12 || resident_bytes != resident << 12)
            differ(fmt::format("{}: the sums of maps", name));
    }

    void compare_unloaded(const Space& space, const std::string& name, VirtAddr address,
                          const ModelPage& wanted) {
        const auto found = space.translate(address);
        if (wanted.frame != 0 || wanted.file.name.empty())
            return differ(fmt::format("{}: {:#x} is not loaded", name, address.bits()));
        const ModelFile& file = model_.files.at(wanted.file.name);
        const FaultKind kind =
            wanted.file.page < file.now.words.size() ? FaultKind::file_backed : FaultKind::file_end;
        if (found || found.error().kind != kind || found.error().protection != wanted.protection)
            differ(fmt::format("{}: {:#x} should be {}, and is {}", name, address.bits(),
                               to_string(kind), found ? "loaded" : to_string(found.error().kind)));
    }

    // How much of each file is in the pool. (What was never mapped the store does not know.)
    void compare_files() {
        const auto files = store_.files();
        if (!files) return differ(files.error().message);
        for (const FileInfo& file : *files) {
            if (file.trouble) differ(file.why);
            for (const auto& [name, expected] : model_.files)
                if (file.path == path_of_model_file(name) &&
                    file.resident_bytes != expected.loaded.size() * kPageSize)
                    differ(fmt::format("{}: {} bytes are in the pool, should be {} pages", name,
                                       file.resident_bytes, expected.loaded.size()));
        }
    }

    const Store& store_;
    const Model& model_;
    std::vector<std::string> differences_;
    // The frame of the model that was first seen to have a frame of the store, and whether by a
    // page that may be written in place.
    struct Owner {
        std::uint64_t frame = 0;
        bool is_written = false;
    };
    std::map<std::uint64_t, std::uint64_t> frame_of_;
    std::map<std::uint64_t, Owner> owner_of_;
};

}  // namespace

std::vector<std::string> compare(const Store& store, const Model& model) {
    return Comparison(store, model).run();
}

std::vector<std::string> broken_invariants(const Store& store, VerifyReport* found) {
    std::vector<std::string> broken;
    // By one thread: the harness follows what a check reads.
    const VerifyReport report = store.verify({.threads = 1});
    if (found != nullptr) *found = report;
    // A device that `add_device` has made is gone, and what lay there lost, and nothing else may
    // be.
    const bool expects_losses = std::ranges::any_of(store.regions(), [](const RegionInfo& region) {
        return region.kind == RegionKind::device && region.state == RegionState::missing;
    });
    for (const Finding& finding : report.findings) {
        if (expects_losses && finding.what == "lost page" &&
            finding.detail.starts_with("region_missing"))
            continue;
        if (broken.size() == kMostDifferences) break;
        broken.push_back(fmt::format("{}: {}{}{}", finding.what, finding.space,
                                     finding.space.empty() ? "" : ": ", finding.detail));
    }
    const std::uint64_t sum =
        report.frames_reachable + report.frames_limbo + report.frames_building + report.frames_free;
    if (sum != report.frames_total)
        broken.push_back(
            fmt::format("I4 account: {} reachable + {} limbo + {} building + {} free is not {}",
                        report.frames_reachable, report.frames_limbo, report.frames_building,
                        report.frames_free, report.frames_total));
    return broken;
}

}  // namespace holdfast::oracle
