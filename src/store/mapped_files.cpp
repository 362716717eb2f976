#include "store/mapped_files.hpp"

#include <fmt/format.h>

#include <array>
#include <shared_mutex>

#include "space/annotations.hpp"
#include "space/space_access.hpp"
#include "store/store_state.hpp"
#include "store/transaction_state.hpp"

namespace holdfast::detail {

using format::Annotation;
using format::Backing;
using format::FileRecord;

Result<std::optional<FilePage>> file_page_of(const SpaceState& of, VirtAddr address) {
    // A space that shares a supervisor half has its files, too.
    const SpaceState& space = of.responsible_for(address);
    const std::uint64_t page = table::page_index(address, space.levels);
    std::optional<Annotation> found;
    {
        const std::shared_lock lock(space.names);
        auto in = space::Annotations(*space.store->pool, space.annotations).in({page, page + 1});
        if (!in) return std::unexpected(in.error());
        if (!in->empty()) found = std::move(in->front());
    }
    if (!found || found->backing == Backing::none) return std::nullopt;
    auto object = space.store->files.find(found->file);
    if (object == nullptr)
        return fail(ErrorCode::damaged,
                    fmt::format("{}: the file that is mapped at {:#x} in space \"{}\" has lost its "
                                "record; run `verify`",
                                space.store->pool->path(), address.bits(), space.name()));
    return FilePage{std::move(object), found->file_page(page),
                    found->backing == Backing::shared_file};
}

namespace {

FileTrouble behind_end(const KnownFile& known, std::uint64_t page) {
    return {FaultKind::file_end,
            fmt::format("{}: page {} of the file lies behind its end, at {} bytes", known.path,
                        page, known.identity.size_bytes)};
}

// What the file is, if nothing stands in the way of the page.
std::expected<memory::FileIdentity, FileTrouble> look_at(const FilePage& of) {
    auto opened = of.object->open();
    if (!opened) return std::unexpected(std::move(opened.error()));
    if (of.page >= opened->known.pages())
        return std::unexpected(behind_end(opened->known, of.page));
    return opened->known.identity;
}

// The bytes that the page has for whoever loads it: those in the pool, if a shared mapping has
// loaded it, be they synced or not; otherwise the file's.
std::expected<void, FileTrouble> read_page(const SpaceState& space, FilePage& of,
                                           std::span<std::byte> destination) {
    const auto identity = look_at(of);
    if (!identity) return std::unexpected(identity.error());
    of.read_of = *identity;
    if (const auto object = space.store->find_space(FileRecord::name_of(of.object->owner()))) {
        const auto copied =
            space::read(space.store->memory, **object,
                        table::address_of_page(of.page, (*object)->levels), destination);
        if (!copied.fault) return {};
    }
    return of.object->read_page(of.page, destination);
}

std::unexpected<Error> file_error(const SpaceState& space, VirtAddr address,
                                  const FileTrouble& trouble) {
    return fail(trouble.kind == FaultKind::file_end ? ErrorCode::not_mapped : ErrorCode::lost,
                fmt::format("{} at {:#x} in space \"{}\": {}", to_string(trouble.kind),
                            address.bits(), space.name(), trouble.why));
}

}  // namespace

Fault refined(const SpaceState& space, const Fault& fault) {
    if (fault.kind != FaultKind::file_backed) return fault;
    const auto of = file_page_of(space, fault.address);
    if (!of || !*of) return fault;
    Fault refined = fault;
    if (const auto file = look_at(**of); !file) refined.kind = file.error().kind;
    return refined;
}

Result<std::vector<Mapping>> with_paths(const StoreState& store,
                                        Result<std::vector<Mapping>> mappings) {
    if (!mappings) return mappings;
    for (Mapping& mapping : *mappings) {
        if (!mapping.is_file) continue;
        const auto owner = FileRecord::owner_of(mapping.name);
        const auto object = owner ? store.files.find(*owner) : nullptr;
        const auto known = object ? object->known() : std::nullopt;
        mapping.name = known ? known->path : "[file lost]";
    }
    return mappings;
}

std::string file_trouble(const SpaceState& space, const Fault& fault) {
    std::optional<FileTrouble> trouble;
    if (const table::Entry entry(fault.entry); entry.is_present()) {
        // By the frame: a page that is mapped from another space has no file of its own here.
        if (const auto metadata = space.store->memory.valid_metadata(entry.frame()))
            if (const auto object = space.store->files.find(metadata->owner))
                trouble = object->out_of_reach(metadata->index);
    } else if (const auto of = file_page_of(space, fault.address); of && *of) {
        if (auto file = look_at(**of); !file) trouble = std::move(file.error());
    }
    return trouble ? trouble->why : std::string();
}

namespace {

using PageBytes = std::array<std::byte, kPageSize>;

// The page that the fault is of, and its bytes.
Result<FilePage> find_and_read(const SpaceState& space, const Fault& fault, PageBytes& content) {
    auto of = file_page_of(space, fault.address);
    if (!of) return std::unexpected(of.error());
    if (!*of)
        return fail(ErrorCode::damaged,
                    fmt::format("{}: nothing says which file is mapped at {:#x} in space \"{}\"; "
                                "run `verify`",
                                space.store->pool->path(), fault.address.bits(), space.name()));
    if (auto done = read_page(space, **of, content); !done)
        return file_error(space, fault.address, done.error());
    return std::move(**of);
}

}  // namespace

Result<void> read_file_page(const SpaceState& space, const Fault& fault,
                            std::span<std::byte> destination) {
    PageBytes content;
    if (auto of = find_and_read(space, fault, content); !of) return std::unexpected(of.error());
    const std::uint64_t offset = fault.address.page_offset();
    std::copy_n(content.begin() + static_cast<std::ptrdiff_t>(offset),
                std::min<std::size_t>(destination.size(), kPageSize - offset), destination.begin());
    return {};
}

Result<void> load_page(const std::shared_ptr<SpaceState>& space, const Fault& fault) {
    if (auto fine = TransactionState::check_change(*space); !fine) return fine;
    PageBytes content;
    const auto of = find_and_read(*space, fault, content);
    if (!of) return std::unexpected(of.error());
    TransactionState transaction(space->store);
    auto done = of->is_shared ? transaction.load_shared(space, fault.address, *of, content)
                              : transaction.load_private(space, fault.address, *of, content);
    return done ? transaction.commit() : done;
}

}  // namespace holdfast::detail
