// Pages of mapped files: which file a page is of, and how it is loaded.
#pragma once

#include <cstdint>
#include <expected>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "holdfast/error.hpp"
#include "holdfast/fault.hpp"
#include "space/space_state.hpp"
#include "store/file_objects.hpp"
#include "table/table_editor.hpp"

namespace holdfast::detail {

// A page of a space, in its file.
struct FilePage {
    std::shared_ptr<FileObject> object;
    std::uint64_t page = 0;  // in the file
    bool is_shared = false;
    memory::FileIdentity read_of = {};  // once its bytes were read: what the file was then
};

// Nothing if the address is in no range of a file; in a supervisor half, of one that the object
// maps. damaged: in one of a file that nobody knows.
Result<std::optional<FilePage>> file_page_of(const SpaceState& space, VirtAddr address);

// A fault `file_backed` as who would load the page sees it: with its file out of reach, or the page
// behind the end, it is that. Any other fault as it is.
Fault refined(const SpaceState& space, const Fault& fault);
// The sentence about a fault that is the file's, or nothing.
std::string file_trouble(const SpaceState& space, const Fault& fault);

// A page that is in the pool. Its frame stays as long as the file's `syncing`, or its object, is
// held.
struct LoadedPage {
    std::uint64_t page = 0;
    std::byte* bytes = nullptr;
};
// In ascending order; also those whose file is out of reach.
std::vector<LoadedPage> loaded_pages(const StoreState& store, const SpaceState& object,
                                     table::PageRange pages);
// The file objects that spaces and snapshots map.
struct MappedFiles {
    std::set<std::uint64_t> owners;
    // Of a space that cannot be opened, or whose ranges cannot be read: nobody knows what it maps.
    std::optional<Error> unknown;
    // damaged: not by a space that is well, and nobody knows of the others.
    Result<bool> has(format::OwnerId owner) const {
        if (owners.contains(owner)) return true;
        return unknown ? Result<bool>(std::unexpected(*unknown)) : Result<bool>(false);
    }
};
MappedFiles mapped_files(StoreState& store);

// Mappings of files under their paths.
Result<std::vector<Mapping>> with_paths(const StoreState& store,
                                        Result<std::vector<Mapping>> mappings);

// The page of a fault `file_backed` gets its frame, durably. Errors: lost (the file is not what it
// was), not_mapped (behind the end), no_space, permission_denied (a snapshot), damaged.
Result<void> load_page(const std::shared_ptr<SpaceState>& space, const Fault& fault);
// Its bytes as `load_page` would find them, and nothing is changed.
Result<void> read_file_page(const SpaceState& space, const Fault& fault,
                            std::span<std::byte> destination);

}  // namespace holdfast::detail
