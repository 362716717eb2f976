// A plain model of a store: what every call should do, in std::map and nothing clever. The crash
// harness and the property tests run the store and the model side by side and compare.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "holdfast/holdfast.hpp"
#include "oracle/model_files.hpp"

namespace holdfast::oracle {

// A page of a file; of none without a name.
struct FilePlace {
    std::string name;
    std::uint64_t page = 0;
};

struct ModelPage {
    Protection protection;
    // The model's own number for a frame; 0 for a page that is demand-zero, or not loaded.
    std::uint64_t frame = 0;
    bool guard = false;
    // As long as it is zeros, it may have a frame or be demand-zero: it is part of what is to be a
    // page of 2 MiB, and gets a frame with another part; or it may have been evicted.
    bool may_have_frame = false;
    FilePlace file = {};
    bool is_shared_file = false;
    bool is_device = false;
    // Not 0: what a stack may grow into, and how many pages stay between it and others.
    std::uint64_t stack_gap = 0;
};

struct ModelSpace {
    Levels levels = Levels::four;
    std::uint64_t lineage = 0;  // the same for all forks and snapshots of a space
    bool is_snapshot = false;
    bool is_supervisor = false;
    std::uint64_t supervisor = 0;  // the lineage of the object that the upper half is of
    std::map<std::uint64_t, ModelPage> pages;  // by page number (address >> 12)
};

class Model {
  public:
    std::map<std::string, ModelSpace> spaces;
    std::map<std::uint64_t, std::uint64_t> contents;  // first word of each frame
    // Frames that were mapped shared: forks have them, too. Of all others they have copies.
    std::set<std::uint64_t> shared;
    // Of shared frames whose first word may be lost: what is there then.
    std::map<std::uint64_t, std::uint64_t> unpersisted;
    ModelFiles files;
    Overcommit overcommit;

    // How many pages all spaces are charged for.
    std::uint64_t committed_pages() const;

    // What the call must return, and its effect if that is success.
    std::optional<ErrorCode> create(const std::string& name, Levels levels);
    std::optional<ErrorCode> create_supervisor(const std::string& name, Levels levels);
    std::optional<ErrorCode> create_sharing(const std::string& name, Levels levels,
                                            const std::string& supervisor);
    // A copy of everything, at once: that pages are copied only when they are written must not be
    // seen.
    std::optional<ErrorCode> fork(const std::string& from, const std::string& to, bool snapshot);
    std::optional<ErrorCode> rollback(const std::string& name, const std::string& snapshot);
    std::optional<ErrorCode> rename(const std::string& from, const std::string& to);
    std::optional<ErrorCode> remove(const std::string& name);
    std::optional<ErrorCode> map(const std::string& name, Range range, Protection protection,
                                 bool lazy);
    std::optional<ErrorCode> map_shared(const std::string& name, Range range, Protection protection,
                                        const std::string& source, Range source_range);
    std::optional<ErrorCode> map_guard(const std::string& name, Range range);
    std::optional<ErrorCode> map_huge(const std::string& name, Range range, Protection protection,
                                      bool lazy);
    std::optional<ErrorCode> promote(const std::string& name, Range range);
    std::optional<ErrorCode> evict(const std::string& name);
    // A stack that has one page at first, and a guard of so many.
    std::optional<ErrorCode> map_stack(const std::string& name, Range range, Protection protection,
                                       std::uint64_t guard_pages);
    std::optional<ErrorCode> unmap(const std::string& name, Range range);
    std::optional<ErrorCode> protect(const std::string& name, Range range, Protection protection);
    // Writes the first word of a page.
    std::optional<ErrorCode> write(const std::string& name, VirtAddr page, std::uint64_t word,
                                   bool is_unpersisted = false);

    std::optional<ErrorCode> map_file(const std::string& name, Range range, Protection protection,
                                      const FilePlace& place, bool shared_file);
    // Frames of a device, from that page on.
    std::optional<ErrorCode> map_device(const std::string& name, Range range, Protection protection,
                                        std::uint64_t first);
    // The first access to a page.
    std::optional<ErrorCode> load(const std::string& name, VirtAddr page);
    // `after_step` is called after each step that a crash may follow, and that no space shows.
    std::optional<ErrorCode> sync(const std::string& name, Range range,
                                  const std::function<void()>& after_step = {});

    // Forgets the contents of frames that no page has any more.
    void prune();

    // With the pages of the supervisor object, if it shares one's.
    std::map<std::uint64_t, ModelPage> pages_of(const ModelSpace& space) const;

  private:
    const std::string* name_of_supervisor(const ModelSpace& space) const;
    std::optional<ErrorCode> check(const ModelSpace& space, Range range,
                                   std::optional<Protection> protection) const;
    std::map<std::uint64_t, ModelPage> copied(const std::map<std::uint64_t, ModelPage>& pages);
    static constexpr std::uint64_t kDeviceFrames = std::uint64_t{1} << 62;
    std::uint64_t next_frame_ = 1;
    std::uint64_t next_lineage_ = 1;
};

}  // namespace holdfast::oracle
