#include "subjects/workloads.hpp"

#include <fmt/format.h>

#include <charconv>

#include "subjects/random_script.hpp"

namespace holdfast::crash {

const std::vector<NamedWorkload>& workloads() {
    static const std::vector<NamedWorkload> all = {
        {"create_space", "the first space of a store", "operations\ncreate a\n"},
        {"create_space_again", "a space beside others", R"(
            create a
            create b
            map a 0x40000000 3 rw
            operations
            create c 3
        )"},
        {"rename_space", "a space's name", R"(
            create a
            create b
            map a 0x40000000 1 rw
            operations
            rename a c
        )"},
        {"remove_space", "a space with tables and frames", R"(
            create a
            create b
            map a 0x40000000 5 rw
            lazy a 0x7fffffe00000 3 r
            operations
            remove a
            create a
        )"},
        {"map_first", "one page, where there are no tables yet", R"(
            create a
            operations
            map a 0x40000000 1 rw
        )"},
        {"map_one", "one page, in a table that exists", R"(
            create a
            map a 0x40000000 1 rw
            operations
            map a 0x40001000 1 rw
        )"},
        {"map_twice", "two calls, so that the second follows an acknowledged one", R"(
            create a
            map a 0x40000000 1 rw
            operations
            map a 0x40001000 1 rw
            map a 0x40003000 2 r
        )"},
        {"map_range", "a range over the edge of two tables", R"(
            create a
            map a 0x40000000 1 rw
            operations
            map a 0x401fe000 5 rwu
        )"},
        {"map_many", "as many entries in a table as make it be copied", R"(
            create a
            map a 0x40000000 2 rw
            operations
            map a 0x40010000 40 rw
        )"},
        {"map_table", "a whole table and more: built aside, linked by one entry", R"(
            create a
            map a 0x40000000 1 rw
            operations
            map a 0x401ff000 514 rw
        )"},
        {"map_lazy", "demand-zero pages", R"(
            create a
            map a 0x40000000 1 rw
            operations
            lazy a 0x40002000 7 rw
        )"},
        {"map_guard", "guard pages, over the edge of a table, protected and unmapped in part", R"(
            create a
            map a 0x40000000 1 rw
            operations
            guard a 0x401fe000 5
            protect a 0x401ff000 2 rw
            unmap a 0x40200000 1
        )"},
        {"huge_map", "two pages of 2 MiB, and both gone", R"(
            pool 20MiB
            create a
            map a 0x40000000 1 rw
            operations
            huge a 0x40200000 1024 rw
            unmap a 0x40200000 1024
            release 100
        )"},
        {"huge_split", "parts of pages of 2 MiB: protected, unmapped", R"(
            pool 20MiB
            create a
            huge a 0x40200000 1024 rw
            write a 0x40200000 5
            write a 0x403ff000 6
            write a 0x40410000 7
            operations
            protect a 0x403ff000 2 r
            unmap a 0x40200000 1
            write a 0x40201000 8
        )"},
        {"huge_split_unmap", "two pages of 2 MiB, cut at both ends", R"(
            pool 20MiB
            create a
            huge a 0x40200000 1024 rw
            write a 0x40200000 5
            operations
            unmap a 0x40201000 1022
            map a 0x50000000 600 rw
        )"},
        {"huge_fork_write", "a page of 2 MiB in two forks, written by both", R"(
            pool 20MiB
            create a
            huge a 0x40200000 512 rw
            write a 0x40201000 5
            fork a b
            operations
            write b 0x40202000 6
            write a 0x40203000 7
        )"},
        {"huge_fork_split", "a part of a page of 2 MiB that a fork has, too", R"(
            pool 20MiB
            create a
            huge a 0x40200000 512 rw
            write a 0x40201000 5
            fork a b
            operations
            unmap b 0x40202000 3
            protect a 0x40201000 1 r
        )"},
        {"huge_lazy", "demand-zero pages of 2 MiB, of which one is written", R"(
            pool 20MiB
            create a
            lazy_huge a 0x40000000 1536 rw
            unmap a 0x40400000 7
            operations
            write a 0x40201000 5
            write a 0x40410000 6
        )"},
        {"huge_promote", "pages of 4 KiB that become one of 2 MiB, and parts again", R"(
            pool 20MiB
            create a
            map a 0x40200000 500 rw
            lazy a 0x403f4000 12 rw
            write a 0x40201000 5
            operations
            promote a 0x40200000 512
            write a 0x40203000 6
            unmap a 0x40201000 1
            release 100
        )"},
        {"huge_promote_fork", "pages that a fork has, too", R"(
            pool 32MiB
            frames 20MiB
            create a
            map a 0x40200000 512 rw
            write a 0x40201000 5
            fork a b
            write a 0x40202000 6
            operations
            promote a 0x40200000 512
        )"},
        {"stack", "a stack, that grows over the edge of a table, and then within one", R"(
            create a
            map a 0x40000000 1 rw
            operations
            stack a 0x401e0000 40 rw
            write a 0x401fe000 7
            write a 0x401fb000 8
            fault a 0x401f2000
        )"},
        {"stack_fork", "a stack of many tables that grows in a fork", R"(
            create a
            stack a 0x40000000 2000 rw
            write a 0x407cf000 7
            fork a b
            operations
            write b 0x40600000 8
            write a 0x407c0000 9
        )"},
        {"supervisor_create", "a supervisor object, and spaces that come and go with its half", R"(
            create a
            operations
            supervisor k
            create b 4 k
            begin
            create c 4 k
            map c 0x40000000 1 rw
            commit
            remove b
            release 1000
        )"},
        {"supervisor_change", "what a supervisor object maps is there for all that share it", R"(
            supervisor k
            create a 4 k
            map a 0x40000000 1 rw
            snapshot a s
            operations
            map k 0xffff800000000000 3 rw
            lazy k 0xffffffffffe00000 512 rw
            write a 0xffffffffffe01000 7
            unmap k 0xffff800000001000 1
            rollback a s
            protect k 0xffff800000000000 1 r
        )"},
        {"supervisor_move", "another base for a half that two roots link to", R"(
            supervisor k
            create a 4 k
            map k 0xffff800000000000 3 rw
            move 0
            reopen
            operations
            unmap k 0xffff800000001000 1
            finish_moves
        )",
         40},
        {"overcommit", "policies that are set, and refuse and permit", R"(
            create a
            map a 0x40000000 3 rw
            operations
            overcommit never 1
            lazy a 0x50000000 20 rw
            full fork a b
            overcommit always 1
            fork a b
        )"},
        {"evict", "pages of zeros lose their frames, and one gets one again", R"(
            create a
            map a 0x401fd000 6 rw
            write a 0x401fe000 5
            operations
            evict a 6
            write a 0x40200000 7
            protect a 0x401fd000 6 r
        )"},
        {"map_shared", "frames of another space", R"(
            create a
            create b
            map a 0x40000000 4 rw
            write a 0x40001000 17
            operations
            share b 0x50000000 3 r a 0x40001000 3
        )"},
        {"unmap_one", "one page", R"(
            create a
            map a 0x40000000 3 rw
            write a 0x40001000 9
            operations
            unmap a 0x40001000 1
        )"},
        {"unmap_last", "the last page of a table", R"(
            create a
            map a 0x40000000 1 rw
            operations
            unmap a 0x40000000 1
            map a 0x40000000 1 r
        )"},
        {"unmap_range", "a whole table and parts of two", R"(
            create a
            map a 0x401fe000 516 rw
            operations
            unmap a 0x401ff000 514
        )"},
        {"unmap_shared", "one of two mappings of a frame", R"(
            create a
            create b
            map a 0x40000000 2 rw
            share b 0x50000000 2 rw a 0x40000000 2
            operations
            unmap a 0x40000000 2
            unmap b 0x50000000 1
        )"},
        {"protect_one", "one page", R"(
            create a
            map a 0x40000000 3 rw
            operations
            protect a 0x40001000 1 r
        )"},
        {"protect_range", "as many entries as make a table be copied", R"(
            create a
            map a 0x401f0000 60 rw
            operations
            protect a 0x401f1000 50 rx
        )"},
        {"write_page", "bytes of a page, and of one that has no frame yet", R"(
            create a
            map a 0x40000000 1 rw
            lazy a 0x40001000 1 rw
            operations
            write a 0x40000000 0x1122334455667788
            write a 0x40001000 0x99aabbccddeeff00
        )"},
        {"transaction", "calls over two spaces as one", R"(
            create a
            create b
            map a 0x40000000 4 rw
            operations
            begin
            create c
            map a 0x40010000 2 rw
            unmap a 0x40000000 1
            protect a 0x40001000 1 r
            map b 0x40000000 1 rw
            commit
        )"},
        {"transaction_spaces", "names moved and taken again in one transaction", R"(
            create a
            create b
            map a 0x40000000 2 rw
            map b 0x40000000 1 r
            operations
            begin
            remove b
            rename a b
            create a
            map a 0x60000000 1 rw
            commit
        )"},
        {"release_limbo", "what was unmapped and removed is released", R"(
            create a
            create b
            map a 0x401fe000 516 rw
            map b 0x40000000 3 rw
            unmap a 0x401ff000 514
            remove b
            operations
            release 1
            release 1000
        )"},
        {"full_map", "a range for which there are not enough frames: taken and given back", R"(
            pool 10MiB
            create a
            map a 0x40000000 1000 rw
            operations
            full map a 0x80000000 600 rw
            map a 0x80000000 20 rw
        )"},
        {"full_transaction", "a transaction that finds the store full at its last call", R"(
            pool 10MiB
            create a
            map a 0x40000000 1000 rw
            operations
            begin
            map a 0x80000000 30 rw
            create b
            unmap a 0x40000000 3
            protect a 0x40010000 20 r
            map b 0x40000000 600 rw
            full
            map a 0x80000000 2 rw
        )"},
        {"full_limbo", "frames that only limbo has: it is released in the middle of the call", R"(
            pool 10MiB
            create a
            map a 0x40000000 1100 rw
            unmap a 0x40000000 900
            operations
            map a 0x80000000 700 rw
        )"},
        {"grow", "a region more, by itself", R"(
            pool 12MiB
            frames 1MiB
            create a
            map a 0x40000000 3 rw
            operations
            grow 0x100000
            map a 0x40010000 2 rw
        )"},
        {"grow_on_demand", "frames run out in the middle of a range: a region is added", R"(
            pool 12MiB
            frames 1MiB
            create a
            map a 0x40000000 100 rw
            operations
            map a 0x80000000 300 rw
        )"},
        {"volatile_region", "a region of volatile memory, and a space that prefers it", R"(
            pool 12MiB
            frames 1MiB
            create a
            operations
            volatile 0x100000
            prefer a 1
            map a 0x40000000 2 rw
            unmap a 0x40000000 2
            detach 1
            reopen
            attach 1
        )"},
        {"map_device", "frames of a device, over the edge of a table, shared with a fork", R"(
            pool 12MiB
            frames 1MiB
            create a
            map a 0x40000000 1 rw
            operations
            device 0x10000
            mapdevice a 0x401fe000 4 rw 5
            fork a b
            unmap b 0x401ff000 2
        )"},
        {"device_region", "a device region, the first mapping of it, and a removal", R"(
            pool 12MiB
            frames 1MiB
            create a
            operations
            device 0x20000
            mapdevice a 0x40000000 20 rw 3
            remove a
        )"},
        {"zero_frame", "reads of demand-zero pages, which are then written, forked and unmapped",
         R"(
            create a
            lazy a 0x40000000 9 rw
            operations
            fault a 0x40000000
            fault a 0x40001000
            write a 0x40000000 7
            fork a b
            write b 0x40001000 8
            protect a 0x40000000 9 r
            unmap a 0x40000000 9
        )"},
        {"move_region", "another base, and changes before all entries have followed", R"(
            create a
            create b
            map a 0x40000000 3 rw
            map b 0x401fe000 30 rw
            write a 0x40001000 5
            operations
            move 0
            reopen
            unmap a 0x40000000 1
            protect b 0x401fe000 25 r
        )"},
        {"finish_moves", "all entries follow, and the region moves again", R"(
            create a
            create b
            map a 0x40000000 3 rw
            map b 0x401fe000 3 rw
            remove b
            create c 3
            move 0
            reopen
            operations
            finish_moves
            move 0
        )"},
        {"handle", "marks for handles, cut by unmapping", R"(
            create a
            map a 0x40000000 8 rw
            operations
            handle a 0x40001000 5
            handle a 0x40002000 1
            unmap a 0x40002000 2
        )"},
        {"fork", "a space that shares everything with another", R"(
            create a
            map a 0x40000000 3 rw name
            lazy a 0x7fffffe00000 3 rw
            write a 0x40001000 17
            operations
            fork a b
        )"},
        {"fork_write", "the first write after a fork: a path is copied", R"(
            create a
            map a 0x40000000 3 rw
            write a 0x40001000 17
            fork a b
            operations
            write a 0x40001000 18
        )"},
        {"fork_write_both", "the other one writes, too, to what it then has alone", R"(
            create a
            map a 0x40000000 3 rw
            write a 0x40001000 17
            fork a b
            write a 0x40001000 18
            operations
            write b 0x40001000 19
            write b 0x40000000 20
        )"},
        {"fork_change", "map, unmap and protect in tables that are shared", R"(
            create a
            map a 0x401fd000 6 rw
            fork a b
            operations
            map a 0x40010000 2 rw
            unmap b 0x401fe000 3
            protect a 0x401fd000 6 r
        )"},
        {"fork_many", "so many entries of shared tables that they are copied and replaced", R"(
            create a
            map a 0x40000000 60 rw
            fork a b
            operations
            protect a 0x40001000 50 r
            unmap b 0x40002000 40
        )"},
        {"fork_shared", "pages that stay shared, and one that becomes so", R"(
            create a
            create c
            map a 0x40000000 3 rw
            share c 0x50000000 1 rw a 0x40000000 1
            fork a b
            operations
            write b 0x40000000 5
            share c 0x60000000 1 rw b 0x40001000 1
            write a 0x40001000 6
        )"},
        {"fork_remove", "one of two forks is removed, and what it had released", R"(
            create a
            map a 0x401fe000 4 rw
            fork a b
            write b 0x401fe000 5
            operations
            remove a
            release 1000
            write b 0x401ff000 6
        )"},
        {"fork_transaction", "forks, and changes of both, as one", R"(
            create a
            map a 0x40000000 4 rw
            operations
            begin
            fork a b
            unmap a 0x40000000 1
            map b 0x40010000 1 rw
            fork b c
            protect b 0x40001000 1 r
            commit
        )"},
        {"snapshot", "a snapshot, and the way back to it", R"(
            create a
            map a 0x40000000 3 rw name
            write a 0x40001000 17
            operations
            snapshot a s
            write a 0x40001000 18
            rollback a s
            write a 0x40002000 19
            remove s
        )"},
        {"map_file", "a range of a file, and its object; and one more of the same file", R"(
            file f 3
            create a
            create b
            map a 0x40000000 1 rw
            operations
            mapfile a 0x40002000 3 rw f 0
            mapfile b 0x50000000 4 rw f 1 shared
            unmap a 0x40003000 1
        )"},
        {"map_file_transaction", "files and their objects made by one transaction", R"(
            file f 3
            file g 2
            create a
            operations
            begin
            create b
            mapfile a 0x40000000 2 rw f 0
            mapfile b 0x40000000 2 rw f 1 shared
            mapfile b 0x40010000 2 r g 0 shared
            commit
        )"},
        {"file_fault", "pages of files are loaded: for one space, for all, again for another", R"(
            file f 4
            create a
            create b
            mapfile a 0x40000000 600 rw f 0
            mapfile a 0x50000000 3 rw f 0 shared
            mapfile b 0x60000000 3 rw f 0 shared
            operations
            fault a 0x40001000
            write a 0x40002000 7
            write a 0x50001000 8
            fault b 0x60001000
            write b 0x60002000 9
        )"},
        {"file_fork", "pages of files that forks have, loaded and not", R"(
            file f 3
            create a
            mapfile a 0x40000000 3 rw f 0
            mapfile a 0x50000000 3 rw f 0 shared
            write a 0x40000000 5
            write a 0x50000000 6
            operations
            fork a b
            write b 0x40000000 7
            write b 0x50000000 8
            fault a 0x40001000
            fault b 0x50001000
            remove a
        )"},
        {"file_sync", "changed pages are written back, a step at a time", R"(
            file f 4
            create a
            mapfile a 0x50000000 4 rw f 0 shared
            write a 0x50000000 5
            write a 0x50002000 6
            fault a 0x50001000
            operations
            sync a 0x50000000 4
            write a 0x50001000 7
            reopen
            sync a 0x50001000 1
        )"},
        {"file_sync_unpersisted", "pages that nobody made durable: changed, and as the file is", R"(
            file f 3
            create a
            mapfile a 0x50000000 3 rw f 0 shared
            fault a 0x50000000
            write a 0x50001000 5
            operations
            write_unpersisted a 0x50000000 6
            sync a 0x50000000 1
            write_unpersisted a 0x50001000 0xf11e00000001
            sync a 0x50000000 3
        )"},
        {"reopen", "changes, a restart, and changes", R"(
            create a
            operations
            map a 0x40000000 1 rw
            reopen
            unmap a 0x40000000 1
        )"},
        {"repair_entry", "an entry in the middle of a named range", R"(
            create a
            map a 0x40000000 5 rw name
            write a 0x40000000 7
            damage entry a 0x40002000
            operations
            repair
        )"},
        {"repair_link", "a table is lost, with what it mapped", R"(
            create a
            map a 0x401fd000 6 rw
            write a 0x40200000 7
            damage link a 0x401fd000
            operations
            repair
        )"},
        {"repair_metadata", "the metadata of a frame that two spaces share", R"(
            create a
            create b
            map a 0x40000000 4 rw
            share b 0x50000000 4 r a 0x40000000 4
            damage metadata a 0x40001000
            operations
            repair
        )"},
        {"repair_references", "a wrong reference count, and leaked frames", R"(
            create a
            create b
            map a 0x40000000 3 rw
            share b 0x50000000 3 r a 0x40000000 3
            damage references a 0x40001000
            damage leak
            operations
            repair
        )"},
        {"repair_leak", "frames that nothing leads to", R"(
            create a
            map a 0x40000000 3 rw
            damage leak
            operations
            repair
        )"},
        {"repair_root", "a space whose root is lost, with names of ranges", R"(
            create a
            create b
            map a 0x40000000 3 rw first
            map a 0x40010000 3 rw second
            map b 0x40000000 1 rw
            damage root a
            operations
            repair
        )"},
        {"repair_record", "a space whose record is lost", R"(
            create a
            create b
            map a 0x40000000 3 rw
            map b 0x40000000 1 rw
            damage record a
            operations
            repair
        )"},
        {"repair_name", "a space that has lost its name only", R"(
            create a
            map a 0x40000000 3 rw
            write a 0x40000000 7
            damage name a
            operations
            repair
        )"},
        {"repair_limbo", "limbo, with a removed space in it that must stay removed", R"(
            create a
            create b
            map a 0x401fe000 516 rw
            map b 0x40000000 3 rw name
            remove b
            unmap a 0x401ff000 514
            damage limbo
            operations
            repair
        )"},
        {"repair_superblock", "a word of the superblock, for which open refuses the store", R"(
            create a
            map a 0x40000000 3 rw
            damage leak
            damage owner
            operations
            repair
        )"},
        {"repair_head", "the word that leads to limbo, with a removed space in it", R"(
            create a
            create b
            map a 0x40000000 3 rw
            remove b
            damage head
            operations
            repair
        )"},
        {"repair_build", "the slot of an interrupted build", R"(
            create a
            map a 0x40000000 3 rw
            damage build
            operations
            repair
        )"},
        {"create_store", "the making of the pool and its first space", "create a\n"},
        {"long_transaction", "so many words that libpmemobj's logs are chained",
         R"(
            create a
            map a 0x40000000 400 rw
            operations
            begin
            map a 0x50000000 8 rw
            map a 0x60000000 8 rw
            map a 0x70000000 8 rw
            map a 0x80000000 8 rw
            unmap a 0x40000000 12
            protect a 0x40020000 12 r
            protect a 0x40040000 12 r
            protect a 0x40060000 12 r
            protect a 0x40080000 12 r
            protect a 0x400a0000 12 r
            create b
            create c
            commit
        )"},
        {"chained_transaction", "so many snapshots that the undo log is chained more than once", R"(
            pool 40MiB
            create a
            map a 0x40000000 4400 rw
            operations
            begin
            repeat 2150 0x2000 unmap a 0x40000000 1
            create b
            commit
        )",
         1050},
    };
    return all;
}

Result<Script> find_workload(const std::string& name) {
    for (const NamedWorkload& workload : workloads())
        if (name == workload.name) return Script::parse(name, workload.text);
    if (name.starts_with("mix-")) {
        std::uint64_t seed = 0, calls = 6;
        const char* const end = name.data() + name.size();
        auto [at, error] = std::from_chars(name.data() + 4, end, seed);
        if (error == std::errc() && at != end && *at == '-')
            std::tie(at, error) = [&] {
                const auto parsed = std::from_chars(at + 1, end, calls);
                return std::pair(parsed.ptr, parsed.ec);
            }();
        if (error == std::errc() && at == end && calls > 0) return random_script(name, seed, calls);
    }
    std::string names;
    for (const NamedWorkload& workload : workloads()) names += fmt::format(" {}", workload.name);
    return fail(ErrorCode::not_found,
                fmt::format("there is no workload \"{}\", neither a file nor one of:{} mix-SEED",
                            name, names));
}

}  // namespace holdfast::crash
