#include "oracle/model.hpp"

namespace holdfast::oracle {

std::optional<ErrorCode> Model::check(const ModelSpace& space, Range range,
                                      std::optional<Protection> protection) const {
    if (space.is_snapshot) return ErrorCode::permission_denied;
    const bool aligned = range.start.bits() % 4096 == 0 && range.size_bytes % 4096 == 0;
    if (range.size_bytes == 0 || !aligned) return ErrorCode::invalid_argument;
    const std::uint64_t first = range.start.bits();
    const std::uint64_t last = first + range.size_bytes - 1;
    // Bits above the translated ones must repeat the highest translated one.
    const unsigned bits = virtual_address_bits(space.levels);
    const auto high = [&](std::uint64_t address) {
        return static_cast<std::int64_t>(address) >> (bits - 1);
    };
    if (last < first || (high(first) != 0 && high(first) != -1) || high(last) != high(first))
        return ErrorCode::invalid_argument;
    if (protection && !protection->readable()) return ErrorCode::invalid_argument;
    const bool is_upper = high(first) != 0;
    if (space.supervisor != 0 && is_upper) return ErrorCode::permission_denied;
    if (space.is_supervisor && (!is_upper || (protection && protection->user())))
        return ErrorCode::invalid_argument;
    return std::nullopt;
}

std::optional<ErrorCode> Model::create_supervisor(const std::string& name, Levels levels) {
    if (const auto error = create(name, levels)) return error;
    spaces[name].is_supervisor = true;
    return std::nullopt;
}

std::optional<ErrorCode> Model::create_sharing(const std::string& name, Levels levels,
                                               const std::string& supervisor) {
    if (spaces.contains(name)) return ErrorCode::already_exists;
    const auto object = spaces.find(supervisor);
    if (object == spaces.end()) return ErrorCode::not_found;
    if (!object->second.is_supervisor || object->second.levels != levels)
        return ErrorCode::invalid_argument;
    const std::uint64_t lineage = object->second.lineage;
    create(name, levels);
    spaces[name].supervisor = lineage;
    return std::nullopt;
}

const std::string* Model::name_of_supervisor(const ModelSpace& space) const {
    for (const auto& [name, each] : spaces)
        if (each.is_supervisor && each.lineage == space.supervisor) return &name;
    return nullptr;
}

std::map<std::uint64_t, ModelPage> Model::pages_of(const ModelSpace& space) const {
    auto pages = space.pages;
    if (const std::string* const object = name_of_supervisor(space)) {
        const auto& half = spaces.at(*object).pages;
        pages.insert(half.begin(), half.end());
    }
    return pages;
}

std::optional<ErrorCode> Model::create(const std::string& name, Levels levels) {
    if (spaces.contains(name)) return ErrorCode::already_exists;
    spaces[name].levels = levels;
    spaces[name].lineage = next_lineage_++;
    return std::nullopt;
}

std::map<std::uint64_t, ModelPage> Model::copied(const std::map<std::uint64_t, ModelPage>& pages) {
    std::map<std::uint64_t, ModelPage> copy = pages;
    for (auto& [number, page] : copy) {
        if (page.frame == 0 || shared.contains(page.frame)) continue;
        contents[next_frame_] = contents.at(page.frame);
        page.frame = next_frame_++;
    }
    return copy;
}

std::optional<ErrorCode> Model::fork(const std::string& from, const std::string& to,
                                     bool snapshot) {
    if (!spaces.contains(from)) return ErrorCode::not_found;
    if (spaces.contains(to)) return ErrorCode::already_exists;
    if (spaces.at(from).is_supervisor) return ErrorCode::invalid_argument;
    ModelSpace made = spaces.at(from);
    made.pages = copied(made.pages);
    made.is_snapshot = snapshot;
    spaces[to] = std::move(made);
    return std::nullopt;
}

std::optional<ErrorCode> Model::rollback(const std::string& name, const std::string& snapshot) {
    if (!spaces.contains(name) || !spaces.contains(snapshot)) return ErrorCode::not_found;
    ModelSpace& space = spaces.at(name);
    const ModelSpace& from = spaces.at(snapshot);
    if (space.is_snapshot) return ErrorCode::permission_denied;
    if (!from.is_snapshot || from.lineage != space.lineage) return ErrorCode::invalid_argument;
    space.pages = copied(from.pages);
    return std::nullopt;
}

std::optional<ErrorCode> Model::rename(const std::string& from, const std::string& to) {
    if (!spaces.contains(from)) return ErrorCode::not_found;
    if (spaces.contains(to)) return ErrorCode::already_exists;
    spaces[to] = std::move(spaces[from]);
    spaces.erase(from);
    return std::nullopt;
}

std::optional<ErrorCode> Model::remove(const std::string& name) {
    const auto found = spaces.find(name);
    if (found == spaces.end()) return ErrorCode::not_found;
    if (found->second.is_supervisor)
        for (const auto& [other, space] : spaces)
            if (space.supervisor == found->second.lineage) return ErrorCode::busy;
    spaces.erase(found);
    return std::nullopt;
}

std::optional<ErrorCode> Model::map(const std::string& name, Range range, Protection protection,
                                    bool lazy) {
    ModelSpace& space = spaces.at(name);
    if (const auto error = check(space, range, protection)) return error;
    const std::uint64_t first = range.start.bits() >> 12;
    const auto next = space.pages.lower_bound(first);
    if (next != space.pages.end() && next->first < first + range.pages()) return ErrorCode::overlap;
    for (std::uint64_t page = first; page < first + range.pages(); ++page) {
        const std::uint64_t frame = lazy ? 0 : next_frame_++;
        space.pages[page] = {.protection = protection, .frame = frame};
        if (frame != 0) contents[frame] = 0;
    }
    return std::nullopt;
}

std::optional<ErrorCode> Model::map_guard(const std::string& name, Range range) {
    if (const auto error = map(name, range, Protection(Protection::kRead), true)) return error;
    ModelSpace& space = spaces.at(name);
    const std::uint64_t first = range.start.bits() >> 12;
    for (std::uint64_t page = first; page < first + range.pages(); ++page)
        space.pages[page] = {.protection = {}, .guard = true};
    return std::nullopt;
}

std::optional<ErrorCode> Model::map_device(const std::string& name, Range range,
                                           Protection protection, std::uint64_t first) {
    if (const auto error = map(name, range, protection, true)) return error;
    ModelSpace& space = spaces.at(name);
    const std::uint64_t page = range.start.bits() >> 12;
    for (std::uint64_t i = 0; i < range.pages(); ++i) {
        const std::uint64_t frame = kDeviceFrames + first + i;
        space.pages[page + i] = {.protection = protection, .frame = frame, .is_device = true};
        contents.try_emplace(frame, 0);
        shared.insert(frame);
    }
    return std::nullopt;
}

std::optional<ErrorCode> Model::map_huge(const std::string& name, Range range,
                                         Protection protection, bool lazy) {
    ModelSpace& space = spaces.at(name);
    if (const auto error = check(space, range, protection)) return error;
    if ((range.start.bits() | range.size_bytes) % bytes(PageSize::size_2MiB) != 0)
        return ErrorCode::invalid_argument;
    if (const auto error = map(name, range, protection, lazy)) return error;
    const std::uint64_t first = range.start.bits() >> 12;
    for (std::uint64_t page = first; lazy && page < first + range.pages(); ++page)
        space.pages[page].may_have_frame = true;
    return std::nullopt;
}

std::optional<ErrorCode> Model::promote(const std::string& name, Range range) {
    ModelSpace& space = spaces.at(name);
    if (const auto error = check(space, range, {})) return error;
    const std::uint64_t first = range.start.bits() >> 12;
    for (std::uint64_t page = first; page < first + range.pages(); ++page)
        if (!space.pages.contains(page)) return ErrorCode::not_mapped;
    // Whether they were, no more is to be seen of it.
    for (std::uint64_t page = first; page < first + range.pages(); ++page)
        if (!space.pages[page].guard) space.pages[page].may_have_frame = true;
    return std::nullopt;
}

std::optional<ErrorCode> Model::map_stack(const std::string& name, Range range,
                                          Protection protection, std::uint64_t guard_pages) {
    ModelSpace& space = spaces.at(name);
    if (const auto error = check(space, range, protection)) return error;
    if (range.pages() < guard_pages + 1) return ErrorCode::invalid_argument;
    if (const auto error = map(name, range, protection, true)) return error;
    const std::uint64_t first = range.start.bits() >> 12;
    for (std::uint64_t page = first; page < first + range.pages() - 1; ++page)
        if (page < first + guard_pages)
            space.pages[page] = {.protection = {}, .guard = true};
        else
            space.pages[page].stack_gap = guard_pages;
    return std::nullopt;
}

std::optional<ErrorCode> Model::evict(const std::string& name) {
    ModelSpace& space = spaces.at(name);
    if (space.is_snapshot) return ErrorCode::permission_denied;
    // Of which pages, is not to be seen but in those of zeros.
    for (auto& [number, page] : space.pages)
        if (page.frame != 0 && !shared.contains(page.frame)) page.may_have_frame = true;
    return std::nullopt;
}

std::optional<ErrorCode> Model::map_shared(const std::string& name, Range range,
                                           Protection protection, const std::string& source,
                                           Range source_range) {
    ModelSpace& space = spaces.at(name);
    const ModelSpace& from = spaces.at(source);
    if (const auto error = check(space, range, protection)) return error;
    if (const auto error = check(from, source_range, {})) return error;
    if (source_range.pages() > 512) return ErrorCode::invalid_argument;
    const std::uint64_t first = range.start.bits() >> 12;
    const auto next = space.pages.lower_bound(first);
    if (next != space.pages.end() && next->first < first + range.pages()) return ErrorCode::overlap;
    const std::uint64_t source_first = source_range.start.bits() >> 12;
    for (std::uint64_t i = 0; i < source_range.pages(); ++i) {
        const auto page = from.pages.find(source_first + i);
        if (page == from.pages.end() || page->second.frame == 0) return ErrorCode::not_mapped;
    }
    std::map<std::uint64_t, ModelPage> added;
    // Those that the range has no room for stay the source's own.
    for (std::uint64_t i = 0; i < std::min(source_range.pages(), range.pages()); ++i)
        shared.insert(from.pages.at(source_first + i).frame);
    for (std::uint64_t i = 0; i < range.pages(); ++i)
        added[first + i] = {.protection = protection,
                            .frame = from.pages.at(source_first + i % source_range.pages()).frame};
    space.pages.merge(added);
    return std::nullopt;
}

std::optional<ErrorCode> Model::unmap(const std::string& name, Range range) {
    ModelSpace& space = spaces.at(name);
    if (const auto error = check(space, range, {})) return error;
    const std::uint64_t first = range.start.bits() >> 12;
    space.pages.erase(space.pages.lower_bound(first),
                      space.pages.lower_bound(first + range.pages()));
    return std::nullopt;
}

std::optional<ErrorCode> Model::protect(const std::string& name, Range range,
                                        Protection protection) {
    ModelSpace& space = spaces.at(name);
    if (const auto error = check(space, range, protection)) return error;
    const std::uint64_t first = range.start.bits() >> 12;
    for (std::uint64_t page = first; page < first + range.pages(); ++page)
        if (!space.pages.contains(page)) return ErrorCode::not_mapped;
    for (std::uint64_t page = first; page < first + range.pages(); ++page)
        if (!space.pages[page].guard) space.pages[page].protection = protection;
    return std::nullopt;
}

std::optional<ErrorCode> Model::write(const std::string& name, VirtAddr address, std::uint64_t word,
                                      bool is_unpersisted) {
    ModelSpace& writer = spaces.at(name);
    const bool is_upper = address.bits() >> 63 != 0;
    const std::string* const object = is_upper ? name_of_supervisor(writer) : nullptr;
    if (object != nullptr && writer.is_snapshot) return ErrorCode::permission_denied;
    ModelSpace& space = object != nullptr ? spaces.at(*object) : writer;
    const auto page = space.pages.find(address.bits() >> 12);
    if (page == space.pages.end()) return ErrorCode::not_mapped;
    if (page->second.guard) return ErrorCode::permission_denied;
    if (!page->second.protection.writable()) return ErrorCode::permission_denied;
    if (space.is_snapshot) return ErrorCode::permission_denied;
    if (const auto error = load(object != nullptr ? *object : name, address)) return error;
    const std::uint64_t frame = page->second.frame;
    // What may be lost is what is durable before it.
    if (is_unpersisted)
        unpersisted.try_emplace(frame, contents.at(frame));
    else
        unpersisted.erase(frame);
    contents[frame] = word;
    return std::nullopt;
}

std::uint64_t Model::committed_pages() const {
    std::uint64_t pages = 0;
    for (const auto& [name, space] : spaces)
        for (const auto& [number, page] : space.pages)
            if (!space.is_snapshot && page.protection.writable() && !page.guard &&
                page.stack_gap == 0 && !shared.contains(page.frame) && !page.is_shared_file &&
                (page.frame != 0 || page.file.name.empty()))
                ++pages;
    return pages;
}

void Model::prune() {
    std::map<std::uint64_t, std::uint64_t> kept;
    for (const auto& [name, space] : spaces)
        for (const auto& [number, page] : space.pages)
            if (page.frame != 0) kept[page.frame] = contents.at(page.frame);
    for (const auto& [name, file] : files)
        for (const auto& [page, frame] : file.loaded) kept[frame] = contents.at(frame);
    contents = std::move(kept);
    std::erase_if(shared, [&](std::uint64_t frame) { return !contents.contains(frame); });
}

}  // namespace holdfast::oracle
