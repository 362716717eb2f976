// Space::promote: small pages become one of 2 MiB.
//
// Their bytes are copied, and nobody may write to them meanwhile; but writers take no lock. So
// there are two commits for each 2 MiB: the first takes R/W from the link to their table, as a fork
// does; whoever writes from then on faults, and waits for the space's writer lock, which is held
// here. When those who had begun before have left, the bytes are copied, and the second commit
// replaces the link by the huge leaf. A crash between the two leaves pages that are the space's
// alone, which the next write finds out.
#include "memory/reader_section.hpp"
#include "store/transaction_state.hpp"

namespace holdfast::detail {

using table::TableEditor;

Result<bool> TransactionState::promote_block(Joined& joined, std::uint64_t first_page,
                                             memory::Placement where) {
    space::ChangedPages changed;
    changed.add(first_page, first_page + table::entry_pages(2));
    // Beside the small ones, which count until they are released.
    if (auto room = make_way(joined, table::entry_pages(2)); !room)
        return std::unexpected(room.error());
    table::EditSession copying(store_->services);
    copying.charge_to(joined.space->record);
    {
        TableEditor editor(copying, joined.root);
        const auto promotable = editor.promotable(first_page);
        if (!promotable) return std::unexpected(promotable.error());
        if (*promotable != TableEditor::Promotable::yes)
            return *promotable == TableEditor::Promotable::is_huge;
    }
    // First of all, so that nothing is done for nothing.
    const auto huge = copying.take_leaf(2, joined.root.owner, first_page, where);
    if (!huge) return std::unexpected(huge.error());
    table::EditSession protecting(store_->services);
    if (auto done = TableEditor(protecting, joined.root).write_protect(first_page); !done)
        return std::unexpected(done.error());
    if (!protecting.is_idle())
        if (auto done = commit_step(joined, protecting, changed); !done)
            return std::unexpected(done.error());
    memory::ReaderSection::wait_for_readers();
    if (auto done = TableEditor(copying, joined.root).promote(first_page, *huge); !done)
        return std::unexpected(done.error());
    if (auto done = commit_step(joined, copying, changed); !done)
        return std::unexpected(done.error());
    return true;
}

Result<std::uint64_t> TransactionState::promote(const std::shared_ptr<SpaceState>& space,
                                                Range range) {
    auto joined = join(space);
    if (!joined) return std::unexpected(joined.error());
    table::PageRange pages;
    if (auto fine = check(**joined, "promote", range, {}, pages); !fine)
        return std::unexpected(fine.error());
    {
        TableEditor editor(session_, (*joined)->root);
        if (auto whole = mapped_place(editor, **joined, pages); !whole)
            return std::unexpected(whole.error());
    }
    const auto where = placement(**joined);
    if (!where) return std::unexpected(where.error());
    const std::uint64_t block = table::entry_pages(2);
    std::uint64_t huge_bytes = 0;
    for (std::uint64_t page = (pages.begin + block - 1) / block * block; page + block <= pages.end;
         page += block) {
        const auto done = promote_block(**joined, page, *where);
        if (!done) return std::unexpected(done.error());
        if (*done) huge_bytes += block << kPageShift;
    }
    let_go();
    store_->release_some();
    return huge_bytes;
}

}  // namespace holdfast::detail
