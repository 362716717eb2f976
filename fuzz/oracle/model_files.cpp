#include "oracle/model_files.hpp"

#include "oracle/model.hpp"

namespace holdfast::oracle {
ModelFile ModelFile::of(std::uint64_t pages) {
    ModelFile file;
    for (std::uint64_t page = 0; page < pages; ++page)
        file.now.words.push_back(0xf11e'0000'0000 + page);
    file.now.version = 1;
    file.durable = file.now;
    return file;
}

std::string path_of_model_file(const std::string& name) { return "/model/" + name; }

std::optional<ErrorCode> Model::map_file(const std::string& name, Range range,
                                         Protection protection, const FilePlace& place,
                                         bool shared_file) {
    if (!files.contains(place.name)) return ErrorCode::not_found;
    if (const auto error = map(name, range, protection, true)) return error;
    std::uint64_t page = range.start.bits() >> 12;
    for (std::uint64_t i = 0; i < range.pages(); ++i) {
        ModelPage& mapped = spaces.at(name).pages.at(page + i);
        mapped.file = FilePlace{place.name, place.page + i};
        mapped.is_shared_file = shared_file;
    }
    return std::nullopt;
}

std::optional<ErrorCode> Model::load(const std::string& name, VirtAddr address) {
    ModelSpace& space = spaces.at(name);
    if (const auto* const object = name_of_supervisor(space);
        object != nullptr && address.bits() >> 63)
        return load(*object, address);
    const auto found = space.pages.find(address.bits() >> 12);
    if (found == space.pages.end()) return ErrorCode::not_mapped;
    ModelPage& page = found->second;
    if (page.guard) return ErrorCode::permission_denied;
    if (page.frame != 0) return std::nullopt;
    if (space.is_snapshot) return ErrorCode::permission_denied;
    if (const std::uint64_t gap = found->second.stack_gap; gap != 0) {
        for (auto below = found; below != space.pages.begin();) {
            --below;
            if (below->first + gap < found->first) break;
            if (!below->second.guard && below->second.stack_gap == 0)
                return ErrorCode::permission_denied;
        }
        std::uint64_t last = found->first;
        for (auto each = found;
             each != space.pages.end() && each->first == last && each->second.stack_gap != 0;
             ++each, ++last)
            each->second.stack_gap = 0;
    }
    if (page.file.name.empty()) {
        page.frame = next_frame_++;
        contents[page.frame] = 0;
        return std::nullopt;
    }
    ModelFile& file = files.at(page.file.name);
    if (page.file.page >= file.now.words.size()) return ErrorCode::not_mapped;
    const auto loaded = file.loaded.find(page.file.page);
    const std::uint64_t word =
        loaded != file.loaded.end() ? contents.at(loaded->second) : file.now.words[page.file.page];
    if (page.is_shared_file && loaded != file.loaded.end()) {
        page.frame = loaded->second;
        return std::nullopt;
    }
    page.frame = next_frame_++;
    contents[page.frame] = word;
    if (page.is_shared_file) {
        file.loaded[page.file.page] = page.frame;
        shared.insert(page.frame);
    }
    return std::nullopt;
}

std::optional<ErrorCode> Model::sync(const std::string& name, Range range,
                                     const std::function<void()>& after_step) {
    const auto step = [&] {
        if (after_step) after_step();
    };
    ModelFile* written = nullptr;
    const auto finish = [&] {
        if (written == nullptr) return;
        written->durable = written->now;
        written = nullptr;
        step();
    };
    const ModelPage* before = nullptr;
    const auto& pages = spaces.at(name).pages;
    const std::uint64_t first = range.start.bits() >> 12;
    std::uint64_t number_before = 0;
    for (auto at = pages.lower_bound(first); at != pages.end() && at->first < first + range.pages();
         ++at) {
        const auto& [number, page] = *at;
        // Range by range: each ends with a sync of its file.
        const bool continues = before != nullptr && number == number_before + 1 &&
                               page.is_shared_file == before->is_shared_file &&
                               page.file.name == before->file.name &&
                               page.file.page == before->file.page + 1;
        if (!continues) finish();
        before = &page;
        number_before = number;
        if (page.file.name.empty() || !page.is_shared_file) continue;
        ModelFile& file = files.at(page.file.name);
        const auto loaded = file.loaded.find(page.file.page);
        if (loaded == file.loaded.end() || page.file.page >= file.now.words.size()) continue;
        std::uint64_t& word = file.now.words[page.file.page];
        // What the file has, the pool has: before it is written there, or when this returns.
        unpersisted.erase(loaded->second);
        if (word == contents.at(loaded->second)) continue;
        word = contents.at(loaded->second);
        ++file.now.version;
        written = &file;
        step();
    }
    finish();
    return std::nullopt;
}

}  // namespace holdfast::oracle
