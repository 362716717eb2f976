// A transaction under way: its session on the tables, and what it does to names.
#pragma once

#include <boost/container/small_vector.hpp>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "holdfast/transaction.hpp"
#include "space/annotations.hpp"
#include "store/mapped_files.hpp"
#include "store/store_state.hpp"
#include "table/edit_session.hpp"
#include "table/table_editor.hpp"

namespace holdfast::detail {

class TransactionState {
  public:
    explicit TransactionState(std::shared_ptr<StoreState> store);
    ~TransactionState() { abort(); }
    TransactionState(const TransactionState&) = delete;
    TransactionState& operator=(const TransactionState&) = delete;

    Result<std::shared_ptr<SpaceState>> create_space(const std::string& name,
                                                     const SpaceOptions& options);
    // A space of the same lineage, which shares everything below its root with the source.
    Result<std::shared_ptr<SpaceState>> fork_space(const std::shared_ptr<SpaceState>& source,
                                                   const std::string& name, format::SpaceKind kind);
    Result<void> rollback(const std::shared_ptr<SpaceState>& space,
                          const std::shared_ptr<SpaceState>& snapshot);
    Result<void> rename_space(const std::string& from, const std::string& to);
    Result<void> prefer_region(const std::shared_ptr<SpaceState>& space,
                               std::optional<unsigned> region);
    Result<void> remove_space(const std::string& name);
    // The same; busy if anybody holds the space or the directory.
    Result<void> remove_without_waiting(const std::shared_ptr<SpaceState>& space);

    Result<void> map(const std::shared_ptr<SpaceState>& space, Range range, Protection protection,
                     const MapOptions& options);
    Result<void> map_device(const std::shared_ptr<SpaceState>& space, Range range,
                            Protection protection, const MapOptions& options);
    Result<void> map_shared(const std::shared_ptr<SpaceState>& space, Range range,
                            Protection protection, const std::shared_ptr<SpaceState>& source,
                            Range source_range, const MapOptions& options);
    Result<void> unmap(const std::shared_ptr<SpaceState>& space, Range range);
    Result<void> protect(const std::shared_ptr<SpaceState>& space, Range range,
                         Protection protection);
    // The mark that handles of the range carry.
    Result<std::uint64_t> mark(const std::shared_ptr<SpaceState>& space, Range range);
    // In commits of its own, one for each 2 MiB (Space::promote).
    Result<std::uint64_t> promote(const std::shared_ptr<SpaceState>& space, Range range);
    // The page gets a frame of zeros that it lacks (that of all, if it is only to be read), or one
    // of its own that may be written.
    Result<void> populate(const std::shared_ptr<SpaceState>& space, VirtAddr address,
                          bool for_writing);
    Result<void> unshare(const std::shared_ptr<SpaceState>& space, VirtAddr address);
    // The stack in whose room the address is grows down to it, and its page gets a frame, as by
    // `populate`; false if it would come too near to another mapping.
    Result<bool> grow_stack(const std::shared_ptr<SpaceState>& space, VirtAddr address,
                            bool for_writing);
    Result<void> fill(const std::shared_ptr<SpaceState>& space, VirtAddr address,
                      std::span<const std::byte> source);

    // Of mapped files (transaction_files.cpp).
    // The page, which was not touched yet, gets a frame: one of its own with these bytes, or the
    // one that all share, which gets them if the file object has none yet. Nothing is done if the
    // range is another by now.
    Result<void> load_private(const std::shared_ptr<SpaceState>& space, VirtAddr address,
                              const FilePage& of, std::span<const std::byte> content);
    Result<void> load_shared(const std::shared_ptr<SpaceState>& space, VirtAddr address,
                             const FilePage& of, std::span<const std::byte> content);
    // The file object goes, with the pages it has in the pool. Nobody must map it.
    Result<void> remove_file(format::OwnerId owner);
    // What is known of the file is this from the commit on.
    Result<void> set_file(const std::shared_ptr<SpaceState>& object, const KnownFile& known);
    std::expected<Translation, Fault> translate(const std::shared_ptr<SpaceState>& space,
                                                VirtAddr address);

    // Gives up to so many pages' frames back (reclaim.hpp); how many. In commits of its own, and
    // lets the space go.
    enum class Waiting : std::uint8_t { may_wait, may_not };
    Result<std::uint64_t> evict(const std::shared_ptr<SpaceState>& space, std::uint64_t pages,
                                Waiting waiting);
    Result<void> swap_in(const std::shared_ptr<SpaceState>& space, VirtAddr address);
    Result<void> set_quota(const std::shared_ptr<SpaceState>& space, std::uint64_t pages);

    // The space, or the supervisor object whose half the address is of.
    static const std::shared_ptr<SpaceState>& responsible_for(
        const std::shared_ptr<SpaceState>& space, VirtAddr address);
    // permission_denied for a snapshot.
    static Result<void> check_change(const SpaceState& space);

    // Whether a call failed with no_space for what it would have promised (overcommit.hpp).
    bool is_refused_by_policy() const { return is_refused_; }

    Result<void> commit();
    void abort();

  private:
    // A space that this transaction holds.
    struct Joined {
        std::shared_ptr<SpaceState> space;
        table::Root root;
        space::Annotations annotations;
        bool created = false, removed = false;
        // By unmap, protect, remove, fork, …: what whoever remembers translations must forget.
        space::ChangedPages changed = {};
        bool shares = false;  // its pages are copied on write from the commit on
        bool new_root = false;
        std::optional<std::string> new_name = {};
        std::optional<std::uint8_t> new_region = {};  // as in the space record
        std::optional<std::uint64_t> new_quota = {};
        std::optional<KnownFile> new_file = {};  // of a file object
        std::int64_t charged = 0;                // pages more that it is charged for
    };

    // What it returns is good until the next space is joined.
    Result<Joined*> join(const std::shared_ptr<SpaceState>& space, bool waits = true);
    Result<void> join_directory();
    // Nothing, if the name may be given to a new space.
    Result<void> check_unused(const std::string& name);
    // Puts a fresh space on the medium, aside. The name leads to it with the commit.
    Result<std::shared_ptr<SpaceState>> make_space(const std::string& name,
                                                   format::SpaceRecord record,
                                                   table::TakenFrame record_frame,
                                                   table::TakenFrame root_table,
                                                   std::shared_ptr<SpaceState> supervisor);
    Result<std::optional<FrameNumber>> look_up(const std::string& name) const;
    Result<void> remove(const std::shared_ptr<SpaceState>& space, const std::string& name);
    Result<std::shared_ptr<SpaceState>> named(const std::string& name);
    Result<format::OwnerId> next_owner();
    // The upper half, where it is a supervisor object's (transaction_supervisor.cpp).
    static Result<void> check_half(const SpaceState& space, const char* action, Range range,
                                   std::optional<Protection> protection);
    Result<void> make_half(table::TakenFrame root, Levels levels, format::OwnerId owner);
    Result<void> link_half(table::TakenFrame root, format::SpaceRecord& record,
                           const std::shared_ptr<SpaceState>& supervisor);
    Result<std::shared_ptr<SpaceState>> named_supervisor(const SpaceOptions& options);
    Result<void> check_unshared(const SpaceState& supervisor);
    Result<void> check(const Joined& joined, const char* action, Range range,
                       std::optional<Protection> protection, table::PageRange& pages) const;
    // The frame of zeros, which what is only read has, and takes none; nothing for what is written,
    // or if there is no frame for it.
    std::optional<table::TakenFrame> zero_for(bool for_writing) const;
    Result<void> check_shareable(const SpaceState& source, std::uint64_t page,
                                 FrameNumber frame) const;
    static Result<void> check_page_size(const Joined& joined, Range range,
                                        const MapOptions& options);
    // Where the pages are to be mapped, which nothing is yet.
    Result<table::TableEditor::Place> unmapped_place(table::TableEditor& editor,
                                                     const Joined& joined,
                                                     table::PageRange pages) const;
    // The place of pages that are all mapped.
    Result<table::TableEditor::Place> mapped_place(table::TableEditor& editor, const Joined& joined,
                                                   table::PageRange pages) const;
    // The region as a space record has it. not_found if there is no such region.
    Result<std::uint8_t> region_on_medium(std::optional<unsigned> region) const;
    Result<memory::Placement> placement(const Joined& joined,
                                        std::optional<unsigned> wish = {}) const;
    static Result<void> check_stack(table::PageRange pages, const MapOptions& options);
    Result<void> map_stack(table::TableEditor& editor, table::PageRange pages,
                           Protection protection, const GrowsDown& stack);
    Result<void> unshare_tables(Joined& joined, table::PageRange pages);
    // Commits what the session has done to the space's tables, while this transaction goes on to
    // hold the space. `changed`: as Joined's.
    Result<void> commit_step(const Joined& joined, table::EditSession& step,
                             const space::ChangedPages& changed);
    // False if something keeps the 2 MiB from being one page.
    Result<bool> promote_block(Joined& joined, std::uint64_t first_page, memory::Placement where);
    static constexpr std::uint64_t kTablesUnsharedAtOnce = 4;
    Result<std::uint64_t> evict(Joined& joined, std::uint64_t pages, bool for_others);
    Result<void> make_way(Joined& joined, std::uint64_t pages);
    void adopt_pages(const Joined& joined);
    bool has_quota(const Joined& joined) const;
    Result<void> annotate(Joined& joined, table::PageRange pages, const MapOptions& options);
    Result<void> map_file(const std::shared_ptr<SpaceState>& space, Range range,
                          Protection protection, const MapOptions& options);
    Result<std::shared_ptr<SpaceState>> file_space(const KnownFile& file);
    Result<std::shared_ptr<SpaceState>> make_file(const KnownFile& file);
    Result<void> renew(const std::shared_ptr<SpaceState>& object, const KnownFile& file);
    Result<void> join_both(const std::shared_ptr<SpaceState>& one,
                           const std::shared_ptr<SpaceState>& other);
    // Whether the page is of the file still.
    Result<bool> is_still(Joined& joined, std::uint64_t page, const FilePage& of) const;
    Result<void> apply_names(pool::TransactionScope& scope);
    bool has_names() const;
    // After a commit: the volatile side of a file object.
    void told_files(const Joined& joined);
    // What the calls add to the commit charge, and what their commit makes of it
    // (transaction_charge.cpp). Before the first join:
    void begin_charging();
    // no_space if the policy forbids it; nothing is changed then. What was promised before cannot
    // be refused.
    enum class Promise : std::uint8_t { is_new, was_given };
    Result<void> charge(Joined& joined, std::int64_t pages, Promise promise = Promise::is_new);
    // What the pages are charged for now, if the policy asks; what they are charged for more since.
    Result<std::int64_t> charged_pages(Joined& joined, table::PageRange pages);
    Result<void> charge_since(Joined& joined, table::PageRange pages, std::int64_t before);
    std::int64_t charge_of(const Joined& joined);  // all of the space
    void settle_charge();                          // inside the gate, after the commit
    void give_charge_back();
    // Keeps the error of a call that has left a part of itself in the session.
    Result<void> spoiled_by(Result<void> outcome);
    void let_go();

    std::shared_ptr<StoreState> store_;
    table::EditSession session_;
    // A call on one space needs no memory of its own for it.
    boost::container::small_vector<Joined, 1> joined_;
    bool holds_directory_ = false;
    std::map<std::string, std::optional<FrameNumber>> names_;  // nothing = erased
    std::optional<Error> spoiled_;
    OvercommitPolicy policy_ = OvercommitPolicy::always;  // when the first space was joined
    std::int64_t charged_ = 0;                            // by all that are no snapshots
    bool is_refused_ = false;
    std::uint64_t reserved_ = 0;  // of the store's limit, for that
};

}  // namespace holdfast::detail
