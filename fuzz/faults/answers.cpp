#include "faults/answers.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace holdfast::crash {
namespace {

constexpr std::uint64_t kPage = 4096;
constexpr OpenOptions kOpen{.emulation = PmemEmulation::on};

Answers::Page ask(const Space& space, const std::string& name, std::uint64_t address) {
    Answers::Page page{.space = name, .address = address};
    const auto found = space.translate(VirtAddr(address));
    page.mapped = found.has_value();
    if (found) {
        page.physical = found->physical.bits();
        page.protection = found->protection.to_string();
    }
    std::uint64_t word = 0;
    if (space.read(VirtAddr(address), std::as_writable_bytes(std::span(&word, 1))))
        page.word = word;
    return page;
}

}  // namespace

Result<Answers> answers_of(const Store& store) {
    Answers answers;
    auto names = store.space_names();
    if (!names) return std::unexpected(names.error());
    answers.spaces = *names;
    for (const std::string& name : *names) {
        auto space = store.open_space(name);
        if (!space) return std::unexpected(space.error());
        auto maps = space->maps();
        if (!maps) return std::unexpected(maps.error());
        for (const Mapping& mapping : *maps) {
            const std::uint64_t pages = std::min<std::uint64_t>(mapping.range.pages(), 64);
            for (std::uint64_t i = 0; i < pages + 2; ++i)
                answers.pages.push_back(
                    ask(*space, name, mapping.range.start.bits() + (i - 1) * kPage));
        }
    }
    return answers;
}

FaultFate judge_damaged(const std::string& path, const Answers& before, std::string& wrong) {
    auto store = Store::open(path, kOpen);
    if (!store) return FaultFate::noticed;
    bool noticed = false;
    for (const std::string& name : before.spaces) {
        auto space = store->open_space(name);
        if (!space) {
            noticed = true;
            continue;
        }
        for (const Answers::Page& page : before.pages) {
            if (page.space != name) continue;
            const Answers::Page now = ask(*space, name, page.address);
            if (!now.mapped) {
                noticed = noticed || page.mapped;
                continue;
            }
            if (page.mapped && now.physical == page.physical && now.protection == page.protection &&
                now.word == page.word)
                continue;
            wrong =
                fmt::format("{}: {:#x} translates to {:#x} ({}), holding {:#x}; before it was {}",
                            name, page.address, now.physical, now.protection, now.word,
                            page.mapped ? fmt::format("{:#x} ({}), holding {:#x}", page.physical,
                                                      page.protection, page.word)
                                        : "not mapped");
            return FaultFate::wrong;
        }
    }
    noticed = noticed || !store->verify({.threads = 1}).clean();
    // None of these may crash or hang, whatever they say.
    (void)store->info().has_value();
    for (const std::string& name : before.spaces)
        if (auto space = store->open_space(name)) {
            (void)space->maps().has_value();
            const Range range{VirtAddr(0x7777'0000), 3 * kPage};
            if (space->map(range, protection::rw)) (void)space->unmap(range).has_value();
        }
    (void)store->release_limbo(4).has_value();
    return noticed ? FaultFate::noticed : FaultFate::harmless;
}

}  // namespace holdfast::crash
