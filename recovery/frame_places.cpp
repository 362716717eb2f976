#include "recovery/frame_places.hpp"

#include <fmt/format.h>

#include <unordered_map>

#include "table/visit.hpp"

namespace holdfast::recovery {
namespace {

// A frame may be used a million times; a sentence names so many of them.
constexpr std::size_t kNamedMax = 8;

class Places {
  public:
    explicit Places(const memory::PhysicalMemory& memory) : memory_(memory) {}

    void look_for(FrameNumber frame) { found_[frame.value()]; }

    void walk(const WalkedSpace& space) {
        table::Visitor visitor;
        visitor.range = [&](const table::VisitedRange& visited) {
            if (!visited.entry.has_frame() || (visited.damage && !is_loss(*visited.damage))) return;
            add(visited.entry.frame(), space, visited.pages);
        };
        visitor.table = [&](FrameNumber table, const table::TablePosition& position) {
            const unsigned shift = 9 * position.level;
            add(table, space, {position.index << shift, (position.index + 1) << shift});
        };
        table::visit(memory_, space.root, table::all_pages(space.root.levels), visitor);
    }

    std::string of(const Damage& damage) const {
        const Found& found = found_.at(damage.frame.value());
        std::string text;
        for (const std::string& each : found.named)
            text += fmt::format("{} {}", text.empty() ? ";" : ",", each);
        if (found.count > found.named.size())
            text += fmt::format(", and in {} more places", found.count - found.named.size());
        if (damage.uses_in_limbo != 0) text += text.empty() ? "; in limbo" : ", in limbo";
        return text;
    }

  private:
    struct Found {
        std::vector<std::string> named;
        std::uint64_t count = 0;
    };

    void add(FrameNumber frame, const WalkedSpace& space, table::PageRange pages) {
        const auto found = found_.find(memory_.current(frame).value());
        if (found == found_.end() || ++found->second.count > kNamedMax) return;
        const VirtAddr start = table::address_of_page(pages.begin, space.root.levels);
        found->second.named.push_back(fmt::format("in \"{}\" at {:#x}-{:#x}", space.name,
                                                  start.bits(),
                                                  start.bits() + (pages.count() << kPageShift)));
    }

    const memory::PhysicalMemory& memory_;
    std::unordered_map<std::uint64_t, Found> found_;
};

}  // namespace

void name_places(const memory::PhysicalMemory& memory, const std::vector<WalkedSpace>& spaces,
                 std::vector<Damage>& damages) {
    Places places(memory);
    bool any = false;
    for (const Damage& damage : damages)
        if (damage.counts_uses) {
            places.look_for(damage.frame);
            any = true;
        }
    if (!any) return;
    for (const WalkedSpace& space : spaces) places.walk(space);
    for (Damage& damage : damages)
        if (damage.counts_uses) damage.finding.detail += places.of(damage);
}

}  // namespace holdfast::recovery
