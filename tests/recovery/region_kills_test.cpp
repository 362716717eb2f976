// Killed at every step of what makes a file beside the pool: adding an external region, and putting
// a new one in the place of one that is gone. The steps are all system calls (stopped at, by
// ptrace, before and after each) and all calls of libpmem that flush, fence or copy. The harness
// traces one file, so these are not among its workloads; SIGKILL loses no cache lines, so this says
// nothing of flushes.
// ctest-labels: noasan
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <functional>

#include "support/temporary_pool.hpp"
#include "tracer/boundary.hpp"

namespace holdfast::test {
namespace {

using namespace holdfast::literals;
namespace fs = std::filesystem;

constexpr Range kKept{VirtAddr(0x4000'0000), 3 * kPageSize}, kNew{VirtAddr(0x8000'0000), 2_MiB};
constexpr std::uint64_t kRegionBytes = 4_MiB;
constexpr int kDone = 3;  // a child's exit status, when nothing has killed it

// Ends the process at the call of libpmem with this number, before it does anything.
class KillAt final : public crash::BoundaryObserver {
  public:
    explicit KillAt(std::uint64_t step) : left_(step) {}
    bool flush(const void*, std::size_t, const void*) override { return count(); }
    bool drain(const void*) override { return count(); }
    bool copy(void*, const void*, int, std::size_t, unsigned, const void*) override {
        return count();
    }

  private:
    bool count() {
        if (left_-- == 0) raise(SIGKILL);
        return false;
    }
    std::uint64_t left_;
};

// But for pages of a region that is gone.
void expect_sound(const Store& store) {
    for (const Finding& finding : store.verify().findings)
        EXPECT_EQ(finding.what, "lost page") << finding.detail;
}

using Change = std::function<Result<void>(Store&)>;

class RegionKills : public testing::Test {
  protected:
    RegionKills() {
        remove_files();
        Store store = value_of(Store::create(
            original(),
            {.size_bytes = 12_MiB, .emulation = PmemEmulation::on, .frames_bytes = 1_MiB}));
        Space space = value_of(store.create_space("kept"));
        must(space.map(kKept, protection::rw));
        must(space.write(kKept.start, std::as_bytes(std::span("kept"))));
        must(space.persist(kKept));
    }
    ~RegionKills() override { remove_files(); }

    std::string original() const { return pool_.path() + ".original"; }
    std::string file() const { return pool_.path() + ".region"; }
    std::string new_file() const { return pool_.path() + ".new"; }
    void remove_files() const {
        for (const std::string& path : {original(), file(), new_file()}) fs::remove(path);
    }
    void begin_anew() const {
        fs::remove(file());
        fs::remove(new_file());
        fs::copy_file(original(), pool_.path(), fs::copy_options::overwrite_existing);
    }

    // The change in a process of its own, after `before`; whether it came to its end.
    bool is_done_in_child(const Change& change, const std::function<void()>& before,
                          const std::function<void(pid_t)>& watch) const {
        const pid_t child = fork();
        if (child == 0) {
            auto store = Store::open(pool_.path(), {.emulation = PmemEmulation::on});
            if (!store) _exit(4);
            before();
            const auto changed = change(*store);
            if (!changed) fmt::print(stderr, "{}\n", changed.error().message);
            _exit(changed ? kDone : 5);
        }
        watch(child);
        int status = 0;
        EXPECT_EQ(waitpid(child, &status, 0), child);
        if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) return false;
        EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == kDone) << status;
        return true;
    }

    bool is_killed_at_libpmem(const Change& change, std::uint64_t step) const {
        KillAt kill_at(step);
        return !is_done_in_child(change, [&] { crash::observe_boundary(&kill_at); }, [](pid_t) {});
    }

    bool is_killed_at_system_call(const Change& change, std::uint64_t step) const {
        bool killed = false;
        const auto before = [] {
            ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
            raise(SIGSTOP);
        };
        const auto watch = [&](pid_t child) {
            int status = 0;
            ASSERT_EQ(waitpid(child, &status, 0), child);
            ASSERT_TRUE(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP) << status;
            ptrace(PTRACE_SETOPTIONS, child, nullptr, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
            for (std::uint64_t at = 0; at < step; ++at) {
                ptrace(PTRACE_SYSCALL, child, nullptr, nullptr);
                // WNOWAIT: an end is for the caller to see.
                siginfo_t info{};
                ASSERT_EQ(waitid(P_PID, child, &info, WEXITED | WSTOPPED | WNOWAIT), 0);
                if (info.si_code == CLD_EXITED || info.si_code == CLD_KILLED) return;
                ASSERT_EQ(waitpid(child, &status, 0), child);
                ASSERT_EQ(WSTOPSIG(status), SIGTRAP | 0x80);
            }
            kill(child, SIGKILL);
            killed = true;
        };
        const bool done = is_done_in_child(change, before, watch);
        EXPECT_TRUE(!(done && killed));
        return killed;
    }

    // The store is as it was, and its frames add up; then `expect` looks at the regions.
    void expect_well(const std::function<void(Store&)>& expect) const {
        Store store = pool_.open();
        expect_sound(store);
        Space kept = value_of(store.open_space("kept"));
        EXPECT_EQ(bytes_at(kept, kKept.start.bits(), 4), "kept");
        expect(store);
        must(kept.map({VirtAddr(0x5000'0000), kPageSize}, protection::rw));
    }

    enum class Steps : std::uint8_t { calls_of_libpmem, system_calls };
    // Kills at each step until there are no more; returns how many left the change undone, and how
    // many did it.
    std::pair<unsigned, unsigned> kill_at_each_step(Steps steps,
                                                    const std::function<void()>& set_up,
                                                    const Change& change,
                                                    const std::function<bool(Store&)>& is_done) {
        std::pair<unsigned, unsigned> counts;
        for (std::uint64_t step = 0; step < 2000; ++step) {
            begin_anew();
            set_up();
            const bool killed = steps == Steps::system_calls
                                    ? is_killed_at_system_call(change, step)
                                    : is_killed_at_libpmem(change, step);
            bool done = false;
            expect_well([&](Store& store) { done = is_done(store); });
            if (!killed) {
                EXPECT_TRUE(done);
                return counts;
            }
            EXPECT_FALSE(!done && counts.second != 0)
                << "undone at step " << step << ", and done at one before";
            ++(done ? counts.second : counts.first);
            if (HasFailure()) {
                ADD_FAILURE() << "step " << step;
                return counts;
            }
        }
        ADD_FAILURE() << "it does not end";
        return counts;
    }

    const TemporaryPool pool_;
};

void expect_usable(Store& store, unsigned region) {
    Space space = value_of(store.create_space("new", {.region = region}));
    must(space.map(kNew, protection::rw));
    must(space.write(kNew.start, std::as_bytes(std::span("new"))));
    EXPECT_EQ(bytes_at(space, kNew.start.bits(), 3), "new");
    expect_sound(store);
}

class AddRegion : public RegionKills {
  protected:
    bool is_added(Store& store) const {
        if (store.regions().size() == 1) {
            // What is left of it, if anything, is refused with a sentence, and is nobody's.
            if (fs::exists(file())) {
                const auto again = store.add_external_region(file(), {.size_bytes = kRegionBytes});
                EXPECT_FALSE(again);
                if (!again) {
                    EXPECT_EQ(again.error().code, ErrorCode::already_exists);
                    EXPECT_THAT(again.error().message,
                                testing::AnyOf(testing::HasSubstr("delete it"),
                                               testing::HasSubstr("name a new file")));
                }
                fs::remove(file());
            }
            expect_usable(
                store, value_of(store.add_external_region(file(), {.size_bytes = kRegionBytes})));
            return false;
        }
        EXPECT_EQ(store.regions().size(), 2U);
        EXPECT_EQ(store.regions()[1].state, RegionState::attached) << store.regions()[1].trouble;
        expect_usable(store, 1);
        return true;
    }
    const Change add_ = [this](Store& store) -> Result<void> {
        auto added = store.add_external_region(file(), {.size_bytes = kRegionBytes});
        if (!added) return std::unexpected(added.error());
        return {};
    };
};

TEST_F(AddRegion, KilledAtEveryCallOfLibpmem) {
    const auto [undone, done] = kill_at_each_step(
        Steps::calls_of_libpmem, [] {}, add_, [this](Store& store) { return is_added(store); });
    EXPECT_GT(undone, 5U);
    EXPECT_GT(done, 2U) << "the commit point is followed by more";
}

TEST_F(AddRegion, KilledAtEverySystemCall) {
    const auto [undone, done] = kill_at_each_step(
        Steps::system_calls, [] {}, add_, [this](Store& store) { return is_added(store); });
    EXPECT_GT(undone, 15U);
    EXPECT_GT(done, 0U);
}

class ReplaceRegion : public RegionKills {
  protected:
    // A region that has a page and is detached.
    void set_up() const {
        Store store = pool_.open();
        value_of(store.add_external_region(file(), {.size_bytes = kRegionBytes}));
        Space space = value_of(store.create_space("lost", {.region = 1}));
        must(space.map({VirtAddr(0x6000'0000), kPageSize}, protection::rw));
        must(store.detach_region(1));
    }
    bool is_replaced(Store& store) const {
        const RegionInfo region = store.regions().at(1);
        if (region.state == RegionState::detached) {
            if (fs::exists(new_file())) fs::remove(new_file());
            EXPECT_EQ(region.file, file());
            return false;
        }
        EXPECT_EQ(region.state, RegionState::attached) << region.trouble;
        EXPECT_EQ(region.file, new_file());
        const Space lost = value_of(store.open_space("lost"));
        const auto page = lost.translate(VirtAddr(0x6000'0000));
        EXPECT_FALSE(page);
        if (!page) {
            EXPECT_EQ(page.error().kind, FaultKind::region_replaced);
        }
        expect_usable(store, 1);
        return true;
    }
    const Change replace_ = [this](Store& store) { return store.replace_region(1, new_file()); };
};

TEST_F(ReplaceRegion, KilledAtEveryCallOfLibpmem) {
    const auto [undone, done] = kill_at_each_step(
        Steps::calls_of_libpmem, [this] { set_up(); }, replace_,
        [this](Store& store) { return is_replaced(store); });
    EXPECT_GT(undone, 5U);
    EXPECT_GT(done, 2U);
}

TEST_F(ReplaceRegion, KilledAtEverySystemCall) {
    const auto [undone, done] = kill_at_each_step(
        Steps::system_calls, [this] { set_up(); }, replace_,
        [this](Store& store) { return is_replaced(store); });
    EXPECT_GT(undone, 15U);
    EXPECT_GT(done, 0U);
}

}  // namespace
}  // namespace holdfast::test
