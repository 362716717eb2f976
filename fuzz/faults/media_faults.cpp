#include "faults/media_faults.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <new>
#include <random>

#include "judge/child_process.hpp"
#include "judge/crash_image.hpp"
#include "judge/scratch_folder.hpp"
#include "store/store_state.hpp"
#include "subjects/store_workload.hpp"
#include "tracer/page_watch.hpp"

namespace holdfast::crash {
namespace {

constexpr std::uint64_t kPage = 4096;
constexpr OpenOptions kOpen{.emulation = PmemEmulation::on};

struct Structure {
    std::string name;
    std::uint64_t offset = 0, size = 0;
};

const char* name_of(format::FrameKind kind) {
    using format::FrameKind;
    switch (kind) {
        case FrameKind::data:
            return "data";
        case FrameKind::shared_data:
            return "shared_data";
        case FrameKind::space_record:
            return "space_record";
        case FrameKind::limbo_page:
            return "limbo_page";
        case FrameKind::table_1:
            return "table_1";
        case FrameKind::table_2:
            return "table_2";
        case FrameKind::table_3:
            return "table_3";
        case FrameKind::table_4:
            return "table_4";
        case FrameKind::table_5:
            return "table_5";
        default:
            return nullptr;
    }
}

// Where the store's own structures lie in the file.
std::vector<Structure> structures_of(const Store& store) {
    const detail::StoreState& state = store.state();
    const pool::Pool& pool = *state.pool;
    std::vector<Structure> all;
    const auto& superblock = state.memory.superblock();
    const std::uint64_t root = pool.offset_of(&superblock);
    const std::uint64_t regions = sizeof(format::RegionRecord) * state.memory.regions().size();
    all.push_back({"superblock", root, offsetof(format::Superblock, regions)});
    all.push_back({"region records", root + offsetof(format::Superblock, regions), regions});
    for (const memory::Region& region : state.memory.regions()) {
        for (std::uint64_t i = 0; i < region.frame_count(); ++i) {
            const FrameNumber frame = region.base() + i;
            const auto metadata = state.memory.valid_metadata(frame);
            const char* const kind = metadata ? name_of(metadata->kind) : nullptr;
            if (kind == nullptr) continue;
            all.push_back({fmt::format("metadata of {}", kind),
                           pool.offset_of(region.metadata(frame).word0),
                           format::kFrameMetadataBytes});
            if (metadata->kind != format::FrameKind::data &&
                metadata->kind != format::FrameKind::shared_data)
                all.push_back({kind, pool.offset_of(region.host(frame)), kPage});
        }
    }
    return all;
}

// What every page of every space translates to, around the mapped ones too.
struct Answers {
    struct Page {
        std::string space;
        std::uint64_t address = 0;
        bool mapped = false;
        std::uint64_t physical = 0;
        std::string protection = {};
        std::uint64_t word = 0;
    };
    std::vector<Page> pages;
    std::vector<std::string> spaces;
};

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

enum class Verdict : std::uint8_t { none, noticed, harmless, wrong };

// Asks the damaged store everything that was asked before.
Verdict judge(const std::string& path, const Answers& before, std::string& wrong) {
    auto store = Store::open(path, kOpen);
    if (!store) return Verdict::noticed;
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
            return Verdict::wrong;
        }
    }
    noticed = noticed || !store->verify().clean();
    // None of these may crash or hang, whatever they say.
    (void)store->info().has_value();
    for (const std::string& name : before.spaces)
        if (auto space = store->open_space(name)) {
            (void)space->maps().has_value();
            const Range range{VirtAddr(0x7777'0000), 3 * kPage};
            if (space->map(range, protection::rw)) (void)space->unmap(range).has_value();
        }
    (void)store->release_limbo(4).has_value();
    return noticed ? Verdict::noticed : Verdict::harmless;
}

std::vector<MediaFault> choose_faults(const std::vector<Structure>& structures,
                                      const FaultOptions& options) {
    std::mt19937_64 random(options.seed);
    std::map<std::string, std::vector<const Structure*>> by_name;
    for (const Structure& structure : structures) by_name[structure.name].push_back(&structure);
    std::vector<MediaFault> faults;
    for (const auto& [name, places] : by_name) {
        std::uint64_t bits = 0;
        for (const Structure* place : places) bits += place->size * 8;
        const bool all = options.bits_per_structure == 0 || bits <= options.bits_per_structure;
        const std::uint64_t count = all ? bits : options.bits_per_structure;
        for (std::uint64_t i = 0; i < count; ++i) {
            std::uint64_t number = all ? i : random() % bits;
            for (const Structure* place : places) {
                if (number < place->size * 8) {
                    faults.push_back({MediaFault::Kind::flip_bit, name, place->offset + number / 8,
                                      0, static_cast<unsigned>(number % 8)});
                    break;
                }
                number -= place->size * 8;
            }
        }
        for (const Structure* place : places)
            for (std::uint64_t at = place->offset / 64 * 64; at < place->offset + place->size;
                 at += 64) {
                // A whole table has many lines; those with something in them are not known here.
                if (place->size == kPage && random() % 8 != 0) continue;
                faults.push_back({MediaFault::Kind::zero_line, name, at, 0, 0});
                faults.push_back({MediaFault::Kind::poison_line, name, at, 0, 0});
            }
    }
    std::vector<const Structure*> frames;
    for (const Structure& structure : structures)
        if (structure.size == kPage) frames.push_back(&structure);
    for (const Structure* to : frames)
        for (const Structure* from : frames) {
            if (to == from || random() % (frames.size() / 8 + 1) != 0) continue;
            faults.push_back({MediaFault::Kind::copy_frame, to->name, to->offset, from->offset, 0});
            if (to < from)
                faults.push_back(
                    {MediaFault::Kind::swap_frames, to->name, to->offset, from->offset, 0});
        }
    return faults;
}

void plant(CrashImage& image, const MediaFault& fault) {
    const auto base = image.base();
    switch (fault.kind) {
        case MediaFault::Kind::flip_bit: {
            const std::byte flipped = base[fault.offset] ^ static_cast<std::byte>(1U << fault.bit);
            image.patch_bytes(fault.offset, {&flipped, 1});
            break;
        }
        case MediaFault::Kind::zero_line:
        case MediaFault::Kind::poison_line: {
            LineBytes line;
            line.fill(fault.kind == MediaFault::Kind::zero_line ? std::byte{0} : std::byte{0xff});
            image.patch_bytes(fault.offset, line);
            break;
        }
        case MediaFault::Kind::swap_frames:
            image.patch_bytes(fault.source, base.subspan(fault.offset, kPage));
            [[fallthrough]];
        case MediaFault::Kind::copy_frame:
            image.patch_bytes(fault.offset, base.subspan(fault.source, kPage));
            break;
    }
}

// Progress of a child, in memory that outlives it; a verdict for each fault follows.
struct Board {
    std::atomic<std::uint64_t> next = 0;
};

class FaultRunner {
  public:
    FaultRunner(std::vector<std::byte> pool, Answers answers, std::vector<MediaFault> faults,
                const FaultOptions& options)
        : pool_(std::move(pool)),
          answers_(std::move(answers)),
          faults_(std::move(faults)),
          options_(options) {}

    Result<FaultOutcome> run() {
        const auto begin = std::chrono::steady_clock::now();
        const std::span<std::byte> memory = shared_memory(sizeof(Board) + faults_.size());
        if (memory.empty()) return fail(ErrorCode::io, "no memory to share with the judges");
        Board* const board = new (memory.data()) Board;
        verdicts_ = {reinterpret_cast<Verdict*>(memory.data() + sizeof(Board)), faults_.size()};
        FaultOutcome outcome;
        while (board->next < faults_.size()) {
            auto judged =
                run_in_child_with_answer("the judge", 3600, [&] { return judge_on(*board); });
            if (judged) {
                if (!judged->empty())
                    outcome.violations.push_back({faults_[board->next - 1], *judged});
                continue;
            }
            if (judged.error().code != ErrorCode::io) return std::unexpected(judged.error());
            const std::uint64_t number = board->next - 1;
            verdicts_[number] = Verdict::wrong;
            outcome.violations.push_back({faults_[number], judged.error().message});
        }
        for (std::size_t i = 0; i < faults_.size(); ++i) {
            FaultCounts& counts = outcome.by_structure[faults_[i].structure];
            ++counts.tried;
            counts.noticed += verdicts_[i] == Verdict::noticed;
            counts.harmless += verdicts_[i] == Verdict::harmless;
        }
        release_shared_memory(memory);
        outcome.states = faults_.size();
        outcome.seconds =
            std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
        return outcome;
    }

  private:
    // Judges one fault after the other, until one is wrong: what was wrong is the answer.
    Result<std::string> judge_on(Board& board) {
        auto image = CrashImage::create(pool_);
        if (!image) return std::unexpected(image.error());
        if (auto watched = PageWatch::start(image->path(), image->size_bytes()); !watched)
            return std::unexpected(watched.error());
        std::string wrong;
        PageWatch::begin_run({});
        if (judge(image->path(), answers_, wrong) != Verdict::harmless)
            return fail(ErrorCode::damaged, "the undamaged store is not right: " + wrong);
        image->restore(PageWatch::written());
        while (wrong.empty() && board.next < faults_.size()) {
            const std::uint64_t number = board.next++;
            alarm(static_cast<unsigned>(options_.seconds_per_check));  // a hang ends as signal 14
            plant(*image, faults_[number]);
            PageWatch::begin_run({});
            verdicts_[number] = judge(image->path(), answers_, wrong);
            image->restore(PageWatch::written());
        }
        alarm(0);
        return wrong;
    }

    std::vector<std::byte> pool_;
    Answers answers_;
    std::vector<MediaFault> faults_;
    FaultOptions options_;
    std::span<Verdict> verdicts_;
};

}  // namespace

std::string MediaFault::to_string() const {
    switch (kind) {
        case Kind::flip_bit:
            return fmt::format("bit {} of byte {:#x} flipped ({})", bit, offset, structure);
        case Kind::zero_line:
            return fmt::format("line {:#x} zeroed ({})", offset, structure);
        case Kind::poison_line:
            return fmt::format("line {:#x} filled with ones ({})", offset, structure);
        case Kind::copy_frame:
            return fmt::format("frame {:#x} copied over frame {:#x} ({})", source, offset,
                               structure);
        case Kind::swap_frames:
            return fmt::format("frames {:#x} and {:#x} swapped ({})", source, offset, structure);
    }
    return {};
}

Result<FaultOutcome> run_media_faults(const Script& script, const FaultOptions& options) {
    const ScratchFolder folder;
    const std::string path = folder.path() + "/pool";
    // All of the workload is set-up here.
    Script whole = script;
    whole.set_up.insert(whole.set_up.end(), script.operations.begin(), script.operations.end());
    whole.operations.clear();
    whole.crashes_creation = false;
    StoreWorkload workload(whole);
    if (auto made = run_in_child("the set-up", 60, [&] { return workload.set_up(path); }); !made)
        return std::unexpected(made.error());
    // This process opens it once, to learn what is where and what it answers.
    auto pool = read_file(path);
    if (!pool) return std::unexpected(pool.error());
    auto store = Store::open(path, kOpen);
    if (!store) return std::unexpected(store.error());
    auto answers = answers_of(*store);
    if (!answers) return std::unexpected(answers.error());
    const std::vector<MediaFault> faults = choose_faults(structures_of(*store), options);
    // A process opens a pool once; the judges open images of the same one.
    store = fail(ErrorCode::stale, "closed");
    return FaultRunner(std::move(*pool), std::move(*answers), faults, options).run();
}

}  // namespace holdfast::crash
